"""Epochs of unpaired images: what is read, cut, mirrored and drawn, and what is said of files that cannot be read."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.config.options import DataConfig, Preprocess
from cyclegan_fast.data import sample_photos
from cyclegan_fast.data.batch import Cut
from cyclegan_fast.data.preparation import Preparation
from cyclegan_fast.data.training_images import Data, open_data
from cyclegan_fast.evaluation.colour_lookup import ColourLookup
from cyclegan_fast.evaluation.similarity import similarity
from cyclegan_fast.images.files import read_image, write_image
from cyclegan_fast.images.pixels import as_tensor, to_pixels, to_signed
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.sample_photos import main as write_sample_photos
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.data.epochs import Batches, assert_same, no_image, opened
from tests.cyclegan_fast.pictures import photo


def images_of(data: Data, epoch: int, first_step: int = 0) -> Batches:
    """Return the batches of A and B, [N, 3, H, W], as the step gets them."""
    batches = (batch.to(torch.device("cpu")) for batch in data.training.epoch(epoch, first_step))
    return [(real_A.numpy(), real_B.numpy()) for real_A, real_B in batches]


def cut_out(cut: Cut) -> np.ndarray:
    window = cut.pixels[cut.top : cut.top + cut.height, cut.left : cut.left + cut.width]
    return window[:, ::-1] if cut.mirrored else window


def plain_epoch(data: Data, seed: int, epoch: int) -> Batches:
    """Return an epoch of single images, computed in plain NumPy.

    Which random numbers are drawn for what is fixed for good, since a run that was saved before must go on with the
    images that it would have had.
    """
    training = data.training
    A, B, config = training.images_A, training.images_B, training.config

    def augment(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if config.preprocess in ("resize_and_crop", "crop", "scale_width_and_crop"):
            side = config.crop_size
            top = random.integers(0, pixels.shape[0] - side + 1)
            left = random.integers(0, pixels.shape[1] - side + 1)
            pixels = pixels[top : top + side, left : left + side]
        if config.flip and random.random() < 0.5:
            pixels = pixels[:, ::-1]
        return (pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - np.float32(1))[None]

    batches = []
    for index in np.random.default_rng([seed, epoch, 0]).permutation(max(len(A), len(B))):
        random = np.random.default_rng([seed, epoch, 1, index])
        a, b = A[index % len(A)], B[random.integers(len(B))]
        batches.append((augment(a, random), augment(b, random)))
    return batches


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("preprocess", get_args(Preprocess))
def test_an_epoch_is_what_plain_numpy_makes_of_the_images(folder: Path, preprocess: str, flip: bool) -> None:
    for index, path in enumerate((folder / "trainA").glob("*.png")):
        photo(80, index).resize((70 + index, 51 + 2 * index)).save(path)  # each of its own size
    data = opened(folder, seed=5, preprocess=preprocess, flip=flip)
    whole = plain_epoch(data, 5, 3)
    assert_same(images_of(data, 3), whole)
    assert_same(images_of(opened(folder, seed=5, preprocess=preprocess, flip=flip, workers=2), 3, 4), whole[4:])


def test_a_batch_is_its_images_one_after_the_other(folder: Path) -> None:
    for index, path in enumerate((folder / "trainB").glob("*.png")):
        photo(80, index).resize((70 + index, 51 + 2 * index)).save(path)
    for preprocess in ("resize_and_crop", "crop"):
        single = images_of(opened(folder, preprocess=preprocess), 1)
        first, last = images_of(opened(folder, preprocess=preprocess, batch_size=4), 1)
        for domain in (0, 1):
            np.testing.assert_array_equal(first[domain], np.concatenate([batch[domain] for batch in single[:4]]))
            np.testing.assert_array_equal(last[domain], np.concatenate([batch[domain] for batch in single[4:]]))


def test_host_tensors_have_one_shape_all_through_a_run(folder: Path) -> None:
    photo(80, 0).resize((77, 51)).save(folder / "trainA" / "0.png")
    for preprocess, side in (("resize_and_crop", 36), ("crop", 32), ("scale_width_and_crop", 32)):
        for batch in opened(folder, preprocess=preprocess).training.epoch(1):
            assert batch.pixels_A.shape == batch.pixels_B.shape == (1, side, side, 3)
            assert batch.size_A == batch.size_B == (32, 32)


def test_an_epoch_visits_every_index_of_the_larger_domain_once(folder: Path) -> None:
    training = opened(folder, preprocess="none", flip=False).training
    assert len(training) == 6
    seen = [batch.pixels_A[0].numpy().tobytes() for batch in training.epoch(3)]
    assert sorted(seen) == sorted(training.images_A[i].tobytes() for i in range(6))
    assert seen != [batch.pixels_A[0].numpy().tobytes() for batch in training.epoch(4)]


def test_the_smaller_domain_is_taken_modulo_its_size_as_A_and_drawn_as_B(folder: Path) -> None:
    for path in (folder / "trainA").glob("[2-5].png"):
        path.unlink()
    training = opened(folder, preprocess="none", flip=False).training
    assert len(training) == 4
    a = [training.pair(1, index)[0].pixels.tobytes() for index in range(4)]
    assert a[0] == a[2] == training.images_A[0].tobytes()
    assert a[1] == a[3] == training.images_A[1].tobytes()
    partners = {training.pair(epoch, 0)[1].pixels.tobytes() for epoch in range(1, 40)}
    assert partners == {training.images_B[i].tobytes() for i in range(4)}


@pytest.mark.parametrize("changes", [{"workers": 4}, {"cache_gib": 0.0}, {"workers": 3, "cache_gib": 0.0}])
def test_workers_and_cache_change_no_pixel(folder: Path, changes: dict[str, float]) -> None:
    assert_same(images_of(opened(folder), 2), images_of(opened(folder, **changes), 2))


def test_warnings_say_where_images_are_kept_that_do_not_fit_in_memory(folder: Path, tmp_path: Path) -> None:
    assert opened(folder, pairs="no").warnings == []
    kept = opened(folder, pairs="no", cache_gib=0.0, cache_dir=tmp_path / "disk")
    assert len(list((tmp_path / "disk").glob("*.pixels"))) == len(kept.warnings) == 4
    (tmp_path / "file").touch()
    refused = opened(folder, pairs="no", cache_gib=0.0, cache_dir=tmp_path / "file")
    for name, where, why in zip(("trainA", "trainB", "testA", "testB"), kept.warnings, refused.warnings, strict=True):
        assert f"{folder / name}, 0.00 GiB, are kept in {tmp_path / 'disk'}" in where
        assert f"{folder / name} do not fit in 0.00 GiB of memory" in why
        assert f"cannot be kept in {tmp_path / 'file'} (File exists)" in why
    assert_same(images_of(kept, 1), images_of(refused, 1))


def test_test_images_are_pairs_only_where_somebody_says_so(folder: Path) -> None:
    plain = opened(folder)
    assert plain.tests.A is not None
    assert plain.tests.A.truth is None  # the same numbers alone are no pairs
    assert "--pairs yes" in plain.warnings[0]
    said = opened(folder, pairs="yes").tests
    assert said.A is not None
    assert said.B is not None
    assert said.A.truth is not None
    for index in range(2):
        np.testing.assert_array_equal(said.A.truth[index], said.B.images[index])
    for name in ("testA", "testB"):
        for path in (folder / name).iterdir():
            path.rename(path.with_name(f"{path.stem}_{name[-1]}.png"))
    by_name = opened(folder).tests
    assert by_name.B is not None
    assert by_name.B.truth is not None
    assert opened(folder, pairs="no").tests.B.truth is None  # type: ignore[union-attr]  # it is there


def test_pairs_without_a_partner_are_named(folder: Path) -> None:
    (folder / "testA" / "1.png").rename(folder / "testA" / "lonely.png")
    with pytest.raises(UserError, match=r"2 images.*without a partner: .*testA/lonely.png, .*testB/1.png"):
        opened(folder, pairs="yes")


def test_an_epoch_can_be_entered_in_its_middle(folder: Path) -> None:
    for batch_size in (1, 4):
        whole = images_of(opened(folder, batch_size=batch_size), 5)
        assert_same(whole[1:], images_of(opened(folder, batch_size=batch_size, workers=2), 5, first_step=1))


def test_seed_and_epoch_change_crops_and_partners(folder: Path) -> None:
    first = np.concatenate(images_of(opened(folder), 1))
    for other in (images_of(opened(folder), 2), images_of(opened(folder, seed=1), 1)):
        assert (first != np.concatenate(other)).any()


def test_crops_are_windows_of_the_resized_image_and_half_are_mirrored(folder: Path) -> None:
    training = opened(folder).training
    source = training.images_A[0]
    assert source.shape == (36, 36, 3)
    windows = {source[t : t + 32, x : x + 32].tobytes(): False for t in range(5) for x in range(5)}
    windows |= {source[t : t + 32, x : x + 32][:, ::-1].tobytes(): True for t in range(5) for x in range(5)}
    mirrored = [windows[cut_out(training.pair(epoch, 0)[0]).tobytes()] for epoch in range(1, 200)]
    assert 70 < sum(mirrored) < 130  # 199 fair draws


# --- several ranks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "batch_size", "count"), [(2, 1, 6), (2, 2, 8), (3, 2, 12), (2, 2, 6), (3, 4, 15)])
def test_ranks_together_see_the_batches_of_one(folder: Path, ranks: int, batch_size: int, count: int) -> None:
    """`count` is a multiple of `ranks`: the last step can be shorter, and is shared out equally all the same."""
    for index in range(6, count):
        photo(48, index).save(folder / "trainA" / f"{index}.png")
    single = opened(folder, batch_size=batch_size * ranks)
    several = [opened(folder, batch_size=batch_size, ranks=ranks, rank=rank) for rank in range(ranks)]
    assert {data.training.steps_per_epoch for data in several} == {single.training.steps_per_epoch}
    for first_step in (0, 1):
        shares = zip(*(images_of(data, 2, first_step) for data in several), strict=True)
        together = [tuple(np.concatenate(domain) for domain in zip(*share, strict=True)) for share in shares]
        assert_same(together, images_of(single, 2, first_step))  # type: ignore[arg-type]


@pytest.mark.parametrize(("ranks", "batch_size", "filled"), [(4, 1, 2), (4, 2, 2), (5, 1, 4), (8, 3, 2), (16, 2, 10)])
def test_the_first_images_of_an_epoch_fill_up_a_last_step_that_ranks_cannot_share(
    folder: Path, ranks: int, batch_size: int, filled: int
) -> None:
    order = images_of(opened(folder), 2)
    steps = opened(folder, batch_size=batch_size, ranks=ranks).training.steps_per_epoch
    assert steps == -(-6 // (ranks * batch_size))
    seen: list[Batches] = [[] for _ in range(steps)]
    for rank in range(ranks):
        batches = images_of(opened(folder, batch_size=batch_size, ranks=ranks, rank=rank), 2)
        for step, (real_A, real_B) in enumerate(batches):
            seen[step] += [(a[None], b[None]) for a, b in zip(real_A, real_B, strict=True)]
        assert len(batches[-1][0]) == (6 + filled - (steps - 1) * ranks * batch_size) // ranks >= 1
    assert_same([image for step in seen for image in step], [*order, *order, *order][: 6 + filled])


# --- preparation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preprocess", "shape"),
    [
        ("resize_and_crop", (32, 32, 3)),
        ("crop", (32, 32, 3)),
        ("scale_width", (32, 36, 3)),
        ("scale_width_and_crop", (32, 32, 3)),
        ("none", (52, 76, 3)),
    ],
)
def test_preprocessing_modes_give_their_shapes(folder: Path, preprocess: str, shape: tuple[int, ...]) -> None:
    for path in (folder / "trainA").glob("*.png"):
        photo(80, 1).resize((77, 51)).save(path)
    cut, _ = opened(folder, preprocess=preprocess).training.pair(1, 0)
    assert cut_out(cut).shape == shape


def originals_size(preprocess: str, width: int, height: int, load: int, crop: int) -> tuple[int, int]:
    """Return what the original's transforms make of an image before the crop, in its own floating-point arithmetic."""
    if preprocess == "resize_and_crop":
        return load, load
    if preprocess in ("scale_width", "scale_width_and_crop"):
        return (width, height) if width == load and height >= crop else (load, int(max(load * height / width, crop)))
    if preprocess == "none":
        return int(round(width / 4) * 4), int(round(height / 4) * 4)
    return width, height


