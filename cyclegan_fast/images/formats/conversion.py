"""Converts samples as files hold them to the channels and the type that a domain has, or says why it does not.

Nothing is converted that would lose values without a word: channels are neither dropped nor made up, apart from grey
and colours, and integers are not scaled, except to the 8 bits that any picture is shown with.
"""

from typing import Any, NamedTuple

import numpy as np

from cyclegan_fast.images.formats.stored import StoredSamples, own_dtype
from cyclegan_fast.images.levels import Extent, ValueRange, extent_of, full_range, over_white, to_levels
from cyclegan_fast.images.pixel_type import PixelType, SampleArray, SampleDtype
from cyclegan_fast.images.pixels import Pixels

LUMA = (19595, 38470, 7471)
"""The weights of red, green and blue in grey, of 65536 (ITU-R BT.601), as Pillow has them."""
_MOST_EXACT = 2**24  # of the whole numbers that float32 holds without gaps
_AS_FLOATS = "convert it, or train with --dtype-a or --dtype-b float32"


class Converted(NamedTuple):
    """Holds samples [S, H, W, C] of a domain's type, how many are NaN, and the extent of those that became 8-bit."""

    values: SampleArray
    masked: int | None
    extent: Extent | None


def convert(
    stored: StoredSamples, kind: PixelType, value_range: ValueRange | None, *, is_part: bool = False
) -> Converted:
    """Convert samples of a file to a domain's type.

    Args:
        value_range: the values that become 0 and 255 where samples of more than 8 bits become 8-bit ones; by default
            the least and the greatest that they can hold.
        is_part: whether it is a part of an image, which may have no value at all.

    Raises ValueError, saying what the file has and what would help.
    """
    if kind.dtype == "uint8":
        levels, extent = _to_eight_bits(stored, value_range)
        return Converted(_with_channels(stored, levels, kind), None, extent)
    has = own_dtype(stored.values.dtype)
    if has == "uint8" and kind.dtype != "float32":
        raise ValueError(
            f"its samples are uint8, and those of the other images {kind.dtype}: convert it, or train with --dtype-a "
            "or --dtype-b uint8"
        )
    return _deep(stored, kind, is_part=is_part)


def _deep(stored: StoredSamples, kind: PixelType, *, is_part: bool) -> Converted:
    if kind.dtype != "float32":
        return Converted(_with_channels(stored, to_dtype(stored.values, kind.dtype), kind), None, None)
    values, gaps = stored.values, None
    if stored.place.no_data is not None and own_dtype(values.dtype) != "uint8":
        gaps = values == stored.place.no_data
        values = np.where(gaps, values.dtype.type(0), values)  # it may be beyond what float32 holds
    values = to_dtype(values, kind.dtype)
    if gaps is not None and gaps.any():
        values = np.where(gaps, np.float32(np.nan), values)
    values = _with_channels(stored, values, kind)
    return Converted(values, _counted_gaps(values, is_part=is_part), None)


def _counted_gaps(values: SampleArray, *, is_part: bool) -> int | None:
    """Return how many values are NaN, None for none; raises ValueError for infinite ones."""
    if np.isfinite(values).all():
        return None
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(f"{infinite} of its {values.size} values are infinite: write NaN where nothing was measured")
    gaps = int(np.isnan(values).sum())
    if gaps == values.size and not is_part:
        raise ValueError("all its values are NaN")
    return gaps


def to_dtype(values: SampleArray, dtype: SampleDtype) -> SampleArray:
    """Return the same values in another type; raises ValueError where it does not hold them.

    Floating-point values are rounded to float32. They do not become integers.
    """
    wanted = np.dtype(dtype)
    has = values.dtype
    if has.kind not in "buif":
        own_dtype(has)  # raises
    if has == wanted:
        return values
    if has.kind == "f" and wanted.kind != "f":
        raise ValueError(f"its values are {has}, which do not become {dtype}: {_AS_FLOATS}")
    if has.kind == "b":
        values, has = values.astype(np.uint8) * np.uint8(255), np.dtype(np.uint8)
    if has.kind == "f":
        return _to_float32(values)
    lowest, highest = (-_MOST_EXACT, _MOST_EXACT) if wanted.kind == "f" else _held(wanted)
    if not np.can_cast(has, wanted, "safe"):
        low, high = int(values.min()), int(values.max())
        if low < lowest or high > highest:
            advice = "divide them" if wanted.kind == "f" else _AS_FLOATS
            raise ValueError(f"its values, {has} from {low} to {high}, do not fit {dtype}: {advice}")
    return values.astype(wanted)


