"""Images of any channels and bits: prepared in their own type, kept in memory or in a file, several of one file."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_fast.data.image_folder import ImageFolder
from cyclegan_fast.data.pairs import names_say_pairs, pair_key
from cyclegan_fast.data.pixel_cache import MappedImages
from cyclegan_fast.data.preparation import Preparation, resize_samples
from cyclegan_fast.images.pixel_type import RGB, PixelType
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.data.epochs import opened

SIDE = 32
AS_IT_IS = Preparation("crop", SIDE, SIDE)
RANDOM = np.random.default_rng(3)
KINDS = [
    PixelType(1, "uint8"),
    PixelType(4, "uint8"),
    PixelType(1, "uint16", 0, 65535),
    PixelType(6, "int16", -100, 5000),
    PixelType(2, "float32", -1, 1),
]


def samples_of(kind: PixelType, height: int = 40, width: int = 36) -> np.ndarray:
    """Return samples that fill the range of a type."""
    values = RANDOM.uniform(kind.low, kind.high, (height, width, kind.channels))
    return (values if kind.dtype == "float32" else np.rint(values)).astype(kind.as_numpy)


def write_pages(path: Path, pages: np.ndarray) -> Path:
    """Write a TIFF of one page for each of [pages, H, W, C]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            options = {"planarconfig": "contig"} if page.shape[-1] > 1 else {}
            stored = page if options else page.squeeze(-1)
            file.write(stored, photometric="minisblack", contiguous=False, **options)
    return path


def folder_of(folder: Path, kind: PixelType, count: int = 5) -> list[np.ndarray]:
    images = [samples_of(kind, 40 + index) for index in range(count)]
    for index, image in enumerate(images):
        write_pages(folder / f"{index}.tif", image[None])
    return images


def open_folder(folder: Path, kind: PixelType, cache_bytes: int = 2**30, **options: object) -> ImageFolder:
    settings = {"workers": 2, "strict": False, "cache_dir": folder.parent / "cache", "prepare": AS_IT_IS} | options
    return ImageFolder(folder, kind=kind, cache_bytes=cache_bytes, **settings)  # type: ignore[arg-type]


# --- preparation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_samples_are_resized_as_pillow_does_it_in_floating_point(kind: PixelType) -> None:
    samples = samples_of(kind)
    prepared = Preparation("resize_and_crop", SIDE, SIDE).of_samples(samples)
    assert (prepared.dtype, prepared.shape) == (kind.as_numpy, (SIDE, SIDE, kind.channels))
    for channel in range(kind.channels):
        image = Image.fromarray(samples[..., channel].astype(np.float32))
        expected = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        expected = expected.clip(samples[..., channel].min(), samples[..., channel].max())
        if kind.dtype != "float32":
            expected = np.rint(expected)
        np.testing.assert_array_equal(prepared[..., channel], expected)
    assert resize_samples(samples, 36, 40) is samples


def test_what_bicubic_resizing_adds_at_an_edge_does_not_wrap_around() -> None:
    edge = np.zeros((8, 8, 1), np.uint16)
    edge[:, 4:] = 65535
    larger = resize_samples(edge, 32, 32)
    assert (larger[:, 0].max(), larger[:, -1].min()) == (0, 65535)
    assert (np.diff(larger[0, :, 0].astype(int)) >= 0).all()


def test_what_bicubic_resizing_adds_at_an_edge_stays_within_the_image() -> None:
    counts = np.zeros((8, 8, 2), np.float32)
    counts[:, 4:, 0], counts[:, 4:, 1] = 7.5, -3
    larger = resize_samples(counts, 32, 32)
    assert [(larger[..., channel].min(), larger[..., channel].max()) for channel in (0, 1)] == [(0, 7.5), (-3, 0)]
    counts[0, 0] = np.nan
    larger = resize_samples(counts, 32, 32)
    assert (np.nanmin(larger[..., 0]), np.nanmax(larger[..., 0])) == (0, 7.5)
    assert np.isnan(larger[0, 0]).all()


