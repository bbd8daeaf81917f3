"""Reads regions of TIFF, in tiles or strips, and of its pyramids: SubIFDs as of OME-TIFF, reduced pages, and slides."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, PREDICTOR, TiffFile, TiffPage

from cyclegan_fast.images.formats.georeference import is_georeferenced
from cyclegan_fast.images.formats.stored import own_dtype
from cyclegan_fast.images.formats.tiff_samples import BANDS, channels_of_page, dtype_of_page, inverted, place_of_page
from cyclegan_fast.images.levels import full_range, to_levels
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.scenes.resolution import microns_of_tiff
from cyclegan_fast.images.scenes.scene import CACHE_BYTES, SceneLayout, TiledScene
from cyclegan_fast.images.tiff import ASSOCIATED, ORIENTATION
from cyclegan_fast.images.tiff_segments import SegmentDecoder, bits_of, check_claims, check_compression, encoded_segment
from cyclegan_fast.images.unreadable import BoundedFile, parsing

MOST_SEGMENT_BYTES = 256 * 2**20
"""Limits a strip or tile, decoded; a file of larger ones is not read by regions."""
_REDUCED, _NEW_SUBFILE_TYPE = 1, 254
_ROWS_AT_ONCE = 64  # of a level that is neither compressed nor tiled
_OF_JPEG = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)


class NotByRegions(ValueError):
    """Says why no regions are read of a TIFF, which may be read as a whole."""


class TiffScene(TiledScene):
    """Reads regions of the first image of a TIFF file, and of the smaller copies of it.

    Raises NotByRegions where it is not known how to read regions right, and ValueError where a level is cut off.
    """

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self._file = BoundedFile(path)
        try:
            with parsing():
                self._tiff = TiffFile(self._file)
                pages = _pages_of_levels(self._tiff)
            for level, page in enumerate(pages):
                _check_level(page, level)
            self._levels = [_Level(page) for page in pages]
            layout = replace(
                _layout(pages),
                images=_image_count(self._tiff, pages),
                microns_per_pixel=microns_of_tiff(self._tiff),
            )
            super().__init__(path, layout, tuple(each.tile_size for each in self._levels), cache_bytes)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()
        self._file.close()

    @property
    def is_tiled(self) -> bool:
        """Tell whether the largest level is stored in tiles."""
        return bool(self._levels[0].page.is_tiled)

    def _tile(self, level: int, row: int, column: int) -> SampleArray:
        return self._levels[level].tile(row, column)


def _pages_of_levels(tiff: TiffFile) -> list[TiffPage]:
    """Return the first page and the smaller copies of it, from the largest to the smallest."""
    first = tiff.pages.first
    found = [first]
    copies = [_whole(page) for page in first.pages or []] if first.subifds else []
    if not copies and len(tiff.pages) > 1:
        others = [_whole(tiff.pages[index]) for index in range(1, len(tiff.pages))]
        copies = [page for page in others if _is_reduced(page) or (tiff.is_svs and page.is_tiled)]
    for page in copies:
        if _is_copy(page, found[-1]):
            found.append(page)
    return found


def _image_count(tiff: TiffFile, levels: list[TiffPage]) -> int:
    """Return how many images a file holds; the thumbnail and the label beside a slide are none."""
    if len(tiff.pages) == 1 or tiff.is_svs:
        return 1
    found = {page.index for page in levels}
    others = (_whole(tiff.pages[index]) for index in range(1, len(tiff.pages)))
    return 1 + sum(not _is_reduced(page) and page.index not in found for page in others)


def _whole(page: Any) -> TiffPage:
    whole: TiffPage = page if isinstance(page, TiffPage) else page.aspage()
    return whole


def _is_reduced(page: TiffPage) -> bool:
    return bool(page.tags.valueof(_NEW_SUBFILE_TYPE, 0) & _REDUCED)


def _is_copy(page: TiffPage, larger: TiffPage) -> bool:
    """Tell whether a page has the samples of a larger one, and its sides in the same ratio, up to rounding."""
    if (page.samplesperpixel, page.dtype) != (larger.samplesperpixel, larger.dtype):
        return False
    if not (0 < page.imagelength <= larger.imagelength and 0 < page.imagewidth < larger.imagewidth):
        return False
    expected = larger.imagelength * page.imagewidth / larger.imagewidth
    return abs(page.imagelength - expected) <= 1 + larger.imagelength / larger.imagewidth


def _check_level(page: TiffPage, level: int) -> None:
    """Raise ValueError where a page is not read by regions, or not whole."""
    if not page.imagewidth or not page.imagelength or page.imagedepth != 1:
        raise ValueError(f"it is no flat image: {page.imagewidth}x{page.imagelength} pixels, {page.imagedepth} deep")
    check_claims(page)
    own_dtype(dtype_of_page(page))
    is_jpeg = page.compression == COMPRESSION.JPEG
    if page.photometric not in (_OF_JPEG if is_jpeg else BANDS):
        kind = getattr(page.photometric, "name", page.photometric)
        raise NotByRegions(f"regions of its kind of colour, {kind}, are not read: save it as RGB")
    if is_jpeg and (bits_of(page) != 8 or (page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1)):
        raise NotByRegions("regions of JPEG of more than 8 bits, or of one channel after another, are not read")
    if page.tags.valueof(ORIENTATION, 1) != 1 and not is_georeferenced(page):
        raise NotByRegions("regions of an image that is stored turned are not read: save it upright")
    if not is_jpeg:
        check_compression(page)
    expected = int(np.prod(page.chunked))
    ends = np.add(page.dataoffsets[:expected], page.databytecounts[:expected])
    counts = np.asarray(page.databytecounts[:expected])
    there = int(((ends <= page.parent.filehandle.size) & (counts > 0)).sum())
    if there < expected:
        size = f"{page.imagewidth}x{page.imagelength}"
        kind = "tiles" if page.is_tiled else "strips"
        raise ValueError(f"it is cut off: {there} of the {expected} {kind} of its level {level}, {size}, are there")


def _layout(pages: list[TiffPage]) -> SceneLayout:
    page = pages[0]
    levels = tuple((each.imagelength, each.imagewidth) for each in pages)
    if page.compression == COMPRESSION.JPEG:
        return SceneLayout(levels, page.samplesperpixel, np.dtype(np.uint8), 8, page.samplesperpixel == 3)
    channels, is_colour, opacity = channels_of_page(page)
    bits = bits_of(page)
    dtype = np.dtype(np.uint8) if bits < 8 else dtype_of_page(page).newbyteorder("=")
    is_associated = opacity == ASSOCIATED
    return SceneLayout(
        levels,
        channels,
        dtype,
        max(bits, 8) if dtype == np.uint8 else bits,
        is_colour,
        opacity is not None,
        is_associated,
        place_of_page(page),
    )


class _Level:
    """Decodes the tiles of one page, or its strips, as tiles of the page's width."""

    def __init__(self, page: TiffPage) -> None:
        self.page = page
        self._bits, self._dtype = bits_of(page), dtype_of_page(page)
        self._filled = full_range(self._dtype, self._bits) if self._bits < 8 else None
        self._is_plain = self._has_plain_rows()
        self._decoder = None if self._is_plain or page.compression == COMPRESSION.JPEG else SegmentDecoder(page)
        if page.is_tiled:
            self.tile_size = (page.tilelength, page.tilewidth)
        else:
            rows = min(page.rowsperstrip or page.imagelength, page.imagelength)
            self.tile_size = (_ROWS_AT_ONCE if self._is_plain else rows, page.imagewidth)
        rows, columns = self.tile_size
        if rows * columns * page.samplesperpixel * self._bits // 8 > MOST_SEGMENT_BYTES:
            raise NotByRegions(
                f"its strips or tiles, {columns}x{rows}, are too large to read regions: save it in smaller tiles"
            )

    def tile(self, row: int, column: int) -> SampleArray:
        """Return the tile in that row and column of tiles, [rows, columns, C]."""
        tile = self._plain_rows(row) if self._is_plain else self._decoded(row, column)
        if self._filled is not None:
            tile = to_levels(tile, self._filled)
        if self.page.photometric == PHOTOMETRIC.MINISWHITE:
            tile = inverted(tile, self._bits)
        return tile

    def _has_plain_rows(self) -> bool:
        """Tell whether rows lie in the file as in memory, one behind the other."""
        page = self.page
        return bool(
            not page.is_tiled
            and page.compression == COMPRESSION.NONE
            and page.is_contiguous
            and page.fillorder == 1
            and page.predictor == PREDICTOR.NONE
            and (page.planarconfig == PLANARCONFIG.CONTIG or page.samplesperpixel == 1)
            and self._bits in (8, 16, 32, 64)
        )

    def _plain_rows(self, row: int) -> SampleArray:
        page = self.page
        first = row * _ROWS_AT_ONCE
        rows = min(_ROWS_AT_ONCE, page.imagelength - first)
        row_bytes = page.imagewidth * page.samplesperpixel * self._bits // 8
        page.parent.filehandle.seek(page.dataoffsets[0] + first * row_bytes)
        content = page.parent.filehandle.read(rows * row_bytes)
        if len(content) < rows * row_bytes:
            raise ValueError("it is cut off")
        stored = np.frombuffer(content, self._dtype.newbyteorder(page.parent.byteorder))
        return stored.reshape(rows, page.imagewidth, page.samplesperpixel)

    def _decoded(self, row: int, column: int) -> SampleArray:
        page = self.page
        down, across = (-(-side // size) for side, size in zip(self._sides(), self.tile_size, strict=True))
        index = row * across + column
        if self._decoder is None:
            return _jpeg(encoded_segment(page, index), page)
        if page.planarconfig == PLANARCONFIG.CONTIG or page.samplesperpixel == 1:
            return self._decoder(index)[3]
        planes = [self._decoder(plane * down * across + index)[3] for plane in range(page.samplesperpixel)]
        return np.concatenate(planes, -1)

    def _sides(self) -> tuple[int, int]:
        return self.page.imagelength, self.page.imagewidth


def _jpeg(encoded: bytes, page: TiffPage) -> SampleArray:
    """Return a strip or tile that is compressed as JPEG, whose tables may stand apart (TIFF Technical Note 2).

    An Adobe marker tells the decoder whether the three components are colours or YCbCr, which it would guess otherwise.
    """
    transform = int(page.photometric == PHOTOMETRIC.YCBCR)
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    tables = page.jpegtables[2:-2] if page.jpegtables else b""
    whole = encoded[:2] + (marker if page.samplesperpixel == 3 else b"") + tables + encoded[2:]
    with Image.open(io.BytesIO(whole), formats=["JPEG"]) as image:
        samples: SampleArray = np.asarray(image)
    if samples.shape[2:] != ((page.samplesperpixel,) if page.samplesperpixel > 1 else ()):
        raise ValueError(f"a tile has {samples.shape[2:]} channels, where {page.samplesperpixel} are expected")
    return samples.reshape(*samples.shape[:2], page.samplesperpixel)
