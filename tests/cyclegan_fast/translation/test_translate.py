"""`python -m cyclegan_fast.translate`: what is written is the network's result, and every bad input is explained."""

import copy
import errno
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from cyclegan_fast.checkpoint.files import save
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.config.options import Config, DataConfig
from cyclegan_fast.conventions import Direction
from cyclegan_fast.data.preparation import held_out_preparation
from cyclegan_fast.images.decoding import Decoded, decode
from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixel_type import RGB
from cyclegan_fast.images.pixels import Pixels, to_pixels, to_pixels_array, to_signed, to_signed_array
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.runs import newest_run
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translate import main
from cyclegan_fast.translation import contact_sheet, prepared, writing
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.halves import halved
from cyclegan_fast.translation.on_device import prepare_network, translate_signed
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.translator import FunctionTranslator, Translator
from tests.cyclegan_fast.checkpoints import NARROW, checkpoint_of
from tests.cyclegan_fast.pictures import draw, draw_all, names, pixels_of
from tests.cyclegan_fast.translations import make_generator

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[3]


@torch.no_grad()
def directly(network: ResnetGenerator, path: Path, size: int) -> Pixels:
    """Translate by the shortest route: one image, training's own preparation and conversions."""
    pixels = np.asarray(held_out_preparation(size)(read_image(path)))
    result: Pixels = to_pixels(network(to_signed(torch.tensor(pixels)[None])))[0]
    return result


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw_all(tmp_path / "photos", dict.fromkeys(["one.png", "deep/er/two.jpg", "deep/three.bmp"], (48, 40)))


Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, weights: Path) -> Run:
    """Runs the command at 32x32 into tmp_path/out with `weights`; a flag that is given again replaces these."""

    def command(*arguments: object, size: bool = True, sheet: bool = False, checkpoint: Path | None = None) -> int:
        flags = [*(["--size", "32"] if size else []), *([] if sheet else ["--no-contact-sheet"])]
        fixed = ["--checkpoint", str(checkpoint or weights), "--out", str(tmp_path / "out"), "--device", "cpu"]
        return main([*map(str, arguments), *fixed, *flags])

    return command


# --- pixels --------------------------------------------------------------------------------------------------------


def test_conversions_without_torch_equal_those_with_it() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(2, 16, 8, 3)
    assert np.array_equal(to_signed_array(every), to_signed(torch.from_numpy(every)).numpy())
    assert np.array_equal(to_pixels_array(to_signed_array(every)), every)
    # Values on, just below and just above every rounding boundary, and beyond the range.
    halves = ((np.arange(-2, 258) + 0.5) / 127.5 - 1).astype(np.float32)
    values = np.concatenate([np.nextafter(halves, np.float32(side)) for side in (-9, 9)] + [halves])
    values = np.resize(values, (4, 3, 8, 9))
    assert np.array_equal(to_pixels_array(values), to_pixels(torch.from_numpy(values)))
    assert np.array_equal(to_pixels_array(values[1]), to_pixels(torch.from_numpy(values))[1])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_translations_equal_the_network(
    tmp_path: Path, photos: Path, run: Run, network: ResnetGenerator, batch_size: int
) -> None:
    assert run(photos, "--format", "png", "--batch-size", batch_size) == 0
    for source, written in (("one.png", "one.png"), ("deep/er/two.jpg", "deep/er/two.png")):
        expected = directly(network, photos / source, 32)
        assert expected.std() > 10, "a flat picture would prove nothing"
        actual = pixels_of(tmp_path / "out" / written)
        if batch_size == 1:
            assert np.array_equal(actual, expected)
        else:  # convolutions may add up in another order
            assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1


def test_jpeg_and_webp_hold_the_translation(tmp_path: Path, photos: Path, run: Run, network: ResnetGenerator) -> None:
    translation = Image.fromarray(directly(network, photos / "one.png", 32))
    for flag, name in (("jpeg", "one.jpg"), ("webp", "one.webp")):
        assert run(photos / "one.png", "--format", flag) == 0
        translation.save(encoded := io.BytesIO(), format=flag, quality=95)
        assert (tmp_path / "out" / name).read_bytes() == encoded.getvalue()
    assert names(tmp_path / "out") == {"one.jpg", "one.webp"}


@pytest.mark.parametrize(("width", "height"), [(48, 40), (47, 41), (33, 50), (1, 1), (5, 3)])
def test_by_default_an_image_keeps_its_size(
    tmp_path: Path, run: Run, network: ResnetGenerator, width: int, height: int
) -> None:
    source = draw(tmp_path / "in" / "image.png", width, height)
    assert run(source, size=False) == 0
    actual = pixels_of(tmp_path / "out" / "image.png")
    assert actual.shape == (height, width, 3)
    if min(width, height) > 4:
        signed = to_signed(torch.tensor(pixels_of(source))[None])
        padded = F.pad(signed, (0, -width % 4, 0, -height % 4), mode="reflect")
        with torch.no_grad():
            expected = to_pixels(network(padded)[:, :, :height, :width])[0]
        assert np.array_equal(actual, expected)


def test_images_of_one_shape_share_a_batch_and_none_is_mixed_up(tmp_path: Path, network: ResnetGenerator) -> None:
    shapes = [(16, 12), (16, 12), (12, 16), (16, 12), (15, 12), (20, 20)]
    for index, (width, height) in enumerate(shapes):
        draw(tmp_path / "in" / f"{index}.png", width, height, seed=index)
    seen: list[tuple[int, ...]] = []

    def negative(pixels: Pixels) -> Pixels:
        seen.append(pixels.shape)
        return 255 - pixels

    options = ImageOptions((str(tmp_path / "in"),), tmp_path / "out", batch_size=4, no_contact_sheet=True)
    summary = translate_images(FunctionTranslator(negative), plan(options), options, None)
    assert summary.translated == 6
    # 15x12 is padded to 16x12 and shares the batch of the fourth
    assert seen == [(2, 12, 16, 3), (1, 16, 12, 3), (2, 12, 16, 3), (1, 20, 20, 3)]
    for index in range(6):
        source = pixels_of(tmp_path / "in" / f"{index}.png")
        assert np.array_equal(pixels_of(tmp_path / "out" / f"{index}.png"), 255 - source)


