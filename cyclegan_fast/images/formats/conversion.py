"""Converts samples as files hold them to the channels and the type that a domain has, or says why it does not.

Nothing is converted that would lose values without a word: channels are neither dropped nor made up, apart from grey
and colours, and integers are not scaled, except to the 8 bits that any picture is shown with.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.formats.stored import StoredSamples, own_dtype
from cyclegan_fast.images.levels import Extent, ValueRange, extent_of, full_range, over_white, to_levels
from cyclegan_fast.images.pixel_type import DomainName, PixelType, SampleArray, SampleDtype
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.words import counted

LUMA = (19595, 38470, 7471)
"""The weights of red, green and blue in grey, of 65536 (ITU-R BT.601), as Pillow has them."""
_MOST_EXACT = 2**24  # of the whole numbers that float32 holds without gaps


class Converted(NamedTuple):
    """Holds samples [S, H, W, C] of a domain's type, how many are NaN, and the extent of those that became 8-bit."""

    values: SampleArray
    masked: int | None
    extent: Extent | None


def convert(
    stored: StoredSamples,
    kind: PixelType,
    value_range: ValueRange | None,
    flags_of: DomainName | None = None,
    *,
    is_part: bool = False,
) -> Converted:
    """Convert samples of a file to a domain's type.

    Args:
        value_range: the values that become 0 and 255 where samples of more than 8 bits become 8-bit ones; by default
            the least and the greatest that they can hold.
        flags_of: the domain of a training, whose flags say its type and may say another; None where a run has it.
        is_part: whether it is a part of an image, which may have no value at all.

    Raises ValueError, saying what the file has and what would help.
    """
    wanted = _Wanted(kind, flags_of)
    if kind.dtype == "uint8":
        levels, extent = _to_eight_bits(stored, value_range)
        return Converted(_with_channels(stored, levels, wanted), None, extent)
    if own_dtype(stored.values.dtype) == "uint8" and kind.dtype != "float32":
        raise wanted.other_type("uint8", "uint8")
    if kind.dtype != "float32":
        return Converted(_with_channels(stored, _to_dtype(stored.values, wanted), wanted), None, None)
    values, gaps = stored.values, _gaps(stored)
    if gaps is not None:
        values = np.where(gaps, values.dtype.type(0), values)  # what stands there may be beyond what float32 holds
    values = _to_dtype(values, wanted)
    if gaps is not None:
        values = np.where(gaps, np.float32(np.nan), values)
    values = _with_channels(stored, values, wanted)
    return Converted(values, counted_gaps(values, is_part=is_part), None)


class _Wanted(NamedTuple):
    """Holds the type of a domain, and whose flags say it, which a refusal names."""

    kind: PixelType
    flags_of: DomainName | None

    def other_type(self, has: str, flag: SampleDtype) -> ValueError:
        """Return the error for samples of another type, for which `--dtype-a` had to be `flag`."""
        if self.flags_of is None:
            return ValueError(f"its samples are {has}, and {self._as_the_run}")
        return ValueError(
            f"its samples are {has}, and those of the other images {self.kind.dtype}: convert it, or give "
            f"--dtype-{self.flags_of.lower()} {flag}"
        )

    def other_values(self, has: str) -> ValueError:
        """Return the error for whole numbers that the type does not hold."""
        has = f"its values, {has}, do not fit {self.kind.dtype}"
        if self.kind.dtype == "float32":
            return ValueError(f"{has}: divide them")
        if self.flags_of is None:
            return ValueError(f"{has}, and {self._as_the_run}")
        return ValueError(f"{has}: give --dtype-{self.flags_of.lower()} float32")

    def other_channels(self, has: int, *, has_opacity: bool) -> ValueError:
        """Return the error for another number of channels, without the one of opacity."""
        said = f"it has {counted(has, 'channel')}{' and opacity' if has_opacity else ''}"
        if self.flags_of is None:
            return ValueError(f"{said}, and {self._as_the_run}")
        return ValueError(
            f"{said}, and the other images {self.kind.channels}: convert it, or give "
            f"--channels-{self.flags_of.lower()} {has}"
        )

    @property
    def _as_the_run(self) -> str:
        return f"the run takes {counted(self.kind.channels, 'channel')} of {self.kind.dtype}: convert it"


