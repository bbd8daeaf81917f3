"""TIFF in every interpretation: levels are compared with their definition, or the file is refused with a reason."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tifffile import COMPRESSION

from cyclegan_fast.images.files import read_image, read_indices
from cyclegan_fast.images.pixel_type import RGB, PixelType
from cyclegan_fast.images.samples import read_samples
from cyclegan_fast.images.tiff import read_tiff
from cyclegan_fast.images.unreadable import UnreadableImage
from tests.cyclegan_fast.images.levels import read

HEIGHT, WIDTH = 37, 53  # no multiples of a tile's 16, of a byte's 8 bits, or of the rows of a strip
SHAPES: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 32)},
    "zip": {"compression": "zlib", "rowsperstrip": 7},
    "predictor": {"compression": "zlib", "predictor": 2, "rowsperstrip": 7},
    "zip tiles": {"compression": "zlib", "predictor": 2, "tile": (16, 16)},
    "big endian": {"byteorder": ">"},
    "big": {"bigtiff": True},
}


def noise(dtype: str, channels: int = 1, *, seed: int = 0) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, (HEIGHT, WIDTH, channels)).astype(dtype)


def expected(values: np.ndarray) -> np.ndarray:
    """Return the levels as defined: the type's least value becomes 0, the greatest 255, others are rounded."""
    limits = np.iinfo(values.dtype)
    levels = np.rint(255 * (values.astype(np.float64) - limits.min) / (limits.max - limits.min))
    return np.broadcast_to(levels, (*values.shape[:2], 3)) if values.shape[2] == 1 else levels


def over_white(levels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha / np.iinfo(alpha.dtype).max
    return levels * share + 255 * (1 - share)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rgb_is_read_as_it_is_defined(tmp_path: Path, shape: str, dtype: str, planes: str) -> None:
    values = noise(dtype, 3)
    stored = values if planes == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planes, **SHAPES[shape])
    assert np.abs(read(tmp_path / "a.tif") - expected(values)).max() == 0


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_grey_is_read_as_it_is_defined(tmp_path: Path, shape: str, dtype: str, photometric: str) -> None:
    values = noise(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values[..., 0], photometric=photometric, **SHAPES[shape])
    levels = expected(values)
    assert np.abs(read(tmp_path / "a.tif") - (levels if photometric == "minisblack" else 255 - levels)).max() == 0


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_opacity_is_laid_over_white(tmp_path: Path, dtype: str, colours: int, extra: str, planes: str) -> None:
    values, alpha = noise(dtype, colours), noise(dtype, 1, seed=1)
    if extra == "assocalpha":
        values = (values * (alpha / np.iinfo(dtype).max)).astype(dtype)
    stored = np.concatenate([values, alpha], 2)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored if planes == "contig" else np.moveaxis(stored, -1, 0),
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig=planes,
        extrasamples=[extra],
    )
    levels = expected(values)
    white = 255 * (1 - alpha / np.iinfo(dtype).max)
    want = {"unassalpha": over_white(levels, alpha), "assocalpha": levels + white}[extra]
    assert np.abs(read(tmp_path / "a.tif") - want).max() <= 1


@pytest.mark.parametrize("extra", [["unspecified"], ["unassalpha", "unspecified"], ["unspecified", "unassalpha"]])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_bands_beside_colours_are_not_dropped(tmp_path: Path, dtype: str, colours: int, extra: list[str]) -> None:
    photometric = "rgb" if colours == 3 else "minisblack"
    stored = noise(dtype, colours + len(extra))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, planarconfig="contig", extrasamples=extra)
    others = "of which 3 are colours" if colours == 3 else "that are no colours"
    for kind in (RGB, PixelType(1)) if stored.shape[2] != 3 else (PixelType(1),):  # three bands may be shown as RGB
        with pytest.raises(UnreadableImage, match=rf"a\.tif: it has {stored.shape[2]} channels {others}: save those"):
            read_samples(tmp_path / "a.tif", kind)


def entries(path: Path, tag: int) -> tifffile.TiffTag:
    with tifffile.TiffFile(path) as tiff:
        found = tiff.pages.first.tags[tag]
        assert isinstance(found, tifffile.TiffTag)
        return found


