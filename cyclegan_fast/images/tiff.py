"""Reads TIFF: every strip or tile becomes 8-bit RGB before the next one is decoded; tiff_segments.py decompresses them.

Pillow decodes JPEG and fax, which tifffile cannot without the package imagecodecs. It is not trusted with samples of
more than 8 bits, because it takes some kinds for others without a word.
"""

from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC, TiffPage

from cyclegan_fast.images.levels import (
    Extent,
    ValueRange,
    extent_of,
    full_range,
    merged,
    over_white,
    to_levels,
)
from cyclegan_fast.images.orientation import upright
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.tiff_segments import bits_of, first_page, segments

_COLOUR_SAMPLES: dict[int, int] = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.SEPARATED: 4,
}
"""The number of samples of a pixel, without opacity and other extras, by the kind of colour; others are refused."""

OF_PILLOW = (
    COMPRESSION.JPEG,
    COMPRESSION.OJPEG,
    COMPRESSION.CCITTRLE,
    COMPRESSION.CCITTFAX3,
    COMPRESSION.CCITTFAX4,
)
UNASSOCIATED, ASSOCIATED = 2, 1  # extra samples that are opacity; with ASSOCIATED, colours are multiplied by it
ORIENTATION, EXTRA_SAMPLES, INK_SET = 274, 338, 332
CMYK = 1  # an INK_SET
BAND_ROWS = 64


class _Layout(NamedTuple):
    """Says which samples of a pixel are its colour, and which is its opacity."""

    colours: int
    alpha: int | None  # the place of the sample
    associated: bool


def read_tiff(file: BinaryIO, value_range: ValueRange | None) -> "Rgb":
    """Decode the first page of an open file, upright.

    Args:
        value_range: what samples of more than 8 bits are taken to fill; by default all that they can hold.

    Raises ValueError, saying why, where it is not known how to read the pixels right, and whatever tifffile, Pillow or
    a decompressor raises on damage.
    """
    with first_page(file) as page:
        return rgb_of_page(file, page, value_range)


def rgb_of_page(file: BinaryIO, page: TiffPage, value_range: ValueRange | None) -> "Rgb":
    """Decode a page of an open file, upright; arguments and errors are those of `read_tiff`."""
    if page.compression in OF_PILLOW:
        return _with_pillow(file, page)
    layout = _layout(page)
    levels, extent = _decode(page, layout, value_range)
    return Rgb(upright(_to_rgb(page, layout, levels), page.tags.valueof(ORIENTATION, 1)), extent)


class Rgb(NamedTuple):
    """uint8 [H, W, 3], and the extent of the samples where these have more than 8 bits."""

    pixels: Pixels
    extent: Extent | None


def read_first_samples(file: BinaryIO) -> SampleArray:
    """Return the samples of the first page as they are stored, [H, W], of one channel. Raises as `read_tiff` does."""
    with first_page(file) as page:
        if page.samplesperpixel != 1 or page.dtype is None:
            raise ValueError(f"it has {page.samplesperpixel} channels")
        samples = np.zeros((page.imagelength, page.imagewidth), page.dtype)
        for top, left, _, segment in segments(page):
            height, width = samples[top : top + segment.shape[0], left : left + segment.shape[1]].shape
            samples[top : top + height, left : left + width] = segment[:height, :width, 0]
        return samples


# --- the meaning of samples ----------------------------------------------------------------------------------------


def _layout(page: TiffPage) -> _Layout:
    """Return which samples are colour and opacity; raises ValueError for a page that is not known to be read right."""
    colours = _COLOUR_SAMPLES.get(page.photometric) if page.photometric is not None else None
    if colours is None:
        kind = getattr(page.photometric, "name", page.photometric)
        raise ValueError(f"its kind of colour, {kind}, is not known here: save it as RGB")
    if page.photometric == PHOTOMETRIC.SEPARATED and page.tags.valueof(INK_SET, CMYK) != CMYK:
        raise ValueError("its inks are others than cyan, magenta, yellow and black: save it as RGB")
    samples = page.samplesperpixel
    if samples < colours:
        raise ValueError(f"it has {samples} channels, where {colours} are needed")
    extra = page.tags.valueof(EXTRA_SAMPLES)
    if samples > colours and extra is None:
        raise ValueError(f"it has {samples} channels and does not say whether the last is opacity: save it anew")
    if samples == colours:
        return _Layout(colours, None, associated=False)
    kinds = extra if isinstance(extra, tuple) else (extra,)
    if samples > colours + 1 or kinds[0] not in (UNASSOCIATED, ASSOCIATED):
        others = "that are no colours" if colours == 1 else f"of which {colours} are colours"
        raise ValueError(f"it has {samples} channels {others}: save those that are meant as grey or RGB")
    return _Layout(colours, colours, associated=kinds[0] == ASSOCIATED)


