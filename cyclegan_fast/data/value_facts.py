"""Counts what a user should know of the values of a domain's images: beyond its range, without a value, or all equal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cyclegan_fast.images.levels import suggested_range
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted


@dataclass(frozen=True)
class ValueFacts:
    """Says what the values of an image are.

    low, high: the least and the greatest value, in the image's units; None where there is no value at all.
    count: how many values there are, with those that are NaN.
    beyond: how many lie beyond the range of the domain.
    missing: how many are NaN, as floating-point images have where there is no data.
    """

    low: float | None
    high: float | None
    count: int
    beyond: int
    missing: int

    @staticmethod
    def of(samples: SampleArray, kind: PixelType) -> "ValueFacts":
        """Look at the samples of an image, [H, W, C]. Raises ValueError where a value is infinite."""
        if samples.dtype.kind == "f":
            return _of_floating_point(samples, kind)
        low, high = float(samples.min()), float(samples.max())
        return ValueFacts(low, high, samples.size, _count_beyond(samples, low, high, kind), 0)

    @property
    def is_constant(self) -> bool:
        """Tells whether all values are equal, or missing."""
        return self.low == self.high


def _of_floating_point(samples: SampleArray, kind: PixelType) -> ValueFacts:
    missing = int(np.isnan(samples).sum())
    if missing == samples.size:
        return ValueFacts(None, None, samples.size, 0, missing)
    low, high = float(np.nanmin(samples)), float(np.nanmax(samples))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{counted(int(np.isinf(samples).sum()), 'value')} of {samples.size} are infinite")
    return ValueFacts(low, high, samples.size, _count_beyond(samples, low, high, kind), missing)


def _count_beyond(samples: SampleArray, low: float, high: float, kind: PixelType) -> int:
    if kind.low <= low and high <= kind.high:
        return 0
    return int(np.count_nonzero(samples < kind.low) + np.count_nonzero(samples > kind.high))


def without_missing(samples: SampleArray, facts: ValueFacts, kind: PixelType) -> SampleArray:
    """Return samples with the low end of the range where they are NaN."""
    return np.nan_to_num(samples, nan=kind.low) if facts.missing else samples


def notes_on_values(facts: Mapping[str, ValueFacts], kind: PixelType, where: str, flag: str) -> list[str]:
    """Return lines for the user on the values of a domain's images.

    Args:
        facts: those of each image, by its name.
        where: the folder of the images.
        flag: the option that gives the domain's range, such as "--range-a".

    Raises UserError where no value of any image lies in the range: it must be that of other images.
    """
    low, high = _extremes(facts.values())
    if low is None or high is None:
        return [f"all values of the images in {where} are NaN, which stands for no data"] if facts else []
    ends = f"{kind.low:g} to {kind.high:g}"
    if high < kind.low or low > kind.high:
        raise UserError(
            f"no value of the images in {where} lies in their range, {ends}: they are {low:g} to {high:g}; give that "
            f"range by {flag}"
        )
    notes = []
    values, of_images = sum(each.count for each in facts.values()), f"of {counted(len(facts), 'image')} in {where}"
    beyond = [each.beyond for each in facts.values() if each.beyond]
    if beyond:
        notes.append(
            f"{_share(sum(beyond), values)} in {len(beyond)} {of_images} lie beyond {ends} ({flag}) and become its "
            f"ends; the images hold {low:g} to {high:g}"
        )
    elif kind.dtype != "uint8" and high - low < (kind.high - kind.low) / 2:
        notes.append(
            f"the images in {where} hold values from {low:g} to {high:g}, less than half of their range, {ends}; if "
            f"they are meant to fill another one, give it, such as {flag} {suggested_range(low, high)}"
        )
    missing = {name: each.missing for name, each in facts.items() if each.missing}
    if missing:
        notes.append(
            f"{_share(sum(missing.values()), values)} in {len(missing)} {of_images} are NaN and become {kind.low:g}, "
            f"the low end of the range, such as in {next(iter(missing))} (--strict refuses such files)"
        )
    constant = [name for name, each in facts.items() if each.is_constant]
    if constant:
        hold = "holds" if len(constant) == 1 else "hold"
        notes.append(f"{len(constant)} {of_images} {hold} one value only, such as {constant[0]}")
    return notes


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} values ({100 * part / whole:.2g} %)"


def _extremes(facts: Iterable[ValueFacts]) -> tuple[float | None, float | None]:
    known = [(each.low, each.high) for each in facts if each.low is not None and each.high is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else (None, None)
