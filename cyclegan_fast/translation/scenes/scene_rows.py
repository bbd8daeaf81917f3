"""Gives the rows of a scene to a network: converted, padded, and with what a user should know of their values."""

from dataclasses import replace

import numpy as np

from cyclegan_fast.conventions import padded_side
from cyclegan_fast.data.value_facts import ValueFacts
from cyclegan_fast.images.levels import Extent, ValueRange, merged
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.scenes.scene import Scene
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.translation.plan import Job
from cyclegan_fast.translation.prepared import Mask, fill_missing

_LOOK_ROWS = 256


class SceneRows:
    """Gives rows of a scene as samples of `source`, continued by reflection to sides that a generator takes.

    Args:
        job: whose source the scene is.
        value_range: the values of samples of more than 8 bits that become black and white in 8 bits.
        multiple: what the sides must be multiples of.
    """

    def __init__(
        self, scene: Scene, job: Job, source: PixelType, value_range: ValueRange | None, multiple: int
    ) -> None:
        self.job = job
        self.height, self.width = scene.levels[0]
        self._scene, self._source, self._value_range = scene, source, value_range
        below, right = (padded_side(side, multiple) - side for side in scene.levels[0])
        self._rows = np.pad(np.arange(self.height), (0, below), "reflect")
        self._right = right
        self._seen = 0  # rows from the top whose values were looked at
        self._facts: ValueFacts | None = None
        self._extents: list[Extent | None] = []
        self._is_of_one_colour = True
        self._first_pixel = self._read(0, 1)[0, 0].copy()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the sides with what is padded, and the channels."""
        return len(self._rows), self.width + self._right, self._source.channels

    def __getitem__(self, rows: slice) -> SampleArray:
        """Return some of the rows, [rows, W, C]."""
        wanted = self._rows[rows]
        top, bottom = int(wanted.min()), int(wanted.max()) + 1
        samples = self._read(top, bottom)
        if top <= self._seen < bottom:
            self._look(samples[self._seen - top :])
            self._seen = bottom
        filled, _ = fill_missing(samples, self._source)
        chosen: SampleArray = filled[wanted - top]
        return np.pad(chosen, ((0, 0), (0, self._right), (0, 0)), "reflect") if self._right else chosen

    def missing(self, first: int, last: int) -> Mask | None:
        """Return which pixels of some of the scene's own rows have no value; None where all have one."""
        if self._source.dtype != "float32":
            return None
        return fill_missing(self._read(first, last), self._source)[1]

    def check_values(self) -> None:
        """Raise UnreadableImage where all values are NaN, as of an image in memory; mostly the first rows tell."""
        if self._source.dtype != "float32":
            return
        for first in range(0, self.height, _LOOK_ROWS):
            if not np.isnan(self._read(first, min(first + _LOOK_ROWS, self.height))).all():
                return
        raise UnreadableImage(f"{self.job.source}: all its values are NaN")

    def look_at_all(self) -> None:
        """Look at the rows that were not read yet: of a translation that continues, none were."""
        while self._seen < self.height:
            self[self._seen : min(self._seen + _LOOK_ROWS, self.height)]

    @property
    def facts(self) -> ValueFacts | None:
        """Return those of the values of other than 8-bit RGB."""
        return self._facts

    @property
    def extent(self) -> Extent | None:
        """Return that of the samples that had more than 8 bits and became 8-bit ones."""
        return merged(self._extents)

    @property
    def is_of_one_colour(self) -> bool:
        """Tell whether all pixels that were looked at are the same."""
        return self._is_of_one_colour

    def _read(self, first: int, last: int) -> SampleArray:
        samples = self._scene.read(first, 0, last - first, self.width)
        converted = self._scene.converted(samples, self._source, self._value_range)
        if first <= self._seen < last:
            self._extents.append(converted.extent)
        found: SampleArray = converted.values[0]
        return found

    def _look(self, samples: SampleArray) -> None:
        if self._is_of_one_colour:
            self._is_of_one_colour = bool((samples == self._first_pixel).all())
        if not self._source.is_rgb:
            self._facts = added(self._facts, _facts_of_part(samples, self._source))


def _facts_of_part(samples: SampleArray, source: PixelType) -> ValueFacts:
    """Return the facts on a part of an image, which may have no value at all, and then has no least and greatest."""
    if samples.dtype.kind == "f" and np.isnan(samples).all():
        return ValueFacts(np.inf, -np.inf, samples.size, 0, samples.size)
    return ValueFacts.of(samples, source)


def added(facts: ValueFacts | None, more: ValueFacts) -> ValueFacts:
    """Return the facts on two parts of an image together."""
    if facts is None:
        return more
    return replace(
        facts,
        low=min(facts.low, more.low),
        high=max(facts.high, more.high),
        count=facts.count + more.count,
        beyond=facts.beyond + more.beyond,
        missing=facts.missing + more.missing,
    )
