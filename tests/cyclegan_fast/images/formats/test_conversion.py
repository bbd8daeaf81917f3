"""Channels and types become those of the domain by the stated rules, or the file is refused with what would help."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.pixel_type import RGB, DomainName, PixelType, SampleDtype
from cyclegan_fast.images.samples import Samples, describe_file, ending_for, read_samples, write_samples
from cyclegan_fast.images.unreadable import UnreadableImage
from tests.cyclegan_fast.images.formats.made import HEIGHT, WIDTH, noise
from tests.cyclegan_fast.images.test_decoding import write_png

GREY = PixelType(1)
DEEP = PixelType(1, "uint16", 0, 65535)
FLOAT = PixelType(1, "float32", 0, 1)


def read(path: Path, kind: PixelType, flags_of: DomainName | None = None) -> np.ndarray:
    samples = read_samples(path, kind, flags_of=flags_of)
    assert samples.values.dtype == kind.as_numpy
    return samples.values[0]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg", ".webp"])
def test_pictures_of_8_bits_are_what_they_were(tmp_path: Path, mode: str, ending: str) -> None:
    if (mode == "CMYK" and ending != ".jpg") or (mode in ("RGBA", "LA", "P", "1") and ending == ".jpg"):
        pytest.skip("there are no such files")
    image = Image.fromarray(noise("uint8", HEIGHT, WIDTH, 4), "RGBA").convert(mode)
    path = tmp_path / f"a{ending}"
    image.save(path)
    rgb = read_image(path)
    assert np.array_equal(read(path, RGB), np.asarray(rgb))
    assert np.array_equal(read(path, GREY)[..., 0], np.asarray(rgb.convert("L")))
    kind = describe_file(path)
    assert (kind.dtype, kind.height, kind.width, kind.frames) == ("uint8", HEIGHT, WIDTH, 1)
    if ending != ".webp":
        channels = {"L": 1, "RGBA": 4, "LA": 2, "P": 4 if ending == ".png" else 3, "1": 1}.get(mode, 3)
        assert (kind.channels, kind.is_colour, kind.has_opacity) == (channels, channels >= 3, channels in (2, 4))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_samples_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    values = noise("uint16", HEIGHT, WIDTH)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(274, 3, 1, orientation, True)])
    turned = [values, values[:, ::-1], values[::-1, ::-1], values[::-1], values.T, np.rot90(values, -1)]
    expected = [*turned, values[::-1, ::-1].T, np.rot90(values)][orientation - 1]
    for ending in (".png", ".tif"):
        assert np.array_equal(read(tmp_path / f"a{ending}", DEEP)[..., 0], expected)
        kind = describe_file(tmp_path / f"a{ending}")
        assert (kind.height, kind.width) == expected.shape


def test_opacity_is_laid_over_white_and_is_no_channel(tmp_path: Path) -> None:
    values = noise("uint16", HEIGHT, WIDTH, 4)
    write_png(tmp_path / "a.png", values, 16)
    assert describe_file(tmp_path / "a.png").has_opacity
    with pytest.raises(UnreadableImage, match="it has 3 channels and opacity, and the run takes 4 channels of uint16"):
        read(tmp_path / "a.png", PixelType(4, "uint16", 0, 65535))
    share = values[..., 3:] / 65535
    laid = values[..., :3] * share + 65535 * (1 - share)
    three = PixelType(3, "uint16", 0, 65535)
    assert np.abs(read(tmp_path / "a.png", three) - laid).max() <= 0.5 + 1e-9
    grey = np.rint(laid) @ [0.299, 0.587, 0.114]
    assert np.abs(read(tmp_path / "a.png", DEEP)[..., 0] - grey).max() < 1.5


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opacity_of_whole_numbers_is_a_share_of_their_white(tmp_path: Path, mode: str, dtype: str) -> None:
    values = noise(dtype, HEIGHT, WIDTH, len(mode))
    if dtype == "uint8":
        Image.fromarray(values, mode).save(tmp_path / "a.png")
    else:
        write_png(tmp_path / "a.png", values, 16)
    white = np.iinfo(dtype).max
    share = values[..., -1:] / white
    laid = values[..., :-1] * share + white * (1 - share)
    for high in (1, 255, 65535):  # the range of the run has no say
        found = read(tmp_path / "a.png", PixelType(3, "float32", 0, high))
        assert np.abs(found - laid).max() <= white * 2**-22


@pytest.mark.parametrize("flags_of", [None, "A"])
@pytest.mark.parametrize(("mode", "bands"), [("RGBA", 4), ("LA", 2)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_opacity_is_no_band(
    tmp_path: Path, dtype: SampleDtype, mode: str, bands: int, flags_of: DomainName | None
) -> None:
    Image.fromarray(noise("uint8", HEIGHT, WIDTH, bands), mode).save(tmp_path / "a.png")
    colours = "3 channels" if bands == 4 else "1 channel"
    advice = f"the other images {bands}: convert it, or give --channels-a {bands - 1}"
    said = advice if flags_of else f"the run takes {bands} channels of {dtype}: convert it"
    with pytest.raises(UnreadableImage, match=f"it has {colours} and opacity, and {said}$"):
        read(tmp_path / "a.png", PixelType(bands, dtype, 0, 255), flags_of)


def test_floating_point_colours_have_no_white(tmp_path: Path) -> None:
    values = noise("float32", HEIGHT, WIDTH, 4, low=0, high=1)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(UnreadableImage, match="it has opacity, and of floating-point values none is known to be white"):
        read(tmp_path / "a.tif", PixelType(3, "float32", 0, 1))


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_booleans_are_0_and_255(tmp_path: Path, ending: str) -> None:
    values = noise("uint8", HEIGHT, WIDTH) > 128
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values)
    assert np.array_equal(read(tmp_path / f"a{ending}", GREY)[..., 0], values * np.uint8(255))
    assert np.array_equal(read(tmp_path / f"a{ending}", RGB), np.repeat(values[..., None] * np.uint8(255), 3, 2))
    assert np.array_equal(np.asarray(read_image(tmp_path / f"a{ending}"))[..., 0], values * np.uint8(255))


def test_channels_and_slices_of_an_array_are_told_apart(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise("uint16", 24, HEIGHT, WIDTH))
    said = r"a\.npy: its shape is \[24, 13, 21\], which does not .* as \[slices, H, W, channels\], with a last axis of"
    with pytest.raises(UnreadableImage, match=said):
        describe_file(tmp_path / "a.npy", "slices")
    with pytest.raises(UnreadableImage, match=said):
        read_samples(tmp_path / "a.npy", DEEP, frames="slices")
    np.save(tmp_path / "b.npy", noise("uint16", 24, HEIGHT, WIDTH, 1))
    assert describe_file(tmp_path / "b.npy", "slices").images == 24


def test_grey_becomes_colours_and_colours_grey(tmp_path: Path) -> None:
    grey, colours = noise("uint16", HEIGHT, WIDTH, 1), noise("uint16", HEIGHT, WIDTH, 3)
    write_png(tmp_path / "grey.png", grey, 16)
    write_png(tmp_path / "colours.png", colours, 16)
    three = PixelType(3, "uint16", 0, 65535)
    assert np.array_equal(read(tmp_path / "grey.png", three), np.repeat(grey, 3, 2))
    expected = colours @ [0.299, 0.587, 0.114]
    assert np.abs(read(tmp_path / "colours.png", DEEP)[..., 0] - expected).max() < 1.5
    exact = read(tmp_path / "colours.png", FLOAT)[..., 0]
    assert np.abs(exact - expected).max() < 1.5


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float64", "int32", "bool"])
def test_floating_point_domains_hold_the_values_of_all_types(tmp_path: Path, dtype: str) -> None:
    values = noise("uint8", HEIGHT, WIDTH, high=100).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    expected = values.astype(float) * (255 if dtype == "bool" else 1)
    assert np.array_equal(read(tmp_path / "a.npy", FLOAT)[..., 0], expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u2", "i2", "f4", "u4"])
def test_both_orders_of_bytes_are_read(tmp_path: Path, dtype: str, order: str) -> None:
    values = noise("uint8", HEIGHT, WIDTH).astype(f"{order}{dtype}")
    np.save(tmp_path / "a.npy", values)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order)
    wanted = {"u2": DEEP, "i2": PixelType(1, "int16", 0, 1), "f4": FLOAT, "u4": DEEP}[dtype]
    for ending in (".npy", ".tif"):
        assert describe_file(tmp_path / f"a{ending}").dtype == wanted.dtype
        assert np.array_equal(read(tmp_path / f"a{ending}", wanted)[..., 0], values)


def test_integers_of_32_bits_are_read_where_their_values_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "fit.npy", np.full((4, 5), 65535, np.int64))
    np.save(tmp_path / "not.npy", np.full((4, 5), 65536, np.int64))
    np.save(tmp_path / "wide.npy", np.full((4, 5), 2**24 + 1, np.uint32))
    assert read(tmp_path / "fit.npy", DEEP).max() == 65535
    assert read(tmp_path / "not.npy", FLOAT).max() == 65536
    with pytest.raises(UnreadableImage, match="int64 from 65536 to 65536, do not fit uint16: give --dtype-b float32"):
        read(tmp_path / "not.npy", DEEP, "B")
    with pytest.raises(UnreadableImage, match="do not fit float32: divide them"):
        read(tmp_path / "wide.npy", FLOAT)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            np.zeros((4, 5, 6), np.uint8),
            RGB,
            "it has 6 channels, and the other images 3: convert it, or give --channels-b 6",
        ),
        (np.zeros((4, 5, 3), np.uint16), PixelType(4, "uint16", 0, 1), "it has 3 channels, and the other images 4"),
        (np.zeros((4, 5, 3), np.uint16), DEEP, "it has 3 channels, and the other images 1"),  # no colours
        (np.zeros((4, 5), np.uint8), DEEP, "its samples are uint8, and those of the other images uint16"),
        (
            np.zeros((4, 5), np.float32),
            DEEP,
            "its samples are float32, and those of .* uint16: .*give --dtype-b float32",
        ),
        (np.zeros((4, 5), np.float32), GREY, "no known range: give it by --range"),
        (np.zeros((4, 5), np.complex64), FLOAT, "of the type complex64, which is not read: save them as"),
        (np.full((4, 5), 1e300), FLOAT, "20 of its values are beyond what float32 holds, up to 1e\\+300"),
        (np.full((4, 5), np.inf), FLOAT, "20 of its 20 values are infinite: write NaN where"),
        (np.full((4, 5), np.nan), FLOAT, "all its values are NaN"),
        (np.zeros((4,)), FLOAT, "it has 1 dimensions: an image is"),
        (np.zeros((3, 40, 40)), FLOAT, r"its shape is \[3, 40, 40\], .* move its channels to the end"),
        (np.zeros((4, 5, 300)), FLOAT, "move its channels to the end"),
        (np.zeros((0, 5)), FLOAT, "it has no pixels"),
        (np.array([[None]]), FLOAT, "it holds objects or records"),
    ],
)
def test_what_a_domain_does_not_have_is_refused(
    tmp_path: Path, values: np.ndarray, kind: PixelType, message: str
) -> None:
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(UnreadableImage, match=f"a.npy: .*{message}") as refusal:
        read(tmp_path / "a.npy", kind, "B")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 5), np.uint8), "its samples are uint8, and"),
        (np.zeros((4, 5), np.float64), "its samples are float64, and"),
        (np.full((4, 5), 65536), "its values, int64 from 65536 to 65536, do not fit uint16, and"),
        (np.zeros((4, 5, 2), np.uint16), "it has 2 channels, and"),
    ],
)
def test_a_run_has_no_flags_to_advise(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UnreadableImage, match=f"{message} the run takes 1 channel of uint16: convert it$"):
        read(tmp_path / "a.npy", DEEP)


def test_nan_is_counted_and_left_in_place(tmp_path: Path) -> None:
    values = noise("float32", HEIGHT, WIDTH)
    values[2:4, 3:6] = np.nan
    np.save(tmp_path / "a.npy", values)
    samples = read_samples(tmp_path / "a.npy", FLOAT)
    assert samples.masked == 6
    assert np.array_equal(samples.values[0, ..., 0], values, equal_nan=True)
    assert read_samples_of(tmp_path, np.zeros((4, 5), np.float32)).masked is None


def read_samples_of(folder: Path, values: np.ndarray) -> Samples:
    np.save(folder / "b.npy", values)
    return read_samples(folder / "b.npy", FLOAT)


def test_deeper_arrays_become_8_bits_by_a_range(tmp_path: Path) -> None:
    values = noise("uint16", HEIGHT, WIDTH, high=4095)
    np.save(tmp_path / "a.npy", values)
    samples = read_samples(tmp_path / "a.npy", GREY, deep_range=(0, 4095))
    assert np.array_equal(samples.values[0, ..., 0], np.rint(values / 4095 * 255))
    assert samples.extent is not None
    assert samples.extent.filled == (0, 4095)
    levels = np.rint(values / 65535 * 255)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.npy")), np.repeat(levels[..., None], 3, 2))


def test_a_cut_array_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    content = (tmp_path / "a.npy").read_bytes()
    for length in (0, 5, 60, len(content) - 1):
        (tmp_path / "a.npy").write_bytes(content[:length])
        with pytest.raises(UnreadableImage, match=r"a\.npy: "):
            describe_file(tmp_path / "a.npy")
        with pytest.raises(UnreadableImage, match=r"a\.npy: "):
            read(tmp_path / "a.npy", FLOAT)


def test_of_several_arrays_the_one_called_image_is_read(tmp_path: Path) -> None:
    values = noise("uint16", HEIGHT, WIDTH)
    np.savez(tmp_path / "a.npz", mask=np.zeros((2, 2)), image=values)
    np.savez(tmp_path / "b.npz", mask=np.zeros((2, 2)), other=values)
    assert np.array_equal(read(tmp_path / "a.npz", DEEP)[..., 0], values)
    with pytest.raises(UnreadableImage, match=r"it holds 2 arrays \(mask, other\), and none called image"):
        describe_file(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("kind", "like", "ending"),
    [
        (RGB, ".jpg", ".jpg"),
        (RGB, ".TIF", ".png"),
        (GREY, ".jpg", ".png"),
        (DEEP, ".png", ".png"),
        (DEEP, ".tif", ".tif"),
        (DEEP, ".dcm", ".tif"),
        (DEEP, ".npy", ".npy"),
        (DEEP, ".nii.gz", ".nii.gz"),
        (PixelType(3, "uint16", 0, 1), ".nii.gz", ".tif"),
        (PixelType(3, "uint16", 0, 1), ".png", ".tif"),
        (FLOAT, ".png", ".tif"),
        (PixelType(2), ".png", ".tif"),
    ],
    ids=str,
)
def test_an_ending_is_one_that_holds_the_samples(tmp_path: Path, kind: PixelType, like: str, ending: str) -> None:
    assert ending_for(kind, like) == ending
    if ending == ".nii.gz":
        pytest.importorskip("nibabel", reason="nibabel is not installed")
    values = np.zeros((1, HEIGHT, WIDTH, kind.channels), kind.as_numpy)
    write_samples(Samples(values), tmp_path / f"a{ending}", kind)
    assert np.array_equal(read_samples(tmp_path / f"a{ending}", kind).values, values)


def test_what_a_format_cannot_hold_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png cannot hold 1 images of 1 channel, float32"):
        write_samples(Samples(np.zeros((1, 4, 5, 1), np.float32)), tmp_path / "a.png", FLOAT)
    with pytest.raises(ValueError, match=r"are not 1 channel, float32"):
        write_samples(Samples(np.zeros((1, 4, 5, 1), np.uint8)), tmp_path / "a.tif", FLOAT)
    assert list(tmp_path.iterdir()) == []