def test_rgb_is_resized_as_ever() -> None:
    pixels = samples_of(RGB)
    expected = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize_samples(pixels, SIDE, SIDE), expected)


# --- kept in memory or in a file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [2**30, 0, 5000], ids=["memory", "file", "not all fit"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_samples_are_kept_as_they_are(tmp_path: Path, kind: PixelType, cache_bytes: int) -> None:
    images = folder_of(tmp_path / "trainA", kind)
    for _ in range(2):
        folder = open_folder(tmp_path / "trainA", kind, cache_bytes)
        assert isinstance(folder._kept, MappedImages) == (cache_bytes < 2**30)
        assert folder.sizes == [(36, 40 + index) for index in range(5)]
        for index, image in enumerate(images):
            assert folder[index].dtype == kind.as_numpy
            np.testing.assert_array_equal(folder[index], image)


def test_each_type_and_range_has_a_file_of_its_own(tmp_path: Path) -> None:
    kinds = [PixelType(1, "uint16", 0, 65535), PixelType(1, "uint16", 0, 100), PixelType(1, "float32", 0, 65535)]
    folder_of(tmp_path / "trainA", kinds[0])
    kept = {kind: open_folder(tmp_path / "trainA", kind, 0) for kind in kinds}
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 3
    assert [folder[0].dtype.name for folder in kept.values()] == ["uint16", "uint16", "float32"]
    assert [len(folder.values_notes) for folder in kept.values()] == [0, 1, 0], "values beyond 100 are said"


def test_where_no_disk_keeps_them_they_are_decoded_again(tmp_path: Path) -> None:
    kind = PixelType(2, "int16", -100, 100)
    pages = np.stack([samples_of(kind) for _ in range(3)])
    write_pages(tmp_path / "trainA" / "a.tif", pages)
    (tmp_path / "cache").write_text("in the way")
    folder = open_folder(tmp_path / "trainA", kind, 0, frames="slices")
    assert "decoded at each use" in (folder.note or "")
    for index in (2, 0, 1):
        np.testing.assert_array_equal(folder[index], pages[index])


# --- several images of one file -------------------------------------------------------------------------------------

GREY16 = PixelType(1, "uint16", 0, 65535)


@pytest.mark.parametrize("cache_bytes", [2**30, 0], ids=["memory", "file"])
def test_slices_are_images_of_their_own(tmp_path: Path, cache_bytes: int) -> None:
    volume, single = np.stack([samples_of(GREY16) for _ in range(4)]), samples_of(GREY16)
    write_pages(tmp_path / "trainA" / "more" / "v.tif", volume)
    write_pages(tmp_path / "trainA" / "s.tif", single[None])
    for limit, names in ((None, ["more/v.tif#0", "more/v.tif#1", "more/v.tif#2", "more/v.tif#3", "s.tif"]), (2, None)):
        folder = open_folder(tmp_path / "trainA", GREY16, cache_bytes, frames="slices", limit=limit)
        expected = (names or ["more/v.tif#0", "more/v.tif#1"])[:limit]
        assert folder.files == folder.candidates == expected
        for index, image in enumerate([*volume, single][:limit]):
            np.testing.assert_array_equal(folder[index], image)
        assert [name.split()[0] for name in folder.names] == expected
    first = open_folder(tmp_path / "trainA", GREY16)
    assert (len(first), first.pages) == (2, {"more/v.tif": 4}), "without the option the first page alone is read"


def test_pages_are_channels_where_they_are_said_to_be(tmp_path: Path) -> None:
    pages = np.stack([samples_of(GREY16) for _ in range(5)])
    write_pages(tmp_path / "trainA" / "a.tif", pages)
    folder = open_folder(tmp_path / "trainA", PixelType(5, "uint16", 0, 65535), frames="channels", strict=True)
    np.testing.assert_array_equal(folder[0], pages[..., 0].transpose(1, 2, 0))


