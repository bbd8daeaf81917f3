"""TIFF's many layouts give the samples that were written, pages are what `frames` says, and GeoTIFFs stay in place."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.formats.georeference import KEPT_TAGS
from cyclegan_fast.images.formats.stored import Frames
from cyclegan_fast.images.pixel_type import RGB, PixelType
from cyclegan_fast.images.samples import Samples, describe_file, ending_for, read_samples, write_samples
from cyclegan_fast.images.unreadable import UnreadableImage
from tests.cyclegan_fast.images.formats.made import HEIGHT, WIDTH, noise

GEO_TAGS: list[tuple[int, int, int, Any, bool]] = [
    (33550, 12, 3, (0.5, 0.25, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), True),
    (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32611), True),
    (34736, 12, 2, (6378137.0, 298.257223563), True),
    (34737, 2, 22, "UTM Zone 11N|WGS 84|\0", True),
    (42113, 2, 6, "-9999\0", True),
]
TRANSFORMATION = (34264, 12, 16, tuple(float(value) for value in range(16)), True)
SIX = PixelType(6, "uint16", 0, 65535)
DEEP = PixelType(1, "uint16", 0, 65535)


def values_of(kind: PixelType, path: Path, **options: Any) -> np.ndarray:
    samples = read_samples(path, kind, **options)
    assert samples.values.dtype == kind.as_numpy
    return samples.values


def overwrite(path: Path, *places: tuple[int, int], order: str = "<") -> None:
    """Put numbers of two bytes at places in a file: for tags that tifffile does not write."""
    content = bytearray(path.read_bytes())
    for place, value in places:
        content[place : place + 2] = value.to_bytes(2, "little" if order == "<" else "big")
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"rowsperstrip": 5},
        {"tile": (16, 16)},
        {"compression": "zlib", "tile": (16, 32)},
        {"compression": "zlib", "predictor": 2},
        {"byteorder": ">", "bigtiff": True},
        {"compression": "lzma"},
    ],
    ids=str,
)
def test_six_channels(tmp_path: Path, layout: dict[str, Any], planes: str, dtype: Any) -> None:
    if dtype == "float32" and layout.get("predictor") == 2:
        pytest.skip("there is no such predictor")
    values = noise(dtype, HEIGHT, WIDTH, 6)
    stored = values if planes == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planes, **layout)
    kind = describe_file(tmp_path / "a.tif")
    assert (kind.frames, kind.height, kind.width, kind.channels) == (1, HEIGHT, WIDTH, 6)
    assert (kind.dtype, kind.is_colour, kind.has_opacity) == (dtype, False, False)
    assert np.array_equal(
        values_of(PixelType(6, dtype, 0, 1 if dtype == "float32" else 255), tmp_path / "a.tif")[0], values
    )


@pytest.mark.parametrize("compression", ["tiff_lzw", "zstd", "packbits"])
def test_what_libtiff_compressed(tmp_path: Path, compression: str) -> None:
    values = noise("uint16", HEIGHT, WIDTH)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages.first.compression != 1
    assert np.array_equal(values_of(DEEP, tmp_path / "a.tif")[0, ..., 0], values)


def test_the_predictor_of_floating_point_is_undone_as_libtiff_applied_it(tmp_path: Path) -> None:
    values = noise("float32", HEIGHT, WIDTH)
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_adobe_deflate", tiffinfo={317: 3})
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages.first.predictor == 3
    assert np.array_equal(values_of(PixelType(1, "float32", 0, 1), tmp_path / "a.tif")[0, ..., 0], values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_predictor_of_floating_point_is_undone(tmp_path: Path, channels: int, order: str) -> None:
    """Encodes by the definition: bytes of a row by their rank, highest first, each less the one a pixel before."""
    values = noise("float32", HEIGHT, WIDTH, channels)
    by_rank = values.astype(">f4").reshape(HEIGHT, -1).view(np.uint8).reshape(HEIGHT, -1, 4).transpose(0, 2, 1)
    row = by_rank.reshape(HEIGHT, -1)
    differences = row.copy()
    differences[:, channels:] -= row[:, :-channels]
    stored = differences.view(f"{order}f4").reshape(values.shape if channels > 1 else values.shape[:2])
    contiguous = {"photometric": "minisblack", "planarconfig": "contig"} if channels > 1 else {}
    code = 65317  # which becomes 317: tifffile does not write a predictor that it cannot apply
    options: dict[str, Any] = {"byteorder": order, "extratags": [(code, 3, 1, 3, True)], "metadata": None, **contiguous}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        at = tiff.pages.first.tags[code].offset
    overwrite(tmp_path / "a.tif", (at, 317), order=order)
    kind = PixelType(channels, "float32", 0, 1)
    assert np.array_equal(values_of(kind, tmp_path / "a.tif")[0], values)


@pytest.mark.parametrize("bits", [2, 4, 12, 24])
def test_samples_of_any_number_of_bits(tmp_path: Path, bits: int) -> None:
    """Packs them by the definition, the highest bit first, each row from a byte on."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH))
    in_bits = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(in_bits.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    tifffile.imwrite(tmp_path / "a.tif", packed, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tags = tiff.pages.first.tags
        places = [(tags["ImageWidth"].valueoffset, WIDTH), (tags["BitsPerSample"].valueoffset, bits)]
    overwrite(tmp_path / "a.tif", *places)
    expected = values if bits > 8 else np.rint(values * 255 / (2**bits - 1))
    found = values_of(PixelType(1, "float32", 0, 1), tmp_path / "a.tif")[0, ..., 0]
    assert np.array_equal(found, expected)


def test_a_compression_without_a_decoder_is_one_sentence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise("uint16", HEIGHT, WIDTH))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        at = tiff.pages.first.tags["Compression"].valueoffset
    overwrite(tmp_path / "a.tif", (at, 34887))  # LERC
    with pytest.raises(UnreadableImage, match=r"a\.tif: .*LERC.*imagecodecs") as refusal:
        values_of(DEEP, tmp_path / "a.tif")
    assert "\n" not in str(refusal.value)


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", ["first", "channels", "slices"])
@pytest.mark.parametrize("how", [{}, {"ome": True}, {"imagej": True}], ids=str)
def test_pages_are_what_is_asked_for(tmp_path: Path, how: dict[str, Any], frames: Frames) -> None:
    values = noise("uint16", 6, HEIGHT, WIDTH)
    axes = {"metadata": {"axes": "ZYX"}} if how else {}
    tifffile.imwrite(tmp_path / "a.tif", values, **how, **axes)
    kind = describe_file(tmp_path / "a.tif", frames)
    wanted = {"first": (1, 1), "channels": (1, 6), "slices": (6, 1)}[frames]
    assert (kind.frames, kind.images, kind.channels) == (6, *wanted)
    read = values_of(PixelType(wanted[1], "uint16", 0, 65535), tmp_path / "a.tif", frames=frames)
    expected = {
        "first": values[:1, ..., None],
        "channels": np.moveaxis(values, 0, -1)[None],
        "slices": values[..., None],
    }[frames]
    assert np.array_equal(read, expected)
    if frames == "slices":
        assert np.array_equal(values_of(DEEP, tmp_path / "a.tif", frames=frames, index=4), expected[4:5])


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX", "TCYX"])
def test_slices_have_the_channels_that_the_metadata_name(tmp_path: Path, axes: str) -> None:
    values = noise("uint16", 4, HEIGHT, WIDTH, 6)  # slices and then channels
    stored = np.moveaxis(values, -1, axes.index("C"))
    tifffile.imwrite(tmp_path / "a.ome.tif", stored, ome=True, metadata={"axes": axes})
    kind = describe_file(tmp_path / "a.ome.tif", "slices")
    assert (kind.frames, kind.images, kind.channels) == (24, 4, 6)
    assert np.array_equal(values_of(SIX, tmp_path / "a.ome.tif", frames="slices"), values)
    assert np.array_equal(values_of(SIX, tmp_path / "a.ome.tif", frames="slices", index=2), values[2:3])
    with pytest.raises(UnreadableImage, match="its 24 pages are 4 images of 6 channels: read them as"):
        describe_file(tmp_path / "a.ome.tif", "channels")


def test_channels_of_an_ome_tiff_are_one_image(tmp_path: Path) -> None:
    values = noise("uint16", HEIGHT, WIDTH, 6)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(values, -1, 0), ome=True, metadata={"axes": "CYX"})
    for frames in ("channels", "slices"):
        assert np.array_equal(values_of(SIX, tmp_path / "a.tif", frames=frames)[0], values)


