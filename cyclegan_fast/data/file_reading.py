"""Reads the images of one domain from files, in the type of its pixels, and prepares them."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cyclegan_fast.data.preparation import Preparation
from cyclegan_fast.data.value_facts import ValueFacts, without_missing
from cyclegan_fast.images.files import Half, middle_of
from cyclegan_fast.images.levels import Extent, ValueRange
from cyclegan_fast.images.pixel_type import RGB, DomainName, PixelType, SampleArray
from cyclegan_fast.images.samples import Axis, Frames, describe_file, read_samples
from cyclegan_fast.images.unreadable import UnreadableImage, reading
from cyclegan_fast.system.errors import UserError


class PreparedSamples(NamedTuple):
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
    frames, axis: say what the pages or slices of a file are, see `read_samples`.
    half: the domain is this half of each image.
    deep_range: the values of samples of more than 8 bits that become black and white in a domain of 8 bits.
    strict: refuse images with values that are missing.
    flags_of: the domain of a training whose flags a refusal names, see `read_samples`.
    """

    prepare: Preparation
    kind: PixelType = RGB
    frames: Frames = "first"
    axis: Axis = 2
    half: Half | None = None
    deep_range: ValueRange | None = None
    strict: bool = False
    flags_of: DomainName | None = None

    def __str__(self) -> str:
        """Name everything that the samples depend on beside the files."""
        parts = [
            *([str(self.kind)] if not self.kind.is_rgb else []),
            *([f"pages as {self.frames}, across axis {self.axis}"] if self.frames != "first" else []),
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
            return describe_file(path, self.frames, self.axis).images
        except UnreadableImage:
            return 1  # whoever reads it says why

    def read(self, path: Path, index: int | None = None) -> list[PreparedSamples]:
        """Return the images of a file, prepared, or the one at `index` alone.

        Raises UnreadableImage, and UserError for one that is too small.
        """
        read = read_samples(
            path,
            self.kind,
            frames=self.frames,
            deep_range=self.deep_range,
            axis=self.axis,
            index=index,
            flags_of=self.flags_of,
        )
        return [self._prepared(path, image, read.extent, shares=len(read.values) > 1) for image in read.values]

    def _prepared(self, path: Path, image: SampleArray, extent: Extent | None, *, shares: bool) -> PreparedSamples:
        with reading(path):
            part = image if self.half is None else half_of_samples(image, self.half)
            facts = None if self.kind.is_rgb else ValueFacts.of(part, self.kind)
        if facts is not None:
            if facts.missing and self.strict:
                raise UnreadableImage(f"{path}: {facts.missing} of {facts.count} values are NaN, without a value")
            part = without_missing(part, facts, self.kind)
        try:
            prepared = self.prepare.of_samples(part)
        except ValueError as error:
            where = path if self.half is None else f"{path}, {self.half} half"
            raise UserError(f"{where}: {error}") from error
        # A part of something larger would keep all of it in memory.
        is_part = prepared.base is not None and (shares or self.half is not None)
        return PreparedSamples(prepared.copy() if is_part else prepared, extent, facts)


def half_of_samples(samples: SampleArray, half: Half) -> SampleArray:
    """Return the left or the right half of samples [H, W, C]; raises ValueError where the width is odd."""
    middle = middle_of(samples.shape[1])
    return samples[:, :middle] if half == "left" else samples[:, middle:]
