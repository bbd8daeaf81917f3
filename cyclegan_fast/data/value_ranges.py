"""Finds the percentiles of all values of a domain's images, exactly, and without having the images in memory.

Values are counted by their bits, which are put in the order of the values: 16 bits at once, in 65,536 counters. So
integers of 16 bits need one pass over the images, and float32 a second one, over the values around each percentile;
for the least and the greatest value no type does.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cyclegan_fast.data.file_reading import half_of_samples
from cyclegan_fast.images.files import Half
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixel_type import DomainName, PixelType, SampleArray, SampleDtype
from cyclegan_fast.images.samples import Axis, Frames, read_samples
from cyclegan_fast.images.unreadable import UnreadableImage, reading
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.system.progress import progress_bar

_Result = TypeVar("_Result")
_Counters = npt.NDArray[np.int64]
_BINS = 1 << 16
FEW_VALUES = 1 << 12
"""The number of values below which sorting them is faster than clearing and adding 65,536 counters."""


@dataclass(frozen=True)
class DomainFiles:
    """Names the files of a domain, and how their values are read.

    half: only the values of this half of each image count.
    flags_of: the domain of a training whose flags a refusal names, see `read_samples`.
    workers: threads that read files.
    """

    paths: Sequence[Path]
    channels: int
    dtype: SampleDtype
    frames: Frames = "first"
    axis: Axis = 2
    half: Half | None = None
    workers: int = 0
    flags_of: DomainName | None = None
    unreadable: list[UnreadableImage] = field(default_factory=list)

    def values(self, path: Path) -> SampleArray | UnreadableImage:
        """Return all values of a file but those that are NaN, [values], or the error where it cannot be read."""
        low, high = (0, 1) if self.dtype == "float32" else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        try:
            kind = PixelType(self.channels, self.dtype, low, high)
            samples = read_samples(path, kind, frames=self.frames, axis=self.axis, flags_of=self.flags_of).values
            with reading(path):
                parts = samples if self.half is None else [half_of_samples(image, self.half) for image in samples]
                values = np.ravel(parts)
                return values[~np.isnan(values)] if values.dtype.kind == "f" else values
        except UnreadableImage as error:
            return error

    def each(self, function: Callable[[SampleArray], _Result], doing: str) -> Iterator[_Result]:
        """Yield what `function` makes of the values of each file that can be read and has any, computed in threads."""

        def of_file(path: Path) -> _Result | UnreadableImage | None:
            values = self.values(path)
            if isinstance(values, UnreadableImage):
                return values
            return function(values) if values.size else None

        self.unreadable.clear()
        with (
            ThreadPoolExecutor(max(1, self.workers)) as pool,
            closing(ahead(pool, of_file, self.paths, 2 * self.workers)) as results,
        ):
            for result in progress_bar(results, total=len(self.paths), desc=doing, unit=" images", leave=False):
                if isinstance(result, UnreadableImage):
                    self.unreadable.append(result)
                elif result is not None:
                    yield result


def value_range_of(files: DomainFiles, percentiles: Sequence[float], name: str) -> ValueRange:
    """Return two percentiles of all values of the files that can be read; NaN is no value.

    A percentile of p is the least value that p % of all values do not exceed; 0 and 100 are the least and the greatest.

    Args:
        name: that of the domain, for the progress bar.

    Raises ValueError where there are no values, or where both percentiles are one value.
    """
    doing = f"reading the values of {name}"
    shift = 16 if files.dtype == "float32" else 0
    counters, ends = np.zeros(_BINS, np.int64), []
    for least, greatest, bins, counts in files.each(lambda values: _counted(sorting_keys(values), shift), doing):
        counters[bins] += counts
        ends += [least, greatest]
    total = int(counters.sum())
    if not total:
        raise ValueError(str(files.unreadable[0]) if files.unreadable else "they hold no values, NaN alone")
    keys = []
    for percentile in percentiles:
        rank = max(1, math.ceil(Fraction(str(percentile)) / 100 * total))
        if rank in (1, total):
            keys.append(min(ends) if rank == 1 else max(ends))
        elif shift:
            keys.append(_with_lower_bits(files, doing, *_bin_of_rank(counters, rank)))
        else:
            keys.append(_bin_of_rank(counters, rank)[0])
    low, high = (_value_of_key(key, files.dtype) for key in keys)
    if low == high:
        shown = " ".join(f"{percentile:g}" for percentile in percentiles)
        raise ValueError(f"percentiles {shown} of their values are both {low:g}")
    return low, high


def sorting_keys(values: SampleArray) -> SampleArray:
    """Return whole numbers that are in the same order as values: uint16 for integers, and uint32 for float32."""
    if values.dtype == np.float32:
        bits = values.view(np.uint32)
        # Of negative numbers a greater magnitude is less, and they come before the positive ones.
        keys: SampleArray = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        return keys
    if values.dtype == np.int16:
        return values.view(np.uint16) ^ np.uint16(1 << 15)
    return values.astype(np.uint16, copy=False)


def _value_of_key(key: int, dtype: SampleDtype) -> float:
    """Return the value that `sorting_keys` gave a key."""
    if dtype == "float32":
        bits = np.uint32(key)
        bits = bits ^ np.uint32(1 << 31) if key >> 31 else ~bits
        return float(bits.view(np.float32))
    return float(key - (1 << 15) if dtype == "int16" else key)


def _counted(keys: SampleArray, shift: int) -> tuple[int, int, _Counters, _Counters]:
    """Return the least and the greatest key, the bins that keys fall into by their upper bits, and the bins' counts."""
    bins, counts = _counts_of(keys >> shift if shift else keys)
    return int(keys.min()), int(keys.max()), bins, counts


def _counts_of(keys: SampleArray) -> tuple[_Counters, _Counters]:
    """Return which keys of 16 bits there are, and how many of each."""
    if keys.size < FEW_VALUES:
        bins, counts = np.unique(keys, return_counts=True)
        return bins.astype(np.int64), counts
    counters = np.bincount(keys, minlength=_BINS)
    bins = np.flatnonzero(counters)
    return bins, counters[bins]


def _bin_of_rank(counters: _Counters, rank: int) -> tuple[int, int]:
    """Return the bin of the value of a rank, which counts from 1, and its rank among the values of that bin."""
    sums = np.cumsum(counters)
    found = int(np.searchsorted(sums, rank))
    return found, rank - int(sums[found] - counters[found])


def _with_lower_bits(files: DomainFiles, doing: str, upper: int, rank: int) -> int:
    """Return the key of float32 that has the upper bits `upper`, and a rank among those that have them."""
    counters = np.zeros(_BINS, np.int64)

    def counts_below(values: SampleArray) -> tuple[_Counters, _Counters]:
        keys = sorting_keys(values)
        return _counts_of(keys[keys >> 16 == upper] & 0xFFFF)

    for bins, counts in files.each(counts_below, doing):
        counters[bins] += counts
    return (upper << 16) | _bin_of_rank(counters, rank)[0]
