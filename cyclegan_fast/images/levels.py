"""Turns samples of more than 8 bits into the 256 levels of 8 bits, by the range of values that they fill."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.ranges import Range

Level = Annotated[float, Range(-1e300, 1e300)]
"""A sample's value that becomes black or white. The difference of two of them is finite."""
ValueRange = tuple[float, float]
"""The two values that become black and white (levels 0 and 255); values beyond them become black and white, too."""

SIXTEEN_BITS: ValueRange = (0, 65535)
SUGGESTS_A_RANGE = "if they are meant to fill another"
"""Stands in all notes that suggest a range for a domain's images."""
TABLE_BYTES = 2  # integers up to this size are looked up in a table


class Extent(NamedTuple):
    """Holds the least and greatest value of samples of more than 8 bits, and the range that they are taken to fill."""

    low: float
    high: float
    filled: ValueRange


def check_range(values: Sequence[float], name: str = "range") -> None:
    """Raise ValueError unless the values of the option `name` are none, or a low and a high one."""
    if len(values) not in (0, 2):
        raise ValueError(f"{name} has 2 numbers, got {len(values)}")
    if values and not values[0] < values[1]:
        raise ValueError(f"{name} goes from a low to a high value, got {values[0]:g} {values[1]:g}")


def full_range(dtype: np.dtype[Any], bits: int) -> ValueRange:
    """Return the least and the greatest value that samples of `bits` bits can take.

    Integers of more than 16 bits get the range of 16 bits, because programs without a 16-bit type store those there.
    Raises ValueError for floating-point samples.
    """
    if dtype.kind not in "bui":
        raise ValueError("its floating-point values have no known range: give it by --range LOW HIGH")
    if bits > 16:
        return SIXTEEN_BITS
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if dtype.kind == "i" else (0, 2.0**bits - 1)


def extent_of(samples: SampleArray, filled: ValueRange) -> Extent:
    """Return the extent of samples that fill the range `filled`.

    Raises ValueError where a value is no finite number, or where integers of more than 16 bits do not fit the range of
    16.
    """
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("it holds values that are not finite")
    if samples.dtype.itemsize > TABLE_BYTES and filled == SIXTEEN_BITS and not 0 <= low <= high <= SIXTEEN_BITS[1]:
        raise ValueError(f"values from {low:g} to {high:g} do not fit 16 bits: give their range by --range LOW HIGH")
    return Extent(low, high, filled)


def merged(extents: Iterable[Extent | None]) -> Extent | None:
    """Return the extent of several extents together, which fills the widest of their ranges; None where none is."""
    found = [extent for extent in extents if extent is not None]
    if not found:
        return None
    lows, highs, filled = zip(*found, strict=True)
    return Extent(min(lows), max(highs), max(filled, key=lambda span: span[1] - span[0]))


def to_levels(samples: SampleArray, filled: ValueRange) -> Pixels:
    """Return samples as levels, uint8 of the same shape: the range `filled` becomes 0 to 255, rounded."""
    if samples.dtype.kind in "ui" and samples.dtype.itemsize <= TABLE_BYTES:
        unsigned = samples.view(f"u{samples.dtype.itemsize}")
        every = np.arange(256**samples.dtype.itemsize, dtype=unsigned.dtype).view(samples.dtype)
        levels: Pixels = np.take(_scaled(every, filled), unsigned)
        return levels
    return _scaled(samples, filled)


def _scaled(samples: SampleArray, filled: ValueRange) -> Pixels:
    low, high = filled
    scaled = np.clip(samples.astype(np.float64), low, high)
    levels: Pixels = np.rint((scaled - low) * (255 / (high - low))).astype(np.uint8)
    return levels


def over_white(colours: Pixels, alpha: Pixels, *, associated: bool = False) -> Pixels:
    """Lay `colours` [H, W, 1 or 3] of opacity `alpha` [H, W] over white; `associated` ones are multiplied by it."""
    opacity = alpha[..., None].astype(np.uint16)
    own = colours.astype(np.uint16) if associated else (colours * opacity + 127) // 255
    laid: Pixels = np.minimum(own + (255 - opacity), 255).astype(np.uint8)
    return laid


def note_on(extent: Extent | None, where: str, given: ValueRange | None, flag: str = "--range") -> str | None:
    """Return a note for the user on the images of more than 8 bits at `where`; None where there is nothing to note.

    The note says that the images use less than half of their range, as 12 bits in 16 do, or that some of their values
    lie outside the range `given`, by the option `flag`.
    """
    if extent is None:
        return None
    low, high = extent.filled
    found = f"the images of more than 8 bits in {where} hold values from {extent.low:g} to {extent.high:g}"
    if given is not None:
        if low <= extent.low and extent.high <= high:
            return None
        return f"{found}; those beyond {low:g} to {high:g} ({flag}) became black or white"
    if extent.high - extent.low >= (high - low) / 2:
        return None
    black, white = to_levels(np.array([extent.low, extent.high]), extent.filled).tolist()
    return (
        f"{found}, of {low:g} to {high:g}: they become levels {black} to {white} of 255; {SUGGESTS_A_RANGE} "
        f"range, give it, such as {flag} {suggested_range(extent.low, extent.high)}"
    )


def suggested_range(low: float, high: float) -> str:
    """Return the range of whole bits that holds some values as text, or their own where some are negative or broken.

    A range of whole bits is that of 12-bit scans in files of 16, for example.
    """
    if low < 0 or not float(high).is_integer():
        return f"{low:g} {high:g}"
    return f"0 {2 ** int(high).bit_length() - 1}"