SOURCE_SIZES = [(width, height) for width in range(256, 640, 23) for height in range(257, 700, 29)]


@pytest.mark.parametrize(("load", "crop"), [(286, 256), (360, 256), (512, 256), (256, 256)])
@pytest.mark.parametrize("preprocess", get_args(Preprocess))
def test_every_mode_gives_the_originals_size_of_hundreds_of_sources(
    preprocess: Preprocess, load: int, crop: int
) -> None:
    """Takes the nearest multiple of 4 where scale_width gives none, on which the original's networks fail."""
    prepare, exact, truncated = Preparation(preprocess, load, crop), 0, 0
    for width, height in SOURCE_SIZES:
        expected = originals_size(preprocess, width, height, load, crop)
        found = prepare(Image.new("L", (width, height))).size
        if preprocess == "scale_width":
            expected = (int(round(expected[0] / 4) * 4), int(round(expected[1] / 4) * 4))
        assert found == expected, (width, height)
        exact += expected == originals_size(preprocess, width, height, load, crop)
        truncated += expected[1] != round(load * height / width)
    assert len(SOURCE_SIZES) > 250
    assert exact == len(SOURCE_SIZES) or preprocess == "scale_width"
    assert truncated > 50 or preprocess != "scale_width_and_crop" or load == 256


