"""Reads the images of one domain from files, in the type of its pixels, and prepares them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cyclegan_fast.data.preparation import Preparation
from cyclegan_fast.data.value_facts import ValueFacts, without_missing
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.files import Half, middle_of, part_of
from cyclegan_fast.images.levels import Extent, ValueRange
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.samples import Frames, describe_file, read_samples
from cyclegan_fast.images.unreadable import UnreadableImage, reading
from cyclegan_fast.system.errors import UserError


class PreparedImage(NamedTuple):
    """Holds a prepared image [H, W, C], and what is to be known of the values that its file had.

    extent: of an image of more than 8 bits that became 8-bit RGB.
    facts: of an image that is no 8-bit RGB.
    """

    samples: SampleArray
    extent: Extent | None = None
    facts: ValueFacts | None = None


@dataclass(frozen=True)
class FileReader:
    """Reads files of a domain.

    prepare: resizes an image; its repr names everything that its result depends on.
    kind: the type of the domain's pixels.
    frames: says what the pages or slices of a file are, see `read_samples`.
    half: the domain is this half of each image.
    deep_range: the values of samples of more than 8 bits that become black and white in a domain of 8 bits.
    strict: refuse images with values that are missing.
    """

    prepare: Preparation | Callable[[Image.Image], Image.Image]
    kind: PixelType = RGB
    frames: Frames = "first"
    half: Half | None = None
    deep_range: ValueRange | None = None
    strict: bool = False

    def __str__(self) -> str:
        """Name everything that the samples depend on beside the files."""
        parts = [
            *([str(self.kind)] if not self.kind.is_rgb else []),
            *([f"pages as {self.frames}"] if self.frames != "first" else []),
            *([f"values {self.deep_range}"] if self.deep_range else []),
            *([f"{self.half} half"] if self.half else []),
            repr(self.prepare),
        ]
        return ", ".join(parts)

    def image_count(self, path: Path) -> int:
        """Return how many images a file holds: 1 where pages are no images of their own, or it cannot be read."""
        if self.frames != "slices":
            return 1
        try:
            return max(1, describe_file(path, self.frames).frames)
        except UnreadableImage:
            return 1  # whoever reads it says why

    def read(self, path: Path) -> list[PreparedImage]:
        """Return the images of a file, prepared. Raises UnreadableImage, and UserError for one that is too small."""
        if self.kind.is_rgb and self.frames == "first":
            decoded = decode(path, self.deep_range)
            image = part_of(decoded.image, self.half, path)
            with self._named(path):
                return [PreparedImage(np.asarray(self.prepare(image)), decoded.extent)]
        samples = read_samples(path, self.kind, frames=self.frames, deep_range=self.deep_range).values
        return [self._of_samples(path, image) for image in samples]

    def _of_samples(self, path: Path, image: SampleArray) -> PreparedImage:
        assert isinstance(self.prepare, Preparation)
        with reading(path):
            part = image if self.half is None else half_of_samples(image, self.half)
            facts = None if self.kind.is_rgb else ValueFacts.of(part, self.kind)
        if facts is not None:
            if facts.missing and self.strict:
                raise UnreadableImage(f"{path}: {facts.missing} of {facts.count} values are NaN")
            part = without_missing(part, facts, self.kind)
        with self._named(path):
            prepared = self.prepare.of_samples(part)
        # A copy, where it is part of something larger that would stay in memory with it.
        return PreparedImage(prepared if prepared.base is None else prepared.copy(), None, facts)

    @contextmanager
    def _named(self, path: Path) -> Iterator[None]:
        """Turn a ValueError of the preparation into a UserError that names the image."""
        try:
            yield
        except ValueError as error:
            where = path if self.half is None else f"{path}, {self.half} half"
            raise UserError(f"{where}: {error}") from error


def half_of_samples(samples: SampleArray, half: Half) -> SampleArray:
    """Return the left or the right half of samples [H, W, C]; raises ValueError where the width is odd."""
    middle = middle_of(samples.shape[1])
    return samples[:, :middle] if half == "left" else samples[:, middle:]