def test_pages_of_other_files_are_none(tmp_path: Path) -> None:
    values = noise("uint16", 2, HEIGHT, WIDTH)
    ome = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYZCT" Type="uint16" SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeZ="4" SizeC="1" SizeT="1">'
        + "".join(
            f'<TiffData IFD="{ifd}" FirstZ="{2 * part + ifd}" PlaneCount="1">'
            f'<UUID FileName="{name}.ome.tif">urn:uuid:{name}</UUID></TiffData>'
            for part, name in enumerate("ab")
            for ifd in range(2)
        )
        + "</Pixels></Image></OME>"
    )
    for name in "ab":
        described = ome.replace("<OME ", f'<OME UUID="urn:uuid:{name}" ')
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", values, description=described, metadata=None)
    with pytest.raises(UnreadableImage, match="its metadata name pages that are not in it: save it as one file"):
        describe_file(tmp_path / "a.ome.tif", "slices")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe shows that a file is opened")
def test_files_that_the_metadata_name_are_not_opened(tmp_path: Path) -> None:
    """Names a pipe, on which whoever opens it would wait without end."""
    os.mkfifo(tmp_path / "pipe")
    ome = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a"><Image ID="Image:0"><Pixels '
        f'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeZ="2" SizeC="1" '
        'SizeT="1"><TiffData IFD="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:a</UUID></TiffData>'
        f'<TiffData FirstZ="1" PlaneCount="1"><UUID FileName="{tmp_path / "pipe"}">urn:uuid:b</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, noise("uint16", 2, HEIGHT, WIDTH), description=ome, metadata=None)
    found: list[BaseException] = []

    def described() -> None:
        try:
            describe_file(path, "slices")
        except UnreadableImage as error:
            found.append(error)

    thread = threading.Thread(target=described, daemon=True)
    thread.start()
    thread.join(30)
    assert len(found) == 1, "it waits"
    assert str(found[0]).endswith("its metadata name pages that are not in it: save it as one file")