def test_one_image_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(3):
        draw(tmp_path / "in" / f"{index}.png", 16, 16, seed=index)
    happened: list[str] = []

    def read(path: Path, value_range: ValueRange | None) -> Decoded:
        happened.append(f"read {path.stem}")
        return decode(path, value_range)

    def negative(pixels: Pixels) -> Pixels:
        written = len(list((tmp_path / "out").glob("*.png")))
        happened.append(f"translate {len(pixels)}, {written} written")
        time.sleep(0.05)  # for threads that would read ahead
        return 255 - pixels

    monkeypatch.setattr(prepared, "decode", read)
    options = ImageOptions((str(tmp_path / "in"),), tmp_path / "out", batch_size=4, no_contact_sheet=True)
    translate_images(FunctionTranslator(negative), plan(options), options, None, one_at_a_time=True)
    assert happened == [line for index in range(3) for line in (f"read {index}", f"translate 1, {index} written")]
    for index in range(3):
        source, written = (pixels_of(tmp_path / folder / f"{index}.png") for folder in ("in", "out"))
        assert np.array_equal(written, 255 - source)


def test_unusual_images_are_translated_as_upright_rgb(tmp_path: Path, run: Run, network: ResnetGenerator) -> None:
    folder = tmp_path / "in"
    base = Image.open(draw(folder / "base.png"))
    base.convert("L").point(lambda v: v * 257, "I").convert("I;16").save(folder / "deep16.png")
    base.convert("CMYK").save(folder / "cmyk.jpg")
    base.convert("P").save(folder / "palette.gif")
    base.putalpha(128)
    base.save(folder / "alpha.png")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.open(folder / "base.png").save(folder / "rotated.webp", exif=rotated, lossless=True)
    assert run(folder, "--format", "png", "--batch-size", 1) == 0
    for source in sorted(folder.iterdir()):
        written = pixels_of(tmp_path / "out" / f"{source.stem}.png")
        assert np.array_equal(written, directly(network, source, 32)), source.name


def test_by_default_a_batch_has_half_a_megapixel(tmp_path: Path) -> None:
    for index in range(9):
        draw(tmp_path / "in" / f"{index}.png", 256, 256, seed=index)
    draw(tmp_path / "in" / "large.png", 1024, 768)
    draw(tmp_path / "in" / "larger.png", 1024, 768, seed=1)
    seen: list[tuple[int, ...]] = []

    def negative(pixels: Pixels) -> Pixels:
        seen.append(pixels.shape)
        return 255 - pixels

    options = ImageOptions((str(tmp_path / "in"),), tmp_path / "out", no_contact_sheet=True)
    translate_images(FunctionTranslator(negative), plan(options), options, None)
    assert seen == [(8, 256, 256, 3), (1, 256, 256, 3), (1, 768, 1024, 3), (1, 768, 1024, 3)]