@pytest.mark.parametrize("preprocess", get_args(Preprocess))
def test_every_mode_gives_the_originals_pixels(preprocess: Preprocess) -> None:
    """Expects one bicubic resize of Pillow's from the source to the size, and none where it has that size."""
    for width, height in ((100, 77), (91, 140), (64, 64), (72, 60), (61, 97)):
        source = photo(160, width).resize((width, height))
        size = originals_size(preprocess, width, height, 64, 48)
        if preprocess == "scale_width":
            size = (int(round(size[0] / 4) * 4), int(round(size[1] / 4) * 4))
        expected = source if size == source.size else source.resize(size, Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(np.asarray(Preparation(preprocess, 64, 48)(source)), np.asarray(expected))


def test_the_first_images_in_the_order_of_their_names(folder: Path) -> None:
    data = opened(folder, max_images=3, serial=True)
    training = data.training
    assert [name.split()[0] for name in training.images_A.names] == ["0.png", "1.png", "2.png"]
    assert len(training.images_B) == 3
    whole = opened(folder, serial=True, flip=False, load_size=32).training
    batches = [
        batch for epoch in (1, 2) for batch in images_of(opened(folder, serial=True, flip=False, load_size=32), epoch)
    ]
    for place, (real_A, real_B) in enumerate(batches):  # 6 images of A and 4 of B
        index = place % 6
        np.testing.assert_array_equal(to_pixels(torch.from_numpy(real_A))[0], whole.images_A[index])
        np.testing.assert_array_equal(to_pixels(torch.from_numpy(real_B))[0], whole.images_B[index % 4])
    assert training.fingerprint != opened(folder).training.fingerprint
    embedded = open_data(DataConfig(load_size=36, crop_size=32, max_images=5), 0).training
    assert len(embedded.images_A) == len(embedded.images_B) == 5


def test_held_out_images_are_resized_to_the_crop_and_neither_cropped_nor_mirrored(folder: Path) -> None:
    data = opened(folder)
    assert data.tests.A is not None
    expected = Image.open(folder / "testA" / "0.png").resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(data.tests.A.images[0], np.asarray(expected))


def test_levels_survive_the_way_to_floating_point_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3).contiguous()
    signed = to_signed(levels)
    assert signed.shape == (1, 3, 16, 16)
    assert (signed.min(), signed.max()) == (-1, 1)
    np.testing.assert_array_equal(to_pixels(signed), levels.numpy())
    assert to_pixels(torch.full((1, 3, 1, 1), 0.6 / 127.5 - 1)).item(0) == 1  # rounded, not truncated


