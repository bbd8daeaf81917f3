"""Gathers what a user should know of the images of a translation, and writes a line on each kind of it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cyclegan_fast.data.value_facts import ValueFacts
from cyclegan_fast.images.levels import Extent, merged, note_on
from cyclegan_fast.images.pages import note_on_pages
from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.system.words import counted, percent
from cyclegan_fast.translation.plan import Job
from cyclegan_fast.translation.prepared import Reading


class Remarkable(Protocol):
    """Has what is remarked of an image that was translated."""

    @property
    def job(self) -> Job: ...

    @property
    def extent(self) -> Extent | None: ...

    @property
    def facts(self) -> ValueFacts | None: ...

    @property
    def is_of_one_colour(self) -> bool: ...


class Remarks:
    """Gathers remarks on images that were read by `reading` and translated to samples of `target`.

    `pages` has the files of several pages of which the first is taken, with their number.
    """

    def __init__(self, reading: Reading, target: PixelType) -> None:
        self.pages: dict[str, int] = {}
        self._reading = reading
        self._target = target
        self._one_colour: list[Path] = []
        self._extents: dict[Path, Extent] = {}
        self._facts: list[ValueFacts] = []

    def add(self, image: Remarkable) -> None:
        """Take note of an image that was translated."""
        if image.is_of_one_colour:
            self._one_colour.append(image.job.source)
        if image.extent:
            self._extents[image.job.source] = image.extent
        if image.facts:
            self._facts.append(image.facts)

    def lines(self) -> list[str]:
        """Return a line for each kind of remark."""
        return [
            *note_on_pages(self.pages),
            *self._on_values(),
            *on_beyond(self._facts, self._reading.source),
            *on_missing(self._facts, self._reading.source, self._target),
            *([on_one_colour(self._one_colour)] if self._one_colour else []),
        ]

    def _on_values(self) -> list[str]:
        """Write the remark on the images of more than 8 bits that become 8 bits: one for all of them together."""
        if not self._extents:
            return []
        folder = os.path.commonpath([path.absolute().parent for path in self._extents])
        note = note_on(merged(self._extents.values()), folder, self._reading.value_range)
        return [note] if note else []


def on_one_colour(paths: Sequence[Path]) -> str:
    """Write the remark on images of one colour, whose rounding noise a norm divides by sqrt(eps)."""
    some = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
    subject = "1 image is" if len(paths) == 1 else f"{len(paths)} images are"
    return (
        f"{subject} of one colour ({some}): what a generator makes of that is rounding noise, and differs from one "
        "computer to another"
    )


def on_beyond(facts: Sequence[ValueFacts], source: PixelType) -> list[str]:
    """Write the remark on images with values beyond the range of `source`; none where there are none."""
    found = [each for each in facts if each.beyond]
    if not found:
        return []
    share = _percent(sum(each.beyond for each in found), found)
    return [
        f"{_some(found, facts)} values beyond {source.low:g} to {source.high:g}, {share} of all that "
        f"{'it holds' if len(found) == 1 else 'they hold'}: these became the ends of that range (--range LOW HIGH "
        "gives another)"
    ]


def on_missing(facts: Sequence[ValueFacts], source: PixelType, target: PixelType) -> list[str]:
    """Write the remark on images with NaN, where pixels have no value; none where there are none."""
    found = [each for each in facts if each.missing]
    if not found:
        return []
    share = _percent(sum(each.missing for each in found), found)
    written = (
        "and are NaN in the translation, too" if target.dtype == "float32" else f"which {target.dtype} does not say"
    )
    return [
        f"{_some(found, facts)} NaN, {share} of all values: these pixels were translated as {source.low:g}, {written}"
    ]


def _some(found: Sequence[ValueFacts], facts: Sequence[ValueFacts]) -> str:
    return f"{len(found)} of {counted(len(facts), 'image')} {'holds' if len(found) == 1 else 'hold'}"


def _percent(part: int, whole: Sequence[ValueFacts]) -> str:
    return percent(part, sum(each.count for each in whole))
