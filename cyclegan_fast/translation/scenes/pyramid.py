"""Writes an image of any size as a tiled BigTIFF with a pyramid, row by row as it comes.

The levels stand in SubIFDs, as OME-TIFF has them (and QuPath, Bio-Formats, GDAL, libvips read them). Each has half the
sides of the one before, down to one tile; a pixel is the mean of four, and integers are rounded. A level waits in a
scratch file until the one before is written, since a TIFF is written from its begin to its end: a third of the
translation's bytes, uncompressed.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import tifffile

from cyclegan_fast.images.formats.stored import FilePlace
from cyclegan_fast.images.formats.tiff_samples import options_of_page
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.translation.strips.scratch_file import ScratchFile

TILE = 256


def write_pyramid(
    file: IO[bytes],
    strips: Iterable[SampleArray],
    size: tuple[int, int],
    kind: PixelType,
    place: FilePlace,
    scratch: Path,
    *,
    levels: bool = True,
    has_no_data: bool = False,
) -> None:
    """Write strips [rows, W, C] of `kind` from top to bottom.

    Args:
        file: is empty, and open to be written.
        size: the height and width.
        place: that of the source, whose tags are kept.
        scratch: the folder for the levels that wait.
        levels: whether there is a pyramid.
        has_no_data: whether the place's value for no data stands for that in the strips. Its tag is kept then alone:
            NaN stays as it is, since a value that comes later may be equal to that one.

    Raises OSError where the disk takes no more, and UserError where that of `scratch` does not.
    """
    sizes = sizes_of_levels(size) if levels else [size]
    no_data = place.no_data if has_no_data else None
    with tifffile.TiffWriter(file, bigtiff=True) as tiff, ExitStack() as open_files:
        options = options_of_page(kind, place, has_no_data=has_no_data)
        for level, (height, width) in enumerate(sizes):
            waiting = None
            if level + 1 < len(sizes):
                row_bytes = sizes[level + 1][1] * kind.channels * kind.as_numpy.itemsize
                waiting = open_files.enter_context(ScratchFile(scratch, row_bytes))
            passing = _halved_aside(strips, waiting, no_data)
            tiff.write(
                _tiles(passing, width, kind),
                shape=(height, width, kind.channels) if kind.channels > 1 else (height, width),
                dtype=kind.as_numpy,
                tile=(TILE, TILE),
                subifds=len(sizes) - 1 if level == 0 else 0,
                subfiletype=1 if level else 0,
                maxworkers=1,
                **(options if level == 0 else options | {"extratags": []}),
            )
            for _ in passing:  # tifffile does not ask whether the last tile was the last
                raise AssertionError(f"level {level} has more rows than its size")
            if waiting is not None:
                strips = _rows_of(waiting, sizes[level + 1], kind)


def sizes_of_levels(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the height and width of each level, down to the first one that fits a tile."""
    sizes = [size]
    while max(sizes[-1]) > TILE and min(sizes[-1]) > 1:
        height, width = sizes[-1]
        sizes.append((height // 2, width // 2))
    return sizes


def half_sized(samples: SampleArray, no_data: float | None = None) -> SampleArray:
    """Return [2h, 2w, C] at half its sides, the mean of four pixels each; integers are rounded, halves upwards.

    Where one of four has the value for no data in all channels, so has what becomes of them.
    """
    wide: SampleArray = samples.astype(np.float32 if samples.dtype.kind == "f" else np.int32)
    total: SampleArray = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    halved = np.asarray(total / 4 if samples.dtype.kind == "f" else (total + 2) >> 2, samples.dtype)
    if no_data is None:
        return halved
    empty = (samples == no_data).all(-1)
    of_four = empty[::2, ::2] | empty[1::2, ::2] | empty[::2, 1::2] | empty[1::2, 1::2]
    return np.where(of_four[..., None], samples.dtype.type(no_data), halved)


def _halved_aside(
    strips: Iterable[SampleArray], waiting: ScratchFile | None, no_data: float | None
) -> Iterator[SampleArray]:
    """Yield strips as they come, and keep them at half their sides; a last odd row or column has no place there."""
    rest: SampleArray | None = None
    for strip in strips:
        yield strip
        if waiting is None:
            continue
        rows = strip if rest is None else np.concatenate((rest, strip))
        even = len(rows) // 2 * 2
        rest = rows[even:].copy() if len(rows) > even else None
        if even:
            for row in half_sized(rows[:even, : rows.shape[1] // 2 * 2], no_data):
                waiting.write(np.ascontiguousarray(row).reshape(-1).view(np.uint8))


def _rows_of(waiting: ScratchFile, size: tuple[int, int], kind: PixelType) -> Iterator[SampleArray]:
    """Yield a level that was kept, a row of tiles at once."""
    height, width = size
    for top in range(0, height, TILE):
        band = np.empty((min(TILE, height - top), width, kind.channels), kind.as_numpy)
        for index, row in enumerate(band.reshape(len(band), -1).view(np.uint8), top):
            waiting.read(index, row)
        yield band


def _tiles(strips: Iterable[SampleArray], width: int, kind: PixelType) -> Iterator[SampleArray]:
    """Yield tiles from left to right and from top to bottom, zero beyond the edges."""
    across = -(-width // TILE)
    band = np.zeros((TILE, across * TILE, kind.channels), kind.as_numpy)
    filled = 0
    for strip in strips:
        samples = strip
        while len(samples):
            taken = min(TILE - filled, len(samples))
            band[filled : filled + taken, :width] = samples[:taken]
            samples, filled = samples[taken:], filled + taken
            if filled == TILE:
                yield from _cut(band)
                filled = 0
    if filled:
        band[filled:] = 0
        yield from _cut(band)


def _cut(band: SampleArray) -> Iterator[SampleArray]:
    for left in range(0, band.shape[1], TILE):
        tile = band[:, left : left + TILE]
        yield np.ascontiguousarray(tile if tile.shape[2] > 1 else tile[..., 0])