@pytest.mark.parametrize("opacity", ["unassalpha", "assocalpha"])
def test_opacity_is_laid_over_white(tmp_path: Path, opacity: str) -> None:
    values = noise("uint16", HEIGHT, WIDTH, 4)
    if opacity == "assocalpha":
        values[..., :3] = np.minimum(values[..., :3], values[..., 3:])
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=[opacity])
    share = values[..., 3:] / 65535
    laid = values[..., :3] * (share if opacity == "unassalpha" else 1) + 65535 * (1 - share)
    three = PixelType(3, "uint16", 0, 65535)
    assert np.abs(values_of(three, tmp_path / "a.tif")[0] - laid).max() <= 0.5 + 1e-9


def test_four_bands_are_bands_again_when_they_are_read(tmp_path: Path) -> None:
    values = noise("uint8", 1, HEIGHT, WIDTH, 4)
    four = PixelType(4)
    assert ending_for(four, ".png") == ".tif"
    write_samples(Samples(values), tmp_path / "a.tif", four)
    assert np.array_equal(values_of(four, tmp_path / "a.tif"), values)


def test_smaller_copies_are_no_pages_and_others_are_named(tmp_path: Path) -> None:
    values = noise("uint16", HEIGHT, WIDTH)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(values, metadata=None)
        tiff.write(values[::2, ::2], subfiletype=1, metadata=None)
    assert describe_file(tmp_path / "a.tif", "slices").images == 1
    with tifffile.TiffWriter(tmp_path / "b.tif") as tiff:
        tiff.write(values, metadata=None)
        tiff.write(values[:5], metadata=None)
    with pytest.raises(UnreadableImage, match="its page 1 is 21x5 pixels of 1 uint16, and the one before 21x13 pixels"):
        values_of(DEEP, tmp_path / "b.tif", frames="slices")


