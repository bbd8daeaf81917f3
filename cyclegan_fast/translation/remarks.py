"""Gathers what a user should know of the images of a translation, and writes a line on each kind of it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cyclegan_fast.images.levels import Extent, merged, note_on
from cyclegan_fast.images.pages import note_on_pages
from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.translation.prepared import PreparedImage, Reading
from cyclegan_fast.translation.unmapped import on_beyond, on_missing


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
        self._beyond: list[float] = []
        self._missing: list[float] = []

    def add(self, image: PreparedImage) -> None:
        """Take note of an image that was translated."""
        if image.is_of_one_colour:
            self._one_colour.append(image.job.source)
        if image.extent:
            self._extents[image.job.source] = image.extent
        self._beyond.append(image.beyond)
        self._missing.append(0.0 if image.missing is None else float(np.mean(image.missing)))

    def lines(self) -> list[str]:
        """Return a line for each kind of remark."""
        images = len(self._beyond)
        return [
            *note_on_pages(self.pages),
            *self._on_values(),
            *on_beyond(self._beyond, images, self._reading.source),
            *on_missing(self._missing, images, self._reading.source, self._target),
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
