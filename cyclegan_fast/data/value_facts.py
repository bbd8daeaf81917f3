"""Counts what a user should know of the values of images: those beyond the range, NaN, and images of one value."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cyclegan_fast.images.levels import SUGGESTS_A_RANGE, suggested_range
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted, percent


@dataclass(frozen=True)
class ValueFacts:
    """Says what the values of an image are.

    low, high: the least and the greatest value, in the image's units.
    count: how many values there are, with those that are NaN.
    beyond: how many lie beyond the range of the domain.
    missing: how many are NaN, as floating-point images have where there is no data.
    """

    low: float
    high: float
    count: int
    beyond: int
    missing: int

    @staticmethod
    def of(samples: SampleArray, kind: PixelType) -> "ValueFacts":
        """Look at the samples of an image, [H, W, C], not all of them NaN."""
        missing = int(np.isnan(samples).sum()) if samples.dtype.kind == "f" else 0
        low, high = (np.nanmin, np.nanmax) if missing else (np.min, np.max)
        least, greatest = float(low(samples)), float(high(samples))
        beyond = 0
        if not kind.low <= least <= greatest <= kind.high:
            beyond = int(np.count_nonzero(samples < kind.low) + np.count_nonzero(samples > kind.high))
        return ValueFacts(least, greatest, samples.size, beyond, missing)

    @property
    def is_constant(self) -> bool:
        """Tells whether all values that are not missing are equal."""
        return self.low == self.high


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
    if not facts:
        return []
    low, high = min(each.low for each in facts.values()), max(each.high for each in facts.values())
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
            f"the images in {where} hold values from {low:g} to {high:g}, less than half of their range, {ends}; "
            f"{SUGGESTS_A_RANGE} one, give it, such as {flag} {suggested_range(low, high)}"
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
    return f"{part} of {whole} values ({percent(part, whole)})"