def test_slices_of_one_number_are_partners(tmp_path: Path) -> None:
    volumes = {domain: np.stack([samples_of(GREY16, SIDE, SIDE) for _ in range(3)]) for domain in "AB"}
    for domain, pages in volumes.items():
        write_pages(tmp_path / f"train{domain}" / f"scan_{domain}.tif", pages)
    deep = {"channels_a": 1, "dtype_a": "uint16", "channels_b": 1, "dtype_b": "uint16", "frames": "slices"}
    training = opened(tmp_path, paired=True, load_size=SIDE, **deep).training
    for index in range(3):
        np.testing.assert_array_equal(training.images_A[index], volumes["A"][index])
        np.testing.assert_array_equal(training.images_B[index], volumes["B"][index])
    write_pages(tmp_path / "trainB" / "scan_B.tif", volumes["B"][:2])
    with pytest.raises(UserError, match=r"without a partner: .*scan_A\.tif#2"):
        opened(tmp_path, paired=True, load_size=SIDE, **deep)


def test_names_of_slices_have_partners() -> None:
    assert pair_key("a/scan_A.nii#3") == "a/scan#3"
    assert pair_key("a/scan_B.nii.gz#3") == "a/scan#3"
    assert pair_key("a#3.png") == "a#3"
    assert names_say_pairs(["x_A.nii.gz"], ["x_B.tif"])
    assert names_say_pairs(["x_A.tif#0", "x_A.tif#1"], ["x_B.tif#0", "x_B.tif#1"])
    assert not names_say_pairs(["x_A.tif#0", "x_A.tif#1"], ["x_B.tif#0", "x_B.tif#2"])


# --- both domains ---------------------------------------------------------------------------------------------------


def test_partners_may_be_of_different_types(tmp_path: Path) -> None:
    grey, colours = samples_of(GREY16, SIDE, SIDE), samples_of(RGB, SIDE, SIDE)
    write_pages(tmp_path / "trainA" / "1.tif", grey[None])
    (tmp_path / "trainB").mkdir()
    Image.fromarray(colours).save(tmp_path / "trainB" / "1.png")
    training = opened(tmp_path, paired=True, preprocess="crop", channels_a=1, dtype_a="uint16").training
    cut_A, cut_B = training.pair(1, 0)
    assert cut_A.mirrored == cut_B.mirrored
    np.testing.assert_array_equal(cut_A.pixels, grey)
    np.testing.assert_array_equal(cut_B.pixels, colours)


def test_test_images_have_the_type_of_their_domain(tmp_path: Path) -> None:
    for name in ("trainA", "testA", "trainB", "testB"):
        write_pages(tmp_path / name / "1.tif", samples_of(GREY16)[None])
    data = opened(tmp_path, channels_a=1, dtype_a="uint16", channels_b=3, dtype_b="float32", range_b=(0.0, 65535.0))
    assert data.tests.A is not None
    assert data.tests.B is not None
    assert (data.tests.A.images[0].dtype.name, data.tests.A.images[0].shape) == ("uint16", (SIDE, SIDE, 1))
    assert (data.tests.B.images[0].dtype.name, data.tests.B.images[0].shape) == ("float32", (SIDE, SIDE, 3))


def test_images_with_other_bands_or_opacity_are_left_out_with_the_flag_to_give(tmp_path: Path) -> None:
    four = samples_of(PixelType(4, "uint8"), SIDE, SIDE)
    for name in ("trainA", "trainB"):
        write_pages(tmp_path / name / "1.tif", four[None])  # without opacity: four bands
        Image.fromarray(four, "RGBA").save(tmp_path / name / "2.png")
        Image.fromarray(four[..., :3]).save(tmp_path / name / "3.png")
    data = opened(tmp_path, preprocess="crop", channels_a=4)
    said = "\n".join(data.warnings)
    for name, reason in {
        "trainA/2.png": "it has 3 channels and opacity, and the other images 4: convert it, or give --channels-a 3",
        "trainA/3.png": "it has 3 channels, and the other images 4: convert it, or give --channels-a 3",
        "trainB/1.tif": "it has 4 channels that are no colours: save those that are meant as grey or RGB",
    }.items():
        assert f"skipped {tmp_path / name}: {reason}\n" in said
    assert "skipped 3 unreadable images" in said