def test_images_of_one_colour_are_named_in_one_note(
    tmp_path: Path, photos: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Translates flat images, of which a norm makes rounding noise; see docs/your-own-images.md."""
    for index, colour in enumerate(("navy", "white", "#808080", "black")):
        Image.new("RGB", (40, 33), colour).save(photos / f"plain{index}.png")
    assert run(photos, size=False) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "colour" in line]
    plain = ", ".join(str(photos / f"plain{index}.png") for index in range(3))
    assert note.startswith(f"note: 4 images are of one colour ({plain}, ...): what a generator makes of that is")
    Image.new("RGB", (40, 33), "navy").save(tmp_path / "one colour.png")
    assert run(tmp_path / "one colour.png") == 0
    assert f"note: 1 image is of one colour ({tmp_path / 'one colour.png'}): " in capsys.readouterr().err
    almost = Image.new("RGB", (40, 33), "navy")
    almost.putpixel((39, 32), (0, 0, 127))
    almost.save(tmp_path / "almost.png")
    assert run(tmp_path / "almost.png") == 0
    assert "colour" not in capsys.readouterr().err


@torch.no_grad()
def test_an_image_of_one_colour_has_no_defined_result(photos: Path, network: ResnetGenerator) -> None:
    """Holds in float64 too: a difference in the last bit gives another picture, and of a photograph the same."""
    exact = copy.deepcopy(network).double()
    photo = to_signed(torch.tensor(pixels_of(photos / "one.png"))[None]).double()
    for image, defined in ((photo, True), (torch.full_like(photo, 0.3), False)):
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype)
        difference = (exact(image + 1e-15 * noise) - exact(image)).abs().max()
        assert bool(difference < 1e-9) is defined
        assert bool(difference > 0.1) is not defined


def test_what_does_not_fit_a_cpus_memory_is_refused_before_the_system_ends_the_process(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bytes_needed = 14 * 4 * 48 * 40  # of four channels
    for free, status in ((bytes_needed, 0), (bytes_needed - 1, 2)):
        monkeypatch.setattr("cyclegan_fast.translation.on_device.available_bytes", lambda free=free: free)
        assert run(photos / "one.png", "--overwrite", "--strict", size=False) == status
    error = capsys.readouterr().err
    said = f"error: {photos / 'one.png'}: 1 image of 48x40 does not fit the memory of cpu: about 0.0 GiB are needed, "
    assert error.startswith(said)
    assert error.endswith("; add --tile, or give a smaller --size\n")


# --- names ---------------------------------------------------------------------------------------------------------


def test_names_and_structure_are_kept(tmp_path: Path, photos: Path, run: Run) -> None:
    draw(photos / "UPPER.JPG")
    draw(photos / "v1.2.final.webp")
    assert run(photos) == 0
    expected = {"one.png", "deep/er/two.jpg", "deep/three.png", "UPPER.JPG", "v1.2.final.webp"}
    assert names(tmp_path / "out") == expected


def test_globs_are_expanded_and_keep_the_structure_below_their_first_wildcard(
    tmp_path: Path, photos: Path, run: Run
) -> None:
    assert run(photos / "**" / "*.jpg") == 0
    assert names(tmp_path / "out") == {"deep/er/two.jpg"}
    assert run(photos / "d*") == 0  # as a shell would, and folders are searched
    assert names(tmp_path / "out") == {"deep/er/two.jpg", "deep/three.png"}
    assert run(photos / "[o]ne.*", photos / "deep" / "*.bmp") == 0
    assert names(tmp_path / "out") == {"deep/er/two.jpg", "deep/three.png", "three.png", "one.png"}


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path, run: Run) -> None:
    source = draw(tmp_path / "in" / "photo[1]*.png")
    draw(tmp_path / "in" / "photo1.png")
    assert run(source) == 0
    assert names(tmp_path / "out") == {"photo[1]*.png"}


def test_two_inputs_of_one_name_are_refused_before_any_work(
    tmp_path: Path, photos: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(photos / "deep" / "one.png")
    assert run(photos / "one.png", photos / "deep" / "one.png") == 2
    error = capsys.readouterr().err
    assert str(photos / "one.png") in error
    assert str(photos / "deep" / "one.png") in error
    assert str(tmp_path / "out" / "one.png") in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert run(photos, photos / "deep" / ".." / "one.png") == 0, "the same file named twice is one"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], {"a.png", "a.jpg", "a.bmp.png", "a.tga.png", "b.png"}),
        (["--format", "jpeg"], {"a.png.jpg", "a.jpg", "a.bmp.jpg", "a.tga.jpg", "b.jpg"}),
    ],
)
def test_images_of_one_stem_in_several_formats_do_not_replace_each_other(
    tmp_path: Path, run: Run, network: ResnetGenerator, flags: list[str], expected: set[str]
) -> None:
    sources = [
        draw(tmp_path / "in" / name, seed=seed) for seed, name in enumerate(("a.png", "a.jpg", "a.bmp", "a.tga"))
    ]
    draw(tmp_path / "in" / "b.bmp")
    assert run(tmp_path / "in", *flags) == 0
    assert names(tmp_path / "out") == expected
    translations = {source: directly(network, source, 32).astype(int) for source in sources}
    for source in sources:
        (written,) = expected & {source.name, f"{source.name}.png", f"{source.name}.jpg"}
        pixels = pixels_of(tmp_path / "out" / written)
        nearest = min(sources, key=lambda other: float(np.abs(translations[other] - pixels).mean()))  # JPEG loses some
        assert nearest == source


def test_every_image_of_one_stem_has_a_name_of_its_own(tmp_path: Path) -> None:
    given = ("a.png", "a.bmp", "a.bmp.png", "a.bmp.png.tga", "a.tif", "a.webp", "a.jpg", "a.JPG", "b.tif", "b.tif.png")
    for name in given:
        draw(tmp_path / "drawn.png", 8, 8).rename(tmp_path / name)
    for format in ("same", "png", "jpeg", "webp"):
        for count in range(2, len(given) + 1):
            images = tuple(str(tmp_path / name) for name in given[-count:])
            jobs = plan(ImageOptions(images, tmp_path / "out", format=format))  # type: ignore[arg-type]  # a loop's str
            targets = {job.target.name: job.source.name for job in jobs}
            assert len(targets) == count
            assert all(name not in targets or targets[name] == name for name in given[-count:])
    jobs = plan(ImageOptions((str(tmp_path),), tmp_path / "out"))
    renamed = {job.source.name: job.target.name for job in jobs if job.source.name != job.target.name}
    assert renamed == {
        "a.bmp": "a.bmp.png.png.png",
        "a.bmp.png.tga": "a.bmp.png.png",
        "a.tif": "a.tif.png",
        "b.tif": "b.png",
    }


def test_any_bytes_are_a_name(tmp_path: Path, run: Run, network: ResnetGenerator) -> None:
    given = [
        b"\xc2\xed2.png",
        b"-v.png",
        b"a*[b]?.png",
        b"two\nlines \x1b[31m.png",
        b"\xe9\xa6\xac.png",
        b"n" * 251 + b".png",
    ]
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(given):
        draw(tmp_path / "drawn.png", seed=seed).rename(tmp_path / "in" / os.fsdecode(name))
    # One image at a time, as `directly`: in a batch a value that lies between two levels may round to the other.
    assert run(tmp_path / "in", "--batch-size", "1", sheet=True) == 0
    written = {os.fsencode(name) for name in names(tmp_path / "out")}
    assert written == {*given, b"contact_sheet.jpg"}
    for name in given:
        path = Path(os.fsdecode(name))
        assert np.array_equal(pixels_of(tmp_path / "out" / path), directly(network, tmp_path / "in" / path, 32)), name


def test_what_alone_cannot_be_written_is_named_at_the_end_and_the_rest_is_done(
    tmp_path: Path, run: Run, network: ResnetGenerator, capsys: pytest.CaptureFixture[str]
) -> None:
    longest, source, out = "n" * 251, tmp_path / "in", tmp_path / "out"
    for name in (f"{longest}.png", "a.png", "blocked.png", "deep/b.png", "deep/c.png"):
        draw(source / name)
    (out / "blocked.webp").mkdir(parents=True)
    (out / "deep").write_text("a file")
    assert run(source, "--format", "webp") == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 5, said.err
    assert f"could not write {out / f'{longest}.webp'}: File name too long" in lines
    assert f"could not write {out / 'blocked.webp'}: a folder has that name" in lines
    assert f"could not write {out / 'deep' / 'b.webp'}: there is a file where its folder should be" in lines
    assert lines[-1] == "error: 4 files could not be written, as said above; the same command tries them again"
    assert "translated 1 image in" in said.out
    assert names(out) == {"a.webp", "deep"}

    (out / "deep").unlink()
    (out / "blocked.webp").rmdir()
    assert run(source, "--format", "webp") == 1
    said = capsys.readouterr()
    assert "kept 1 translation from before" in said.out
    assert "1 file could not be written" in said.err
    assert names(out) == {"a.webp", "blocked.webp", "deep/b.webp", "deep/c.webp"}
    assert run(source) == 0, "under its own name it can be written"


def test_a_folder_that_takes_no_file_is_refused_before_any_work(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def translate(pixels: Pixels) -> Pixels:
        raise AssertionError("it is of no use")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    options = ImageOptions((str(photos),), tmp_path / "out")
    with pytest.raises(UserError, match=r"could not write .*out: Read-only file system; give another folder by --out"):
        translate_images(FunctionTranslator(translate), plan(options), options, None)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_more_ends_the_translation(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(pixels: Pixels, path: Path, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writing, "write_image", refuse)
    options = ImageOptions((str(photos),), tmp_path / "out")
    with pytest.raises(UserError, match=r"could not write .*; the same command continues"):
        translate_images(FunctionTranslator(lambda pixels: 255 - pixels), plan(options), options, None)


class Overlapping:
    """Makes negatives, of a batch when the result is asked for."""

    source = target = RGB

    def __call__(self, pixels: Pixels) -> Pixels:
        return self.begin(pixels)()

    def begin(self, pixels: Pixels) -> Callable[[], Pixels]:
        return lambda: 255 - pixels


@pytest.mark.parametrize("translator", [Overlapping(), FunctionTranslator(lambda pixels: 255 - pixels)])
def test_what_is_translated_is_written_though_the_next_image_ends_the_command(
    tmp_path: Path, translator: Translator
) -> None:
    for index in range(3):
        draw(tmp_path / "in" / f"{index}.png", 16, 16, seed=index)
    (tmp_path / "in" / "3.png").write_bytes(b"no picture")
    options = ImageOptions((str(tmp_path / "in"),), tmp_path / "out", batch_size=1, strict=True)
    with pytest.raises(UserError, match=r"3\.png: not an image"):
        translate_images(translator, plan(options), options, None)
    assert names(tmp_path / "out") == {"0.png", "1.png", "2.png"}
    for name in names(tmp_path / "out"):
        assert np.array_equal(pixels_of(tmp_path / "out" / name), 255 - pixels_of(tmp_path / "in" / name))


def test_a_square_that_no_memory_holds_is_refused_before_anything_is_decoded(
    tmp_path: Path, photos: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "available_bytes", lambda: 2**30)
    for size in (16384, 65536):
        assert run(photos, "--size", size, size=False) == 2
        assert f"error: an image of {size}x{size} and its translation take" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("everywhere", [False, True])
def test_weights_that_claim_more_than_any_memory_holds(
    tmp_path: Path,
    photos: Path,
    run: Run,
    network: ResnetGenerator,
    capsys: pytest.CaptureFixture[str],
    everywhere: bool,
) -> None:
    width, old, weights = 2**20, network.stem.out_channels, dict(network.state_dict())
    for key, value in weights.items():
        if everywhere or key == "stem.weight":
            claimed = [size // old * width if size % old == 0 else size for size in value.shape]
            weights[key] = torch.zeros(1).expand(claimed)
    torch.save(weights, tmp_path / "claims.pth")
    assert run(photos, checkpoint=tmp_path / "claims.pth") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("error: the memory does not suffice" if everywhere else "does not fit this network") in said


def test_a_glob_below_a_folder_with_brackets_in_its_name(tmp_path: Path, run: Run) -> None:
    draw(tmp_path / "photos [v2]" / "one.png")
    assert run(tmp_path / "photos [v2]" / "*.png") == 0
    assert names(tmp_path / "out") == {"one.png"}


def test_a_glob_finds_what_a_search_finds(tmp_path: Path, photos: Path, run: Run) -> None:
    (photos / "deep" / "round").symlink_to(photos)
    draw(photos / "__MACOSX" / "one.png")
    assert run(photos / "**" / "*") == 0
    assert names(tmp_path / "out") == {"one.png", "deep/er/two.jpg", "deep/three.png"}


def test_what_is_left_out_is_noted_or_refused(
    tmp_path: Path, photos: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (photos / "phone.heic").write_bytes(b"0000ftypheic")
    assert run(photos) == 0
    printed = capsys.readouterr().out
    assert "left out 1 link below" in printed
    assert "1 .heic" in printed
    assert run(photos, "--strict", "--overwrite") == 2
    assert "leads nowhere: gone.png" in capsys.readouterr().err
    assert run(photos / "*.heic") == 2
    assert "no image matches" in capsys.readouterr().err


def test_of_several_pages_the_first_is_translated_and_said(
    tmp_path: Path, run: Run, network: ResnetGenerator, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [Image.open(draw(tmp_path / "pages" / f"{index}.png", seed=index)) for index in range(5)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / "stack.tif", save_all=True, append_images=pages[1:])
    assert run(tmp_path / "in") == 0
    assert "stack.tif: the first of 5 pages is read" in capsys.readouterr().err
    assert np.array_equal(
        pixels_of(tmp_path / "out" / "stack.png"), directly(network, tmp_path / "pages" / "0.png", 32)
    )
    assert run(tmp_path / "in", "--strict", "--overwrite") == 2
    assert "the first of 5 pages is read (leave --strict out" in capsys.readouterr().err


def test_a_plan_asks_for_each_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = draw(tmp_path / "one.png", 8, 8)
    for index in range(200):
        path = tmp_path / "in" / str(index % 4) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(image)
    asked: list[str] = []
    realpath = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **rest: (asked.append(str(path)), realpath(path, **rest))[1])
    assert len(plan(ImageOptions((str(tmp_path / "in"),), tmp_path / "out"))) == 200
    assert len(asked) < 20


# --- pairs side by side --------------------------------------------------------------------------------------------


@pytest.fixture
def side_by_side(tmp_path: Path) -> Path:
    """Writes a data set of pairs in one file each, beside photographs of two shapes."""
    for split in ("train", "test"):
        draw(tmp_path / "pairs" / split / "0.png", 60, 40)
    draw(tmp_path / "elsewhere" / "wide.png", 80, 40)
    draw(tmp_path / "elsewhere" / "square.png", 40, 40)
    return tmp_path / "pairs"


def halves_of(
    folder: Path, direction: Direction, config: dict[str, Any], notes: list[str], **options: Any
) -> dict[str, str | None]:
    chosen = ImageOptions((str(folder),), folder.parent / "out", **options)
    return {job.source.name: job.half for job in halved(plan(chosen), chosen, config, direction, notes)}


def test_pairs_side_by_side_are_known_from_the_runs_data(side_by_side: Path) -> None:
    config = {"data": {"data": str(side_by_side)}, "loss": {"method": "pix2pix"}}
    notes: list[str] = []
    assert halves_of(side_by_side / "test", "a2b", config, notes) == {"0.png": "left"}
    assert halves_of(side_by_side / "test", "b2a", config, notes) == {"0.png": "right"}
    elsewhere = side_by_side.parent / "elsewhere"
    assert halves_of(elsewhere, "a2b", config, notes) == {"wide.png": "left", "square.png": None}
    assert "of 1 of 2 images the left half is translated" in notes[-1]
    assert halves_of(elsewhere, "a2b", config, [], half="whole") == {"wide.png": None, "square.png": None}
    assert halves_of(elsewhere, "a2b", {}, [], half="right") == {"wide.png": "right", "square.png": "right"}
    assert halves_of(elsewhere, "a2b", {}, []) == {"wide.png": None, "square.png": None}


def test_other_layouts_have_no_halves(side_by_side: Path) -> None:
    draw(side_by_side / "trainA" / "0.png")
    config = {"data": {"data": str(side_by_side)}, "loss": {"method": "pix2pix"}}
    assert halves_of(side_by_side.parent / "elsewhere", "a2b", config, []) == {"wide.png": None, "square.png": None}


def test_pairs_are_asked_about_where_the_data_are_gone(side_by_side: Path) -> None:
    config = {"data": {"data": str(side_by_side / "gone")}, "loss": {"method": "pix2pix"}}
    with pytest.raises(UserError, match=r"wide\.png.*give --half"):
        halves_of(side_by_side.parent / "elsewhere", "a2b", config, [])
    unpaired = {**config, "loss": {"method": "cyclegan"}}
    assert halves_of(side_by_side.parent / "elsewhere", "a2b", unpaired, [])["wide.png"] is None


def test_a_half_is_translated_as_the_image_alone_is(tmp_path: Path, run: Run, network: ResnetGenerator) -> None:
    pair = Image.open(draw(tmp_path / "in" / "pair.png", 80, 40))
    for name, box in (("left", (0, 0, 40, 40)), ("right", (40, 0, 80, 40))):
        path = tmp_path / "halves" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        pair.crop(box).save(path)
        assert run(tmp_path / "in", "--half", name, "--overwrite", sheet=True) == 0
        assert np.array_equal(pixels_of(tmp_path / "out" / "pair.png"), directly(network, path, 32))


# --- more about files ----------------------------------------------------------------------------------------------


def test_an_output_folder_inside_the_input_is_not_translated_again(tmp_path: Path, photos: Path, weights: Path) -> None:
    command = [str(photos), "--out", str(photos / "out"), "--checkpoint", str(weights), "--size", "32"]
    for _ in range(2):
        assert main(command) == 0
        written = {"one.png", "deep/er/two.jpg", "deep/three.png", "contact_sheet.jpg"}
        assert names(photos / "out") == written


@pytest.mark.parametrize("extra", [[], ["--overwrite"]])
def test_inputs_are_never_written_over(
    photos: Path, weights: Path, capsys: pytest.CaptureFixture[str], extra: list[str]
) -> None:
    before = (photos / "one.png").read_bytes()
    fixed = ["--checkpoint", str(weights), "--size", "32", *extra]
    assert main([str(photos / "one.png"), "--out", str(photos), *fixed]) == 2
    assert "is an input and would be written over" in capsys.readouterr().err
    assert main([str(photos), "--out", str(photos), *fixed]) == 2
    assert "lies in the output folder" in capsys.readouterr().err
    sheet = ["--contact-sheet", str(photos / "one.png")]
    assert main([str(photos), "--out", str(photos.parent / "out"), *fixed, *sheet]) == 2
    assert "is an input and would be written over" in capsys.readouterr().err
    assert (photos / "one.png").read_bytes() == before


def test_existing_translations_are_kept_and_counted(
    tmp_path: Path, photos: Path, run: Run, network: ResnetGenerator, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "out" / "one.png"
    kept.parent.mkdir()
    kept.write_bytes(b"from before")
    assert run(photos, sheet=True) == 0
    assert kept.read_bytes() == b"from before"
    captured = capsys.readouterr()
    assert "translated 2 images" in (line := captured.out.splitlines()[-1])
    assert "kept 1 translation from before (--overwrite" in line
    assert f"note: not on the contact sheet: {kept}: not an image" in captured.err
    assert run(photos, "--overwrite") == 0
    assert np.array_equal(pixels_of(kept), directly(network, photos / "one.png", 32))
    assert "translated 3 images" in capsys.readouterr().out


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "dropout"), [(6, False), (9, False), (9, True)])
def test_generators_of_the_original_implementation(
    tmp_path: Path, photos: Path, run: Run, blocks: int, dropout: bool
) -> None:
    network = make_generator(blocks, blocks)
    state = to_original(network.state_dict(), dropout=dropout)
    torch.save(state, path := tmp_path / "latest_net_G.pth")
    assert run(photos / "one.png", checkpoint=path) == 0
    assert np.array_equal(pixels_of(tmp_path / "out" / "one.png"), directly(network, photos / "one.png", 32))
    safetensors.torch.save_file(state, path := tmp_path / "generator.safetensors")
    assert run(photos / "one.png", "--overwrite", checkpoint=path) == 0
    assert np.array_equal(pixels_of(tmp_path / "out" / "one.png"), directly(network, photos / "one.png", 32))


def save_run(path: Path, networks: dict[str, ResnetGenerator], crop_size: int = 40, **options: Any) -> Path:
    config = Config(data=DataConfig(load_size=64, crop_size=crop_size, **options), networks=NARROW)
    save(path, checkpoint_of(config, networks))
    return path


def test_a_run_gives_its_direction_and_its_average(tmp_path: Path, photos: Path, run: Run) -> None:
    networks = {name: make_generator(seed) for seed, name in enumerate(("G_A", "G_B", "G_A_ema", "G_B_ema"))}
    plain = save_run(tmp_path / "runs" / "plain", {"G_A": networks["G_A"]})
    folder = save_run(tmp_path / "runs" / "x", networks)
    for checkpoint, named in (
        (plain, {"a2b": "G_A"}),
        (folder, {"a2b": "G_A_ema", "b2a": "G_B_ema"}),
        (folder / "checkpoints" / "last.pt", {"b2a": "G_B_ema"}),
    ):
        for direction, name in named.items():
            flags = ["--direction", direction, "--overwrite"]
            assert run(photos / "one.png", *flags, checkpoint=checkpoint) == 0
            expected = directly(networks[name], photos / "one.png", 32)
            assert np.array_equal(pixels_of(tmp_path / "out" / "one.png"), expected)


def test_a_damaged_checkpoint_that_was_passed_over_is_named(
    tmp_path: Path, photos: Path, run: Run, network: ResnetGenerator, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_run(tmp_path / "runs" / "x", {"G_A": network})
    save_run(folder, {"G_A": network})
    last = folder / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    assert run(photos / "one.png", checkpoint=folder) == 0
    assert f"note: {last} is cut off or damaged" in (shown := capsys.readouterr().out)
    assert "going back to previous.pt" in shown
    assert np.array_equal(pixels_of(tmp_path / "out" / "one.png"), directly(network, photos / "one.png", 32))


def test_the_newest_run_is_the_default(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [str(photos / "one.png"), "--out", "out", "--size", "40"]
    assert main(command) == 2
    assert "no run with a checkpoint under runs: train one, or give --checkpoint" in capsys.readouterr().err
    networks = {name: make_generator(seed) for seed, name in enumerate(("old", "new", "middle"))}
    for age, name in ((300, "old"), (100, "new"), (200, "middle")):
        folder = save_run(Path("runs") / name, {"G_A": networks[name]})
        os.utime(folder / "checkpoints", (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "empty" / "checkpoints").mkdir(parents=True)
    assert newest_run(Path("runs")) == Path("runs/new")
    assert main(command) == 0
    assert np.array_equal(pixels_of(tmp_path / "out" / "one.png"), directly(networks["new"], photos / "one.png", 40))


def test_bad_checkpoints_are_explained(
    tmp_path: Path, photos: Path, weights: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def error_of(path: Path) -> str:
        assert run(photos, checkpoint=path) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert str(path) in error
        assert not (tmp_path / "out").exists()
        return error

    assert "no checkpoint at" in error_of(tmp_path / "nowhere.pth")
    (tmp_path / "empty").mkdir()
    assert "no checkpoint in" in error_of(tmp_path / "empty")

    (cut := tmp_path / "cut.pth").write_bytes(weights.read_bytes()[:-2000])
    assert "damaged" in error_of(cut)
    (nothing := tmp_path / "nothing.pth").write_bytes(b"")
    assert "damaged" in error_of(nothing)
    assert "damaged" in error_of(photos / "one.png")

    torch.save({"encoder.weight": torch.zeros(3)}, foreign := tmp_path / "foreign.pth")
    assert "no stem.weight of a convolution among its keys (encoder.weight)" in error_of(foreign)
    for content in ({"stem.weight": 3}, {"stem.weight": torch.zeros(3)}, {1: 2}, {"model": 3, "config": {}}):
        torch.save(content, strange := tmp_path / "strange.pth")
        assert "holds no generator" in error_of(strange)
    state = to_original(make_generator(0).state_dict())
    torch.save({key: value for key, value in state.items() if key != "model.4.bias"}, lacking := tmp_path / "lack.pth")
    assert "missing model.4.bias" in error_of(lacking)
    torch.save(state | {"model.4.bias": torch.zeros(5)}, odd := tmp_path / "odd.pth")
    assert "model.4.bias is (5,) instead of (8,)" in error_of(odd)
    torch.save(to_original(PatchDiscriminator(width=4).state_dict()), judge := tmp_path / "latest_net_D_A.pth")
    assert "holds no generator" in error_of(judge)

    model = {f"G_B.{key}": value for key, value in make_generator(0).state_dict().items()}
    torch.save({"config": {}, "model": model}, half := tmp_path / "half.pt")
    assert "holds no generator" in error_of(half)  # there is no G_A in it


def test_weights_that_diverged_are_not_written_as_black_images(
    tmp_path: Path, photos: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    state = to_original(make_generator(0).state_dict())
    state["model.23.bias"] = torch.full_like(state["model.23.bias"], float("nan"))
    torch.save(state, path := tmp_path / "diverged.pth")
    assert run(photos / "one.png", checkpoint=path) == 2
    assert f"{path} holds weights that are infinite or NaN (model.23.bias)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- bad images and flags ------------------------------------------------------------------------------------------


def test_unreadable_images_are_named_skipped_and_counted(
    tmp_path: Path, photos: Path, run: Run, network: ResnetGenerator, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / "cut.png").write_bytes((photos / "one.png").read_bytes()[:200])
    assert run(photos, "--batch-size", 1, sheet=True) == 0
    captured = capsys.readouterr()
    assert f"skipped {photos / 'broken.jpg'}: not an image" in captured.err
    assert f"skipped {photos / 'cut.png'}" in captured.err
    assert "translated 3 images" in captured.out.splitlines()[-1]
    assert "skipped 2 unreadable images (--strict" in captured.out.splitlines()[-1]
    assert names(tmp_path / "out") == {"one.png", "deep/er/two.jpg", "deep/three.png", "contact_sheet.jpg"}
    assert np.array_equal(pixels_of(tmp_path / "out" / "one.png"), directly(network, photos / "one.png", 32))

    assert run(photos, "--strict", "--overwrite") == 2
    error = capsys.readouterr().err
    assert str(photos / "broken.jpg") in error
    assert "--strict" in error


def test_images_beyond_pillows_limit_are_explained(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    source = draw(tmp_path / "image.png", 20, 16)
    flags = ["--checkpoint", str(weights), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([str(source), *flags]) == 2
    assert f"{source}: has more than the 200 pixels that are read at once" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "deep.tif"])
def test_tile_reads_images_beyond_pillows_limit(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    source = tmp_path / f"image.{kind}"
    if kind == "deep.tif":
        values = np.random.default_rng(0).integers(0, 4096, (16, 20, 3)).astype(np.uint16)
        tifffile.imwrite(source, values, photometric="rgb")  # in tiles it would be a scene, which is on no sheet
    else:
        Image.open(draw(tmp_path / "drawn.png", 20, 16)).save(source)
    flags = ["--checkpoint", str(weights), "--device", "cpu", "--range", "0", "4095"]
    assert main([str(source), *flags, "--keep-size", "--out", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    assert main([str(source), *flags, "--tile", "--scratch", str(tmp_path), "--out", str(tmp_path / "strips")]) == 0
    assert Image.MAX_IMAGE_PIXELS == 100
    assert (tmp_path / "strips" / "contact_sheet.jpg").is_file()
    assert "not on the contact sheet" not in capsys.readouterr().err
    monkeypatch.undo()
    whole, strips = (pixels_of(next((tmp_path / name).glob("image*"))) for name in ("whole", "strips"))
    assert np.abs(whole.astype(int) - strips).max() <= 1  # of one rounding where numbers are added in another order


def test_images_of_twelve_bits_are_translated_by_the_range_of_the_run(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.asarray(Image.open(draw(tmp_path / "drawn.png", 32, 32)).convert("L")).astype(np.uint16)
    Image.fromarray(values * 16).save(tmp_path / "scan.png")
    Image.fromarray(np.rint(values * 16 * (255 / 4095)).astype(np.uint8)).save(tmp_path / "bright.png")
    Image.fromarray(np.rint(values * 16 / 257).astype(np.uint8)).save(tmp_path / "dark.png")
    networks = {name: make_generator(seed) for seed, name in enumerate(("G_A", "G_B"))}
    folder = save_run(tmp_path / "runs" / "x", networks, range_a=(0.0, 4095.0), range_b=(0.0, 65535.0))
    scan, bright, dark = (tmp_path / f"{name}.png" for name in ("scan", "bright", "dark"))
    for checkpoint, flags, same, noted in (
        (folder, ["--direction", "a2b"], bright, False),
        (folder, ["--direction", "b2a"], dark, False),
        (folder, ["--direction", "b2a", "--range", 0, 4095], bright, False),
        (None, [], dark, True),
        (None, ["--range", 0, 4095], bright, False),
    ):
        arguments = [scan, same, "--overwrite", "--batch-size", 1, *flags]
        assert run(*arguments, checkpoint=checkpoint) == 0
        translated = [pixels_of(tmp_path / "out" / path.name) for path in (scan, same)]
        np.testing.assert_array_equal(*translated)
        said = capsys.readouterr().err
        assert noted == bool(re.search(rf"note: the images of more than 8 bits in {tmp_path} .*--range 0 4095", said))


def test_only_unreadable_images_are_an_error(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    assert run(tmp_path / "a.png", tmp_path / "b.png", sheet=True) == 2
    assert "none of 2 images can be read; the first: " in capsys.readouterr().err


def test_images_that_are_not_there(tmp_path: Path, photos: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ([photos, tmp_path / "empty"], f"no images in {tmp_path / 'empty'} or below"),
        ([photos, tmp_path / "nowhere"], f"no file or folder {tmp_path / 'nowhere'}"),
        ([photos, photos / "*.tiff"], f"no image matches {photos / '*.tiff'}"),
        ([photos, tmp_path / "n*" / "*.png"], "no image matches"),
        ([], "no images given"),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main([str(photos), "--out", str(tmp_path / "file")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--size 64 --keep-size", "--size and --keep-size contradict each other"),
        ("--size 30", "--size must be a multiple of 4 from 8 to 65536, got 30"),
        ("--size 4", "--size must be a multiple of 4 from 8 to 65536, got 4"),
        ("--batch-size 0", "--batch-size must be a whole number from 1 to 65536, got 0"),
        ("--contact-sheet x.png --no-contact-sheet", "contradict each other"),
        ("--contact-sheet x.txt", "--contact-sheet must end in"),
        ("--device toaster", "--device must be auto, cpu, cuda"),
    ],
)
def test_flags_that_make_no_sense(
    tmp_path: Path, photos: Path, weights: Path, capsys: pytest.CaptureFixture[str], flags: str, message: str
) -> None:
    fixed = ["--checkpoint", str(weights), "--out", str(tmp_path / "out")]
    assert main([str(photos), *fixed, *flags.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_explains_every_flag_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    flags = "checkpoint direction out size keep-size format batch-size device amp overwrite strict contact-sheet"
    for flag in flags.split():
        assert f"--{flag}" in text
    assert "python -m cyclegan_fast.translate photos --checkpoint runs/x --direction a2b --out translated\n" in text


# --- the device and the disk ---------------------------------------------------------------------------------------


def test_amp_stays_near_float32(tmp_path: Path, photos: Path, run: Run, network: ResnetGenerator) -> None:
    assert run(photos / "one.png", "--amp") == 0
    expected = directly(network, photos / "one.png", 32).astype(int)
    error = np.abs(pixels_of(tmp_path / "out" / "one.png") - expected)
    assert error.mean() < 3  # 8 bits of mantissa; 0 where this processor has no bfloat16


def test_bfloat16_is_computed_and_is_not_float32(photos: Path, network: ResnetGenerator) -> None:
    images = torch.from_numpy(to_signed_array(pixels_of(photos / "one.png")[None]))
    wide, narrow = (
        translate_signed(prepare_network(make_generator(0), torch.device("cpu"), dtype), images).numpy()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert narrow.dtype == np.float32
    assert 0 < np.abs(wide - narrow).mean() < 0.02
    assert np.array_equal(narrow, torch.from_numpy(narrow).bfloat16().float().numpy())


def test_images_too_large_for_the_memory(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: ResnetGenerator, image: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(ResnetGenerator, "forward", refuse)
    assert run(photos, "--batch-size", 3) == 2
    said = "error: 3 images of 32x32 do not fit the memory of cpu; lower --batch-size, add --tile, or give a smaller --"
    assert said in capsys.readouterr().err
    assert run(photos) == 2
    assert "two.jpg: 1 image of 32x32 does not fit the memory of cpu; add --tile, or give" in capsys.readouterr().err


FULL_DISK = """
import resource, sys
from pathlib import Path
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.translator import FunctionTranslator

resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
negative = FunctionTranslator(lambda pixels: 255 - pixels)
for format in ("png", "jpeg", "webp"):
    options = ImageOptions((sys.argv[1],), Path(sys.argv[2]), format=format)
    status = run_command(lambda: translate_images(negative, plan(options), options, 128))
    assert status == 2, status
assert "torch" not in sys.modules, "engines run where there is no PyTorch"
"""


def test_a_full_disk_gives_one_line_and_no_partial_file_without_torch(tmp_path: Path, photos: Path) -> None:
    """Limits the size of files in the place of a disk: the kernel refuses a write half-way, as it does there."""
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(photos), str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == 3, ended.stderr
    for line in lines:
        assert line.startswith(f"error: could not write {tmp_path / 'out'}")
        assert "File too large" in line
        assert "the same command continues" in line
    assert names(tmp_path / "out") == set()


NEGATIVE = """
import sys
from pathlib import Path
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.translation.batches import translate_images
from cyclegan_fast.translation.plan import ImageOptions, plan
from cyclegan_fast.translation.summary import report
from cyclegan_fast.translation.translator import FunctionTranslator

def translate():
    options = ImageOptions((sys.argv[1],), Path(sys.argv[2]))
    summary = translate_images(FunctionTranslator(lambda pixels: 255 - pixels), plan(options), options, None)
    print(f"{summary.translated} images of {sys.argv[1]}")
    report(summary, options.out)
    return 0

sys.exit(run_command(translate))
"""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_names_are_taken_and_printed_in_every_locale(tmp_path: Path, locale: str) -> None:
    folder = os.fsencode(tmp_path) + b"/\xe9\xa6\xac \xff"
    draw(Path(os.fsdecode(folder + b"/\xc2\xed2.png")), 16, 16)
    Path(os.fsdecode(folder + b"/\xff.png")).write_bytes(b"damaged")
    ended = subprocess.run(
        [sys.executable, "-c", NEGATIVE, folder, folder + b" out"],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert b"1 images of" in ended.stdout
    assert rb"\udcff.png: not an image" in ended.stderr
    written = {os.fsencode(name) for name in names(Path(os.fsdecode(folder + b" out")))}
    assert written == {b"\xc2\xed2.png", b"contact_sheet.jpg"}


def test_ctrl_c_says_how_to_continue(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(self: ResnetGenerator, image: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(ResnetGenerator, "forward", interrupt)
    assert run(photos) == 130
    assert "the same command continues" in capsys.readouterr().err


# --- the contact sheet ---------------------------------------------------------------------------------------------


def test_contact_sheet_shows_inputs_beside_translations(
    tmp_path: Path, photos: Path, run: Run, network: ResnetGenerator
) -> None:
    sheet_path = tmp_path / "sheets" / "sheet.png"
    assert run(photos / "one.png", "--contact-sheet", sheet_path, sheet=True) == 0
    sheet = pixels_of(sheet_path).astype(int)
    side, left = contact_sheet.THUMBNAIL_SIDE, contact_sheet.SHEET_GAP
    top = contact_sheet.LINE + contact_sheet.SHEET_GAP
    translation = Image.fromarray(directly(network, photos / "one.png", 32)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    shown = sheet[top : top + side, left + side : left + 2 * side]
    assert np.array_equal(shown, np.asarray(translation))
    source = read_image(photos / "one.png").resize((side, side), Image.Resampling.BICUBIC)
    shown = sheet[top : top + side, left : left + side]
    assert np.abs(shown - np.asarray(source).astype(int)).mean() < 3  # by way of 32x32
    caption = sheet[top + side : top + side + contact_sheet.LINE]
    assert caption.min() < 100, "the name stands below"
    assert names(tmp_path / "out") == {"one.png"}


def test_contact_sheet_of_many_images_is_capped_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(70):
        draw(tmp_path / "in" / f"{'long' * 20}_{index:02d}.png", 8, 8, seed=index)
    texts: list[str] = []
    original = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, position: tuple[int, int], text: str, *rest: Any) -> None:
        texts.append(text)
        original(self, position, text, *rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    options = ImageOptions((str(tmp_path / "in"),), tmp_path / "out")
    translate_images(FunctionTranslator(lambda pixels: 255 - pixels), plan(options), options, 8)
    assert texts[0] == "input | translation, 64 of 70 images"
    assert len(texts) == 65
    assert texts[1].startswith("...long")
    assert texts[1].endswith("_00.png")
    assert texts[-1].endswith("_68.png"), "spread over all, and not the first 64"
    assert len(set(texts[1:])) == 64
    sheet = pixels_of(tmp_path / "out" / "contact_sheet.jpg")
    assert sheet.shape == (30 + 8 + 16 * (192 + 22 + 8), 4 * (2 * 192 + 16), 3)


def test_contact_sheets_of_earlier_translations_are_no_inputs(tmp_path: Path, photos: Path, run: Run) -> None:
    draw(photos / "contact_sheet.jpg")
    assert run(photos, sheet=True) == 0
    assert names(tmp_path / "out") == {"one.png", "deep/er/two.jpg", "deep/three.png", "contact_sheet.jpg"}
    assert pixels_of(tmp_path / "out" / "contact_sheet.jpg").shape[1] == 3 * (
        2 * contact_sheet.THUMBNAIL_SIDE + 2 * contact_sheet.SHEET_GAP
    )


def test_a_contact_sheet_that_would_replace_a_translation_is_refused(
    tmp_path: Path, photos: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, "--contact-sheet", tmp_path / "out" / "one.png", sheet=True) == 2
    assert "is a translation already" in capsys.readouterr().err