def _decode(page: TiffPage, layout: _Layout, value_range: ValueRange | None) -> tuple[Pixels, Extent | None]:
    """Return levels [H, W, colours and then opacity where there is any]; of a palette, the numbers of its entries."""
    if page.dtype is None or page.dtype.kind not in "buif":
        raise ValueError(f"its samples are of no known kind (format {page.sampleformat}, {page.bitspersample} bits)")
    bits = bits_of(page)
    is_palette = page.photometric == PHOTOMETRIC.PALETTE
    if is_palette and (bits > 8 or page.dtype.kind not in "bu"):
        raise ValueError(f"its palette has entries of {bits} bits")
    filled = value_range if value_range is not None and bits > 8 else full_range(page.dtype, bits)
    opaque = (0.0, 1.0) if page.dtype.kind == "f" else full_range(page.dtype, bits)
    height, width = page.imagelength, page.imagewidth
    levels = np.empty((height, width, layout.colours + (layout.alpha is not None)), np.uint8)
    extents: list[Extent | None] = [None]
    for top, left, first, segment in segments(page):
        for place in range(segment.shape[2]):
            sample = first + place
            into = sample if sample < layout.colours else layout.colours if sample == layout.alpha else None
            if into is None:
                continue
            inside = segment[: height - top, : width - left, place]
            if bits > 8 and into < layout.colours:
                extents.append(extent_of(inside, filled))
            shown = inside if is_palette else to_levels(inside, filled if into < layout.colours else opaque)
            levels[top : top + inside.shape[0], left : left + inside.shape[1], into] = shown
    return levels, merged(extents)


def _to_rgb(page: TiffPage, layout: _Layout, levels: Pixels) -> Pixels:
    """Convert levels [H, W, samples] to RGB [H, W, 3], a few rows at a time, transparent pixels laid over white."""
    if page.photometric == PHOTOMETRIC.RGB and layout.alpha is None:
        return levels
    rgb = np.empty((*levels.shape[:2], 3), np.uint8)
    for top in range(0, len(levels), BAND_ROWS):
        band = levels[top : top + BAND_ROWS]
        colours = _coloured(page, band[..., : layout.colours])
        if layout.alpha is not None:
            colours = over_white(colours, band[..., layout.colours], associated=layout.associated)
        rgb[top : top + BAND_ROWS] = colours
    return rgb


def _coloured(page: TiffPage, levels: Pixels) -> Pixels:
    match page.photometric:
        case PHOTOMETRIC.MINISWHITE:
            return 255 - levels
        case PHOTOMETRIC.PALETTE:
            return _palette(page)[levels[..., 0]]
        case PHOTOMETRIC.SEPARATED:
            return np.asarray(Image.fromarray(np.ascontiguousarray(levels), "CMYK").convert("RGB"))
        case _:
            return levels


def _palette(page: TiffPage) -> Pixels:
    """Return the palette as 8-bit colours [entries, 3]; files hold 16-bit values, or 8-bit ones by some programs."""
    if page.colormap is None:
        raise ValueError("it has no palette")
    values = np.asarray(page.colormap).T
    return (values if values.max() < 256 else values >> 8).astype(np.uint8)


def _with_pillow(file: BinaryIO, page: TiffPage) -> Rgb:
    """Decode a page that is compressed as JPEG or fax, which has 8 bits or 1; Pillow turns it upright itself."""
    if bits_of(page) not in (1, 8) or (page.planarconfig == 2 and page.samplesperpixel > 1):
        raise ValueError(
            f"JPEG of {page.bitspersample} bits or of one channel after another is not read here: save it uncompressed"
        )
    file.seek(0)
    with Image.open(file, formats=["TIFF"]) as image:
        image.seek(page.index)
        if image.mode not in ("1", "L", "RGB", "CMYK"):
            raise ValueError(f"JPEG of the kind {image.mode} is not read here: save it uncompressed")
        return Rgb(np.asarray(image.convert("RGB")), None)
