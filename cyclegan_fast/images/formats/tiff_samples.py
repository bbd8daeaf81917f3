"""Reads and writes the samples of TIFF as they are stored: any number of channels, and several pages.

../tiff.py turns a page into colours of 8 bits, and tiff_segments.py decompresses pages for both. Colours that are
none of light, such as those of inks and palettes, are read through ../tiff.py here, too.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import tifffile
from tifffile import PHOTOMETRIC, TiffFile, TiffPage

from cyclegan_fast.images.formats.georeference import NO_DATA, geo_tags, is_georeferenced, no_data_of
from cyclegan_fast.images.formats.stored import FileLayout, FilePlace, Source, StoredSamples, in_own_order, own_dtype
from cyclegan_fast.images.levels import full_range, to_levels
from cyclegan_fast.images.orientation import upright
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.tiff import ASSOCIATED, OF_PILLOW, ORIENTATION, UNASSOCIATED, rgb_of_page
from cyclegan_fast.images.tiff_segments import bits_of, check_page, segments
from cyclegan_fast.images.unreadable import BoundedFile, parsing

BANDS = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
_REDUCED, _NEW_SUBFILE_TYPE = 1, 254  # the tag whose lowest bit marks a smaller copy of another page


def describe_tiff(source: Source) -> FileLayout:
    """Return what a TIFF file holds, from the headers of its pages."""
    with _opened(source) as (_, tiff):
        planes, slices = _planes(tiff)
        page = tiff.pages.first
        height, width = page.imagelength, page.imagewidth
        if page.tags.valueof(ORIENTATION, 1) in (5, 6, 7, 8) and not is_georeferenced(page):
            height, width = width, height
        channels, is_colour, opacity = channels_of_page(page)
        dtype = "uint8" if is_through_rgb(page) or bits_of(page) < 8 else own_dtype(dtype_of_page(page))
        georeferenced = is_georeferenced(page)
        return FileLayout(
            len(planes), height, width, channels, dtype, is_colour, opacity is not None, slices, georeferenced
        )


def read_tiff_samples(source: Source, planes: Sequence[int]) -> StoredSamples:
    """Return the samples of some of a file's pages. Raises ValueError where these differ in size or type."""
    with _opened(source) as (file, tiff):
        pages, _ = _planes(tiff)
        first = _page(tiff, pages[planes[0]])
        read = [_samples(file, first)]
        for plane in planes[1:]:
            page = _page(tiff, pages[plane])
            read.append(_samples(file, page))
            if (read[-1].shape, read[-1].dtype) != (read[0].shape, read[0].dtype):
                raise ValueError(f"its page {pages[plane]} is {_said(read[-1])}, and the one before {_said(read[0])}")
        values = in_own_order(np.stack(read)) if len(read) > 1 else in_own_order(read[0])[None]
        _, is_colour, opacity = channels_of_page(first)
        return StoredSamples(
            values,
            8 if values.dtype == np.uint8 else bits_of(first),
            is_colour,
            opacity is not None,
            opacity == ASSOCIATED,
            place_of_page(first),
        )


def encoded_tiff(samples: SampleArray, kind: PixelType, place: FilePlace) -> bytes:
    """Return the content of a TIFF of [S, H, W, C], a page for each S, compressed without loss."""
    samples, is_no_data = _with_no_data(samples, place.no_data)
    options = options_of_page(kind, place, has_no_data=is_no_data)
    content = io.BytesIO()
    with tifffile.TiffWriter(content, bigtiff=samples.nbytes > 2**32 - 2**25) as tiff:
        for page in samples:
            plain = page[..., 0] if kind.channels == 1 else page
            tiff.write(
                np.ascontiguousarray(plain),
                **options,
            )
    return content.getvalue()