# --- formats -------------------------------------------------------------------------------------------------------


def red_square(mode: str) -> Image.Image:
    return Image.new("RGB", (8, 8), (204, 51, 0)).convert(mode)


@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "png"), ("P", "png"), ("RGBA", "png"), ("CMYK", "tiff")])
def test_colour_modes_become_the_same_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    red_square(mode).save(path)
    assert np.abs(np.asarray(read_image(path)).astype(int) - (204, 51, 0)).max() <= 1
    assert read_image(path).mode == "RGB"


def test_greyscale_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    assert (np.asarray(read_image(tmp_path / "grey.png")) == 77).all()


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16).repeat(4, axis=0)
    Image.fromarray(values).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "deep.png"))[0, :, 0], [0, 1, 128, 255])


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (200, 40, 30, 255))
    image.putpixel((0, 0), (1, 2, 3, 0))
    image.save(tmp_path / "cut.png")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([9, 9, 9, 204, 51, 0])
    palette.putpixel((1, 1), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert np.asarray(read_image(tmp_path / "cut.png"))[0, 0].tolist() == [255, 255, 255]
    pixels = np.asarray(read_image(tmp_path / "palette.png"))
    assert (pixels[0, 0].tolist(), pixels[1, 1].tolist()) == ([255, 255, 255], [204, 51, 0])


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(read_image(tmp_path / "turned.png"))
    assert upright.shape == (8, 4, 3)
    assert (upright[:4] == 255).all()


# --- bad input -----------------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    buffer = io.BytesIO()
    photo(64, 0).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("damage", [truncated, no_image, empty])
def test_an_unreadable_image_is_named_and_left_out_or_refused(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / "trainA" / "2a.jpg")
    with pytest.raises(UnreadableImage, match=r"2a\.jpg"):
        read_image(folder / "trainA" / "2a.jpg")
    data = opened(folder, workers=2)
    assert len(data.training.images_A) == 6
    assert any("2a.jpg" in line for line in data.warnings)
    assert any("skipped 1 unreadable" in line for line in data.warnings)
    assert_same(images_of(data, 1), images_of(opened(folder, cache_gib=0.0), 1))
    with pytest.raises(UserError, match=r"2a\.jpg.*--strict"):
        opened(folder, strict=True)


def test_a_domain_of_unreadable_images_is_refused(folder: Path) -> None:
    for path in (folder / "trainB").iterdir():
        no_image(path)
    with pytest.raises(UserError, match="none of the 4 images"):
        opened(folder)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: [p.unlink() for p in (root / "trainA").iterdir()], "no images in .*trainA"),
        (lambda root: (root / "trainB").rename(root / "trainC"), r"missing: trainB; found: .*trainC"),
        (lambda root: root.rename(root.with_name("gone")), "no such folder"),
    ],
    ids=["empty", "one domain", "missing"],
)
def test_folders_that_cannot_be_trained_on_are_refused(
    folder: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(folder)
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_an_image_too_small_for_a_discriminator_is_named(folder: Path) -> None:
    photo(60, 0).resize((60, 18)).save(folder / "trainB" / "flat.png")
    with pytest.raises(UserError, match=r"flat\.png.*24 pixels each way"):
        opened(folder, preprocess="none")


def test_an_image_smaller_than_the_crop_is_named(folder: Path) -> None:
    photo(20, 0).save(folder / "trainB" / "tiny.png")
    with pytest.raises(UserError, match=r"tiny\.png.*20x20.*--crop-size"):
        opened(folder, preprocess="crop")
    assert len(opened(folder).training.images_B) == 5  # resized before the crop


def test_a_failed_write_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(file: IO[bytes], content: bytes, point: str | None = None) -> None:
        file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cyclegan_fast.images.files.write_whole", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


# --- the embedded photographs --------------------------------------------------------------------------------------


def test_the_embedded_domains_share_no_photograph() -> None:
    groups = [sample_photos.PHOTOGRAPHS_A, sample_photos.PHOTOGRAPHS_B, sample_photos.PHOTOGRAPHS_TEST]
    names = [name for group in groups for name in group]
    assert len(set(names)) == len(names)


def test_the_embedded_images_depend_on_their_seed_only() -> None:
    one, same, other = (sample_photos.make_training(24, count=6, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.drawings, same.drawings)
    assert (one.photographs != other.photographs).any()


@pytest.mark.slow
def test_the_drawing_does_what_no_colour_lookup_can() -> None:
    test = sample_photos.make_test(64)
    lookup = ColourLookup()
    lookup.add(test.photographs, test.drawings)
    oracle = lookup(test.photographs)
    drawings = as_tensor(test.drawings)
    assert similarity(as_tensor(test.photographs), drawings).psnr_db.mean() < 12
    assert similarity(as_tensor(oracle), drawings).psnr_db.mean() < 21
    assert similarity(drawings, drawings).psnr_db.mean() == pytest.approx(100)


def test_the_drawing_moves_with_its_photograph() -> None:
    photograph = np.asarray(photo(96, 3)) / 255.0
    whole = sample_photos.cyanotype_drawing(photograph)
    mirrored = sample_photos.cyanotype_drawing(photograph[:, ::-1])
    np.testing.assert_allclose(mirrored[:, ::-1], whole, atol=1e-12)


def test_the_embedded_data_set_can_be_written_and_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_sample_photos([str(tmp_path / "out"), "--side", "32", "--count", "3"]) == 0
    assert "trainB: 3 images" in capsys.readouterr().out
    data = opened(tmp_path / "out")
    assert len(data.training) == 3
    assert data.tests.B is not None
    assert len(data.tests.B.images) == 48


@pytest.mark.parametrize("flag", ["--side", "--count"])
def test_a_data_set_of_nothing_is_refused(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_sample_photos([str(tmp_path / "out"), flag, "0"]) == 2
    assert f"{flag} must be a whole number from 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