def test_slices_are_written_as_pages(tmp_path: Path) -> None:
    values = noise("int16", 5, HEIGHT, WIDTH, 2)
    kind = PixelType(2, "int16", -32768, 32767)
    write_samples(Samples(values), tmp_path / "a.tif", kind)
    assert np.array_equal(values_of(kind, tmp_path / "a.tif", frames="slices"), values)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert np.array_equal(np.stack([page.asarray() for page in tiff.pages]), values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_the_least_value_may_be_white(tmp_path: Path, dtype: Any) -> None:
    values = noise(dtype, HEIGHT, WIDTH)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    held = np.iinfo(dtype)
    kind = PixelType(1, dtype, held.min, held.max)
    assert np.array_equal(
        values_of(kind, tmp_path / "a.tif")[0, ..., 0].astype(int), held.max + held.min - values.astype(int)
    )


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95])
def test_a_cut_file_is_named(tmp_path: Path, cut: float) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", noise("uint16", HEIGHT, WIDTH, 6), photometric="minisblack", planarconfig="contig"
    )
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: int(cut * len(content))])
    with pytest.raises(UnreadableImage, match=r"a\.tif: "):
        values_of(SIX, tmp_path / "a.tif")


# --- places ----------------------------------------------------------------------------------------------------------


def kept_tags(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages.first.tags
        return {
            name: (tags[code].dtype, tags[code].count, tags[code].value)
            for code, name in KEPT_TAGS.items()
            if code in tags
        }


@pytest.mark.parametrize("tags", [GEO_TAGS, [TRANSFORMATION, *GEO_TAGS[2:]]], ids=["scale", "transformation"])
@pytest.mark.parametrize("kind", [RGB, DEEP, PixelType(4, "float32", 0, 1)], ids=str)
def test_a_georeference_is_kept(tmp_path: Path, kind: PixelType, tags: list[Any]) -> None:
    values = noise(kind.dtype, HEIGHT, WIDTH, kind.channels)
    options = {"planarconfig": "contig"} if kind.channels > 1 else {}
    photometric = "rgb" if kind.is_rgb else "minisblack"
    stored = values if kind.channels > 1 else values[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, extratags=tags, **options)
    assert describe_file(tmp_path / "a.tif").is_georeferenced
    samples = read_samples(tmp_path / "a.tif", kind)
    assert np.array_equal(samples.values[0], values)
    write_samples(samples, tmp_path / "b.tif", kind)
    expected = kept_tags(tmp_path / "a.tif")
    assert len(expected) == len(tags)
    del expected["GDAL_NODATA"]  # nothing that is written is no data
    assert kept_tags(tmp_path / "b.tif") == expected
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), stored)


def test_no_data_becomes_nan_and_comes_back(tmp_path: Path) -> None:
    values = noise("float32", HEIGHT, WIDTH)
    values[3:5] = -9999
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=GEO_TAGS)
    kind = PixelType(1, "float32", 0, 1)
    samples = read_samples(tmp_path / "a.tif", kind)
    assert samples.masked == 2 * WIDTH
    assert np.isnan(samples.values[0, 3:5]).all()
    write_samples(samples, tmp_path / "b.tif", kind)
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), values)
    far = np.where(values == -9999, -1.7976931348623157e308, values.astype(np.float64))
    tag = "-1.7976931348623157e+308\0"
    tifffile.imwrite(tmp_path / "c.tif", far, extratags=[(42113, 2, len(tag), tag, True)])
    assert np.array_equal(read_samples(tmp_path / "c.tif", kind).values, samples.values, equal_nan=True)


def no_data_tag(value: str) -> tuple[int, int, int, str, bool]:
    return 42113, 2, len(value) + 1, f"{value}\0", True