def _with_no_data(samples: SampleArray, no_data: float | None) -> tuple[SampleArray, bool]:
    """Return samples with a file's value for no data in place of NaN, and whether it stands for nothing else there."""
    if no_data is None or samples.dtype.kind != "f":
        return samples, False
    with np.errstate(over="ignore"):
        filling = samples.dtype.type(no_data)
    gaps = np.isnan(samples)
    if not gaps.any() or np.isinf(filling) or (samples == filling).any():
        return samples, False
    return np.where(gaps, filling, samples), True


def options_of_page(kind: PixelType, place: FilePlace, *, has_no_data: bool = False) -> dict[str, Any]:
    """Return what tifffile is told of a page of samples of a type, which is compressed without loss.

    Args:
        has_no_data: whether the value for no data of the place stands for that in these samples.
    """
    tags = [tag for tag in place.tags if has_no_data or tag[0] != NO_DATA]
    options: dict[str, Any] = {"photometric": "minisblack"}
    if kind.channels > 1:
        colours = 3 if kind.channels in (3, 4) else 1
        extra = ["unspecified"] * (kind.channels - colours)
        options = {"photometric": "rgb" if colours == 3 else "minisblack", "planarconfig": "contig"}
        options |= {"extrasamples": extra} if extra else {}
    if place.spacing_mm is not None:
        rows, columns = place.spacing_mm
        options |= {"resolution": (10 / columns, 10 / rows), "resolutionunit": "CENTIMETER"}
    return options | {
        "compression": "zlib",
        "metadata": None,
        "software": False,
        "extratags": [(code, dtype, count, value, True) for code, dtype, count, value in tags],
    }


def glance_at_tiff(source: Source) -> tuple[bool, FilePlace | None]:
    """Return whether a file's first page is three bands that are no colours, and where its pixels lie on the Earth."""
    with _opened(source) as (_, tiff):
        page = tiff.pages.first
        is_of_bands = page.samplesperpixel == 3 and page.photometric == PHOTOMETRIC.MINISBLACK
        return is_of_bands, place_of_page(page) if is_georeferenced(page) else None


def place_of_page(page: TiffPage) -> FilePlace:
    """Return where the pixels of a page lie, as they are stored; those of a GeoTIFF are not turned upright."""
    size = (page.imagelength, page.imagewidth) if is_georeferenced(page) else None
    is_as_stored = not is_through_rgb(page) and bits_of(page) >= 8
    return FilePlace(geo_tags(page), no_data_of(page) if is_as_stored else None, size=size)


class _OneFile(BoundedFile):
    """Keeps tifffile from opening other files that the metadata name.

    OME-TIFF may name any path, that of a device or a pipe, too, which would be waited for without end. tifffile looks
    for other files only beside one that the system knows by a number.
    """

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def _opened(source: Source) -> Iterator[tuple[BinaryIO, TiffFile]]:
    with _OneFile(source.path) as file:
        with parsing():
            tiff = TiffFile(file)
            check_page(tiff.pages.first)
        with tiff:
            yield file, tiff


def _page(tiff: TiffFile, index: int) -> TiffPage:
    with parsing():
        page = _page_at(tiff, index)
        check_page(page)
    return page


def _planes(tiff: TiffFile) -> tuple[list[int], list[list[int]] | None]:
    """Return which pages hold the image, and the planes of each slice where the file says which are its channels."""
    with parsing():
        count = len(tiff.pages)
        if count > 1 and (tiff.is_ome or tiff.is_imagej):
            return _planes_of_series(tiff)
        if tiff.is_imagej and int((tiff.imagej_metadata or {}).get("images", 1)) > 1:
            raise ValueError("its images lie behind a single page, as ImageJ writes large ones: save it as OME-TIFF")
        if count == 1:
            return [0], None
        return [
            index
            for index in range(count)
            if index == 0 or not _page_at(tiff, index).tags.valueof(_NEW_SUBFILE_TYPE, 0) & _REDUCED
        ], None


def _page_at(tiff: TiffFile, index: int) -> TiffPage:
    page = tiff.pages[index]
    return page if isinstance(page, TiffPage) else page.aspage()