def _held(dtype: "np.dtype[Any]") -> tuple[int, int]:
    held = np.iinfo(dtype)
    return int(held.min), int(held.max)


def _to_float32(values: SampleArray) -> SampleArray:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    lost = int((np.isinf(single) & np.isfinite(values)).sum())
    if lost:
        raise ValueError(f"{lost} of its values are beyond what float32 holds, up to {np.abs(values).max():g}")
    return single


def _to_eight_bits(stored: StoredSamples, value_range: ValueRange | None) -> tuple[Pixels, Extent | None]:
    """Return samples as levels; the opacity, if there is one, always fills the range of its type."""
    values = stored.values
    if values.dtype == np.uint8:
        return values, None
    own_dtype(values.dtype)
    is_deep = stored.bits > 8
    filled = value_range if value_range is not None and is_deep else full_range(values.dtype, stored.bits)
    colours = values[..., : values.shape[-1] - stored.has_opacity]
    extent = extent_of(colours, filled) if is_deep else None
    levels = to_levels(colours, filled)
    if stored.has_opacity:
        opaque = (0.0, 1.0) if values.dtype.kind == "f" else full_range(values.dtype, stored.bits)
        levels = np.concatenate([levels, to_levels(values[..., -1:], opaque)], -1)
    return levels, extent


def _with_channels(stored: StoredSamples, values: SampleArray, kind: PixelType) -> SampleArray:
    """Return values with the channels of a domain."""
    has, wanted = values.shape[-1], kind.channels
    if has == wanted:
        return values
    if stored.has_opacity and (has - 1 == wanted or (has - 1, wanted) in ((1, 3), (3, 1))):
        values = _over_white(values, stored, kind)
        has -= 1
    if has == wanted:
        return values
    if (has, wanted) == (1, 3):
        return np.repeat(values, 3, -1)
    if (has, wanted) == (3, 1) and stored.is_colour:
        return luma(values)
    channels = "1 channel" if has == 1 else f"{has} channels"
    raise ValueError(
        f"it has {channels}, and the other images {wanted}: convert it, or train with --channels-a or "
        f"--channels-b {has}"
    )


def luma(colours: SampleArray) -> SampleArray:
    """Return the grey of red, green and blue [..., 3] as [..., 1], in the same type; integers are rounded."""
    if colours.dtype.kind == "f":
        grey = colours @ (np.array(LUMA, colours.dtype) / 65536)
        return np.asarray(grey[..., None], colours.dtype)
    weighted = sum(colours[..., place].astype(np.int64) * weight for place, weight in enumerate(LUMA))
    return np.asarray((weighted + 0x8000) >> 16, colours.dtype)[..., None]


def _over_white(values: SampleArray, stored: StoredSamples, kind: PixelType) -> SampleArray:
    if values.dtype == np.uint8:
        associated = stored.is_associated
        planes = [over_white(plane[..., :-1], plane[..., -1], associated=associated) for plane in values]
        return np.stack(planes)
    if values.dtype.kind == "f":
        white, opacity = kind.high, values[..., -1:].astype(np.float64)
    else:
        white = full_range(stored.values.dtype, stored.bits)[1]
        opacity = values[..., -1:] / white
    own = values[..., :-1] if stored.is_associated else values[..., :-1] * opacity
    laid = own + white * (1 - opacity)
    return np.asarray(laid if values.dtype.kind == "f" else np.rint(laid).clip(None, white), values.dtype)