def _gaps(stored: StoredSamples) -> npt.NDArray[np.bool_] | None:
    """Return where samples have the value that the file has for no data; None where none does."""
    values, no_data = stored.values, stored.place.no_data
    if no_data is None:
        return None
    with np.errstate(over="ignore"):  # a value that half precision does not hold
        gaps = np.asarray(values == no_data)
    if stored.has_opacity:
        gaps[..., -1] = False
    return gaps if gaps.any() else None


def counted_gaps(values: SampleArray, *, is_part: bool = False) -> int | None:
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


def _to_dtype(values: SampleArray, wanted: _Wanted) -> SampleArray:
    """Return the same values in the type of a domain; raises ValueError where that does not hold them.

    Floating-point values are rounded to float32. They do not become integers.
    """
    has, kind = values.dtype, wanted.kind.as_numpy
    own_dtype(has)  # raises for what is no number
    if has == kind:
        return values
    if has.kind == "f":
        if kind.kind != "f":
            raise wanted.other_type(str(has), "float32")
        return _to_float32(values)
    if not np.can_cast(has, kind, "safe"):
        lowest, highest = (-_MOST_EXACT, _MOST_EXACT) if kind.kind == "f" else _held(kind)
        low, high = int(values.min()), int(values.max())
        if low < lowest or high > highest:
            raise wanted.other_values(f"{has} from {low} to {high}")
    return values.astype(kind)


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


def _with_channels(stored: StoredSamples, values: SampleArray, wanted: _Wanted) -> SampleArray:
    """Return values with the channels of a domain; opacity is none of them, and is laid over white."""
    channels = values.shape[-1] - stored.has_opacity
    has_them = channels == wanted.kind.channels
    is_repeated = (channels, wanted.kind.channels) == (1, 3)
    is_greyed = (channels, wanted.kind.channels) == (3, 1) and stored.is_colour
    if not (has_them or is_repeated or is_greyed):
        raise wanted.other_channels(channels, has_opacity=stored.has_opacity)
    if stored.has_opacity:
        values = _over_white(values, stored)
    if is_repeated:
        return np.repeat(values, 3, -1)
    return luma(values) if is_greyed else values


def luma(colours: SampleArray) -> SampleArray:
    """Return the grey of red, green and blue [..., 3] as [..., 1], in the same type; integers are rounded."""
    if colours.dtype.kind == "f":
        grey = colours @ (np.array(LUMA, colours.dtype) / 65536)
        return np.asarray(grey[..., None], colours.dtype)
    weighted = sum(colours[..., place].astype(np.int64) * weight for place, weight in enumerate(LUMA))
    return np.asarray((weighted + 0x8000) >> 16, colours.dtype)[..., None]


def _over_white(values: SampleArray, stored: StoredSamples) -> SampleArray:
    """Lay samples over white, the greatest value that the file's type holds. The last channel is their opacity."""
    if values.dtype == np.uint8:
        associated = stored.is_associated
        planes = [over_white(plane[..., :-1], plane[..., -1], associated=associated) for plane in values]
        return np.stack(planes)
    if stored.values.dtype.kind == "f":
        raise ValueError(
            "it has opacity, and of floating-point values none is known to be white: lay it over a colour, and save it "
            "without opacity"
        )
    white = full_range(stored.values.dtype, stored.bits)[1]
    least, most = float(values[..., -1].min()), float(values[..., -1].max())
    if least < 0 or most > white:
        raise ValueError(f"its opacity has values from {least:g} to {most:g}, and those of opacity are 0 to {white:g}")
    opacity = values[..., -1:] / white
    own = values[..., :-1] if stored.is_associated else values[..., :-1] * opacity
    laid = own + white * (1 - opacity)
    return np.asarray(laid if values.dtype.kind == "f" else np.rint(laid).clip(None, white), values.dtype)