def test_a_channel_that_may_be_opacity_or_not_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise("uint8", 4), photometric="rgb", extrasamples=["unassalpha"])
    content = bytearray(path.read_bytes())
    content[entries(path, 338).offset : entries(path, 338).offset + 2] = (60000).to_bytes(2, "little")  # another tag
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="does not say whether the last is opacity"):
        read_image(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_gives_its_colours(tmp_path: Path, bits: int) -> None:
    random = np.random.default_rng(0)
    indices = random.integers(0, 2**bits, (HEIGHT, WIDTH)).astype(np.uint8)
    colours = random.integers(0, 256, (256, 3)).astype(np.uint8)
    write_packed(tmp_path / "a.tif", indices, bits, photometric=3, colormap=colours[: 2**bits])
    assert np.abs(read(tmp_path / "a.tif") - colours[indices]).max() == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_of_any_number_of_bits_fills_the_levels(tmp_path: Path, bits: int, photometric: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH)).astype(np.uint16)
    write_packed(tmp_path / "a.tif", values, bits, photometric=photometric)
    levels = np.rint(255.0 * values / (2**bits - 1))[..., None]
    assert np.abs(read(tmp_path / "a.tif") - (levels if photometric else 255 - levels)).max() == 0


def write_packed(
    path: Path, values: np.ndarray, bits: int, *, photometric: int, colormap: np.ndarray | None = None
) -> None:
    """Return a TIFF as no library here writes it: one strip of rows that begin on a byte, by the specification."""
    in_bits = (values[..., None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(in_bits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()
    fields = {256: values.shape[1], 257: len(values), 258: bits, 259: 1, 262: photometric, 277: 1, 278: len(values)}
    count = len(fields) + 2 + (colormap is not None)
    start = 8 + 2 + 12 * count + 4
    rows = [(tag, 4, 1, value) for tag, value in fields.items()] + [(273, 4, 1, start), (279, 4, 1, len(packed))]
    body = packed
    if colormap is not None:
        rows.append((320, 3, colormap.size, start + len(body)))
        body += (colormap.T.astype("<u2") * 257).tobytes()
    directory = b"".join(
        tag.to_bytes(2, "little")
        + kind.to_bytes(2, "little")
        + number.to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, kind, number, value in sorted(rows)
    )
    path.write_bytes(b"II*\0\x08\0\0\0" + count.to_bytes(2, "little") + directory + bytes(4) + body)


def in_pieces_of_lzw(values: np.ndarray, rows: int) -> Iterator[bytes]:
    """Strips that libtiff compresses, as bytes of a greyscale image."""
    for first in range(0, len(values), rows):
        strip = values[first : first + rows].tobytes()
        file = io.BytesIO()
        Image.frombytes("L", (len(strip), 1), strip).save(file, "TIFF", compression="tiff_lzw")
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            assert len(page.dataoffsets) == 1
            yield file.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lzw_needs_no_other_package(tmp_path: Path, dtype: str, channels: int) -> None:
    values = noise(dtype, channels) // 7 * 7
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        in_pieces_of_lzw(values, 10),
        shape=values.shape if channels == 3 else values.shape[:2],
        dtype=dtype,
        photometric="rgb" if channels == 3 else "minisblack",
        compression="zlib",
        rowsperstrip=10,
    )
    content = bytearray(path.read_bytes())
    content[entries(path, 259).valueoffset] = COMPRESSION.LZW  # which tifffile does not write without imagecodecs
    path.write_bytes(content)
    assert np.abs(read(path) - expected(values)).max() == 0


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", None])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "1", "P"])
def test_what_pillow_writes_is_read_as_pillow_means_it(tmp_path: Path, mode: str, compression: str | None) -> None:
    image = Image.fromarray(noise("uint8", 3)).resize((4 * WIDTH, 4 * HEIGHT), Image.Resampling.BICUBIC).convert(mode)
    if compression == "jpeg" and mode in ("1", "P", "RGBA"):
        pytest.skip("JPEG has no such pixels")
    image.save(tmp_path / "a.tif", compression=compression)
    want = np.asarray(image.convert("RGB")) if mode != "RGBA" else np.asarray(image)[..., :3]
    assert np.abs(read(tmp_path / "a.tif") - want).max() <= (30 if compression == "jpeg" else 0)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_fax_is_read(tmp_path: Path, compression: str, white_is_zero: bool) -> None:
    image = Image.fromarray(noise("uint8")[..., 0] > 127)
    path = tmp_path / "a.tif"
    image.save(path, compression=compression)
    photometric = entries(path, 262)
    content = bytearray(path.read_bytes())
    levels = np.asarray(image.convert("RGB"))
    if bool(photometric.value) == white_is_zero:  # the same bits with the other meaning
        content[photometric.valueoffset] = 1 - photometric.value
        levels = 255 - levels
    path.write_bytes(content)
    assert np.abs(read(path) - levels).max() == 0


@pytest.mark.parametrize("compression", [None, "jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int, compression: str | None) -> None:
    image = Image.fromarray(np.kron(noise("uint8", 3)[:5, :7], np.ones((16, 16, 1), np.uint8)))
    image.save(tmp_path / "a.tif", tiffinfo={274: orientation}, compression=compression, quality=100)
    moves = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.rot90(np.fliplr(a)),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(np.fliplr(a), -1),
        8: np.rot90,
    }
    got, want = read(tmp_path / "a.tif"), moves[orientation](np.asarray(image).astype(float))
    assert got.shape == want.shape
    assert np.abs(got - want).mean() < (6 if compression else 1e-9)


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.zeros((8, 8), np.float32), {}, "--range LOW HIGH"),
        (np.zeros((8, 8), np.complex64), {}, "no known kind"),
        (np.full((8, 8), 70000, np.uint32), {}, "do not fit 16 bits.*--range"),
        (np.zeros((8, 8), np.uint16), {"photometric": "cfa"}, "CFA, is not known here"),
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "cielab"}, "CIELAB, is not known here"),
        (np.zeros((5, 8, 8), np.uint16), {"photometric": "minisblack", "planarconfig": "separate"}, "no colours"),
        (np.zeros((8, 8, 8), np.uint16), {"volumetric": True, "tile": (16, 16, 16)}, "8 deep"),
    ],
    ids=["float", "complex", "32 bits", "raw sensor", "lab", "five channels", "volume"],
)
def test_what_is_not_known_to_be_right_is_refused(
    tmp_path: Path, values: np.ndarray, options: dict[str, Any], reason: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, **({"photometric": "minisblack"} | options))
    with pytest.raises(UnreadableImage, match=f"a\\.tif: .*{reason}"):
        read_image(tmp_path / "a.tif")