def _planes_of_series(tiff: TiffFile) -> tuple[list[int], list[list[int]] | None]:
    series = tiff.series[0]
    found = [page.index if page is not None and page.parent is tiff else None for page in series.pages]
    planes = [index for index in found if isinstance(index, int)]
    if len(planes) < len(found):
        raise ValueError("its metadata name pages that are not in it: save it as one file")
    axes = series.axes[: series.axes.index("Y")]
    shape = series.shape[: len(axes)]
    if "C" not in axes or int(np.prod(shape)) != len(planes):
        return planes, None
    order = np.moveaxis(np.arange(len(planes)).reshape(shape), axes.index("C"), -1)
    return planes, order.reshape(-1, order.shape[-1]).tolist()


# --- one page ------------------------------------------------------------------------------------------------------


def is_through_rgb(page: TiffPage) -> bool:
    return page.compression in OF_PILLOW or page.photometric not in BANDS


def channels_of_page(page: TiffPage) -> tuple[int, bool, int | None]:
    """Return how many channels a page has, whether they begin with colours, and the kind of its opacity.

    Raises ValueError where opacity is one of several samples that are no colours: it is no band, and bands have no
    white to be laid over.
    """
    if is_through_rgb(page):
        channels = 1 if page.samplesperpixel == 1 and page.photometric != PHOTOMETRIC.PALETTE else 3
        return channels, channels == 3, None
    channels = page.samplesperpixel
    is_colour = page.photometric == PHOTOMETRIC.RGB and channels >= 3
    extra = page.extrasamples
    if len(extra) == 1 and extra[0] in (UNASSOCIATED, ASSOCIATED) and channels == (4 if is_colour else 2):
        return channels, is_colour, int(extra[0])
    opaque = [channels - len(extra) + index for index, kind in enumerate(extra) if kind in (UNASSOCIATED, ASSOCIATED)]
    if opaque:
        raise ValueError(
            f"sample {opaque[0] + 1} of its {channels} is opacity, beside others that are no colours: save it without "
            "that sample, or as one of no kind (ExtraSamples 0) where it is a band"
        )
    return channels, is_colour, None


def dtype_of_page(page: TiffPage) -> np.dtype[Any]:
    if page.dtype is None:
        raise ValueError(f"its samples are of no known kind (format {page.sampleformat}, {page.bitspersample} bits)")
    return page.dtype


def _samples(file: BinaryIO, page: TiffPage) -> SampleArray:
    """Return the samples of a page as [H, W, C], upright; those of fewer than 8 bits as levels of 8."""
    if is_through_rgb(page):
        return rgb_of_page(file, page, None).pixels[..., : channels_of_page(page)[0]]
    bits, dtype = bits_of(page), dtype_of_page(page)
    own_dtype(dtype)
    samples: SampleArray = np.empty(
        (page.imagelength, page.imagewidth, page.samplesperpixel), np.uint8 if bits < 8 else dtype.newbyteorder("=")
    )
    filled = full_range(dtype, bits) if bits < 8 else None
    for top, left, first, segment in segments(page):
        inside = segment[: page.imagelength - top, : page.imagewidth - left]
        shown = inside if filled is None else to_levels(inside, filled)
        rows, columns, channels = inside.shape
        samples[top : top + rows, left : left + columns, first : first + channels] = shown
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        samples = inverted(samples, bits)
    return samples if is_georeferenced(page) else upright(samples, page.tags.valueof(ORIENTATION, 1))


def inverted(samples: SampleArray, bits: int) -> SampleArray:
    if samples.dtype.kind == "f":
        raise ValueError("its least value is white, and its values are floating-point: save it with the least as black")
    held = np.iinfo(samples.dtype)
    low, high = full_range(samples.dtype, max(bits, 8)) if bits <= 16 else (held.min, held.max)
    inverted: SampleArray = samples.dtype.type(low + high) - samples
    return inverted


def _said(samples: SampleArray) -> str:
    height, width, channels = samples.shape
    return f"{width}x{height} pixels of {channels} {samples.dtype}"