def test_a_value_for_no_data_is_written_where_it_means_that_alone(tmp_path: Path) -> None:
    values = noise("uint16", HEIGHT, WIDTH, low=1)
    values[2:4] = 0
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[*GEO_TAGS[:5], no_data_tag("0")])
    kind = PixelType(1, "float32", 0, 1)
    place = read_samples(tmp_path / "a.tif", kind).place
    translated = noise("float32", 1, HEIGHT, WIDTH, 1, low=0, high=1)
    gap = translated.copy()
    gap[:, 2:4] = np.nan
    taken = gap.copy()
    taken[:, 7] = 0
    for samples, has_tag in ((translated, False), (gap, True), (taken, False)):
        write_samples(Samples(samples, place), tmp_path / "b.tif", kind)
        assert ("GDAL_NODATA" in kept_tags(tmp_path / "b.tif")) is has_tag
        found = read_samples(tmp_path / "b.tif", kind).values
        assert np.array_equal(found, samples, equal_nan=True)
    for dtype in ("uint8", "uint16", "int16"):
        whole = PixelType.with_full_range(1, dtype)  # type: ignore[arg-type]
        write_samples(Samples(np.zeros((1, HEIGHT, WIDTH, 1), dtype), place), tmp_path / "b.tif", whole)
        assert "GDAL_NODATA" not in kept_tags(tmp_path / "b.tif")
        assert kept_tags(tmp_path / "b.tif")["ModelPixelScale"] == kept_tags(tmp_path / "a.tif")["ModelPixelScale"]


def test_a_value_that_float32_does_not_hold_stays_nan(tmp_path: Path) -> None:
    far = noise("float32", HEIGHT, WIDTH).astype(np.float64)
    far[3] = -1.7976931348623157e308
    tifffile.imwrite(tmp_path / "a.tif", far, extratags=[no_data_tag("-1.7976931348623157e+308")])
    kind = PixelType(1, "float32", 0, 1)
    samples = read_samples(tmp_path / "a.tif", kind)
    write_samples(samples, tmp_path / "b.tif", kind)
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), samples.values[0, ..., 0], equal_nan=True)
    assert "GDAL_NODATA" not in kept_tags(tmp_path / "b.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32"])
@pytest.mark.parametrize("no_data", ["0", "-1e308"])
@pytest.mark.filterwarnings("error")
def test_no_data_of_all_types_becomes_nan(tmp_path: Path, dtype: str, no_data: str) -> None:
    values = noise("uint8", HEIGHT, WIDTH, low=1).astype(dtype)
    values[3:5] = 0
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[no_data_tag(no_data)])
    samples = read_samples(tmp_path / "a.tif", PixelType(1, "float32", 0, 1))
    assert samples.masked == (2 * WIDTH if no_data == "0" else None)


def test_no_data_of_a_palette_is_no_colour(tmp_path: Path) -> None:
    colours = np.zeros((3, 256), np.uint16)
    values = noise("uint8", HEIGHT, WIDTH, high=3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="palette", colormap=colours, extratags=[no_data_tag("0")])
    assert read_samples(tmp_path / "a.tif", PixelType(3, "float32", 0, 1)).masked is None


def test_an_image_of_another_size_does_not_get_the_place(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise("uint16", HEIGHT, WIDTH), extratags=GEO_TAGS)
    samples = read_samples(tmp_path / "a.tif", DEEP)
    with pytest.raises(ValueError, match="20x12 pixels do not lie where the 21x13 of the file do"):
        write_samples(Samples(samples.values[:, :12, :20], samples.place), tmp_path / "b.tif", DEEP)


def test_the_8_bit_way_refuses_what_it_refused(tmp_path: Path) -> None:
    values = noise("uint8", HEIGHT, WIDTH, 3)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(values_of(RGB, tmp_path / "a.tif")[0], values)
    with pytest.raises(UnreadableImage, match="3 channels that are no colours"):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(
        tmp_path / "b.tif", noise("uint8", HEIGHT, WIDTH, 5), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(UnreadableImage, match="5 channels that are no colours"):
        values_of(RGB, tmp_path / "b.tif")


@pytest.mark.parametrize("kinds", [["unspecified", "unassalpha"], ["assocalpha", "unspecified"]])
def test_opacity_among_bands_is_refused(tmp_path: Path, kinds: list[str]) -> None:
    values = noise("uint16", 12, 10, 5)
    tifffile.imwrite(path := tmp_path / "a.tif", values, photometric="rgb", extrasamples=kinds, planarconfig="contig")
    number = 5 if kinds[1] == "unassalpha" else 4
    with pytest.raises(
        UnreadableImage, match=f"sample {number} of its 5 is opacity, beside others that are no colours"
    ):
        describe_file(path)
    bands = ["unspecified"] * 2
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=bands, planarconfig="contig")
    assert np.array_equal(read_samples(path, PixelType(5, "uint16", 0, 65535)).values[0], values)