def test_a_range_makes_floating_point_and_large_integers_readable(tmp_path: Path) -> None:
    values = np.linspace(-0.5, 1.5, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    tifffile.imwrite(tmp_path / "float.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "int.tif", (1e6 * values).astype(np.int32), photometric="minisblack")
    want = np.rint(255 * values.clip(0, 1).astype(float))[..., None]
    assert np.abs(read(tmp_path / "float.tif", value_range=(0, 1)) - want).max() <= 1
    assert np.abs(read(tmp_path / "int.tif", value_range=(0, 1e6)) - want).max() <= 1
    tifffile.imwrite(tmp_path / "nan.tif", np.full((8, 8), np.nan, np.float32), photometric="minisblack")
    with pytest.raises(UnreadableImage, match="not finite"):
        read_image(tmp_path / "nan.tif", value_range=(0, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, shape: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise("uint16", 3), photometric="rgb", **SHAPES[shape])
    content = (tmp_path / "a.tif").read_bytes()
    for length in range(4, len(content), len(content) // 20):
        (tmp_path / "a.tif").write_bytes(content[:length])
        with pytest.raises(UnreadableImage):
            read_image(tmp_path / "a.tif")


def test_a_file_that_claims_more_pixels_than_it_can_hold_takes_no_memory(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise("uint8"), photometric="minisblack", compression="zlib")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for tag in (256, 257):
        offset = entries(tmp_path / "a.tif", tag).valueoffset
        content[offset : offset + 4] = (13000).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"13000x13000 pixels, which its .* bytes cannot hold"):
        read_image(tmp_path / "a.tif")


def test_labels_are_the_numbers_in_the_file(tmp_path: Path) -> None:
    labels = noise("uint8")[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="miniswhite", tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(read_indices(tmp_path / "a.tif"), labels)
    tifffile.imwrite(tmp_path / "a.tif", noise("uint8", 3), photometric="rgb")
    with pytest.raises(UnreadableImage, match="3 channels"):
        read_indices(tmp_path / "a.tif")


def test_a_large_tiff_is_decoded_strip_by_strip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches memory: no samples of more than one strip are ever there beside the levels."""
    values = noise("uint16", 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", rowsperstrip=4, compression="zlib")
    sizes: list[int] = []
    decode = tifffile.TiffPage.decode.func  # type: ignore[attr-defined]  # a cached property

    def recorded(page: tifffile.TiffPage) -> Any:
        def segment(data: bytes | None, *rest: Any, **options: Any) -> Any:
            found = decode(page)(data, *rest, **options)
            sizes.append(0 if found[0] is None else found[0].size)
            return found

        return segment

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(recorded))
    with open(tmp_path / "a.tif", "rb") as file:
        pixels = read_tiff(file, None).pixels
    assert np.abs(pixels - expected(values)).max() == 0
    assert max(sizes) == 4 * WIDTH * 3
