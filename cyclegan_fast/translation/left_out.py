"""Leaves out images that do not fit what translates them, so that the others are translated; needs no PyTorch."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.translator import BatchDoesNotFit


class HasSource(Protocol):
    """Has the samples of an image, [H, W, C], and the file that it is of."""

    @property
    def pixels(self) -> SampleArray: ...

    @property
    def source(self) -> Path: ...


_Image = TypeVar("_Image", bound=HasSource)


class LeftOut(Generic[_Image]):
    """Keeps a line on each image that does not fit, and chooses which batches are tried.

    A try may take minutes before memory ends. Where an image did not fit it alone, none of as many pixels or more is
    tried; where a batch did not, the images of batches of as many pixels are translated one by one. So are those of a
    batch whose sides the translator does not take. An image is left out with all of its slices.

    Args:
        splits: also translate the images of a batch one by one where it did not fit the memory; otherwise that is an
            error, as it should be where the user gave the number of images.
        raises: raise BatchDoesNotFit for an image that does not fit alone, and leave out none.
    """

    def __init__(self, *, splits: bool, raises: bool = False) -> None:
        self.lines: list[str] = []
        self._splits = splits
        self._raises = raises
        self._sources: set[Path] = set()
        self._again: deque[_Image] = deque()
        self._pixels_of_batch = math.inf
        self._pixels_alone = math.inf
        self._too_large = ""

    def __contains__(self, source: Path) -> bool:
        return source in self._sources

    def chosen(self, batches: Iterable[list[_Image]]) -> Iterator[list[_Image]]:
        """Yield the batches to try next: those given, whole or image by image, without images that are left out.

        Raises BatchDoesNotFit with `raises` for an image that is not to be tried.
        """
        self._again.clear()  # those of a video that was given up
        for batch in batches:
            yield from self._chosen_of(batch)

    def _chosen_of(self, batch: list[_Image]) -> Iterator[list[_Image]]:
        height, width = batch[0].pixels.shape[:2]
        if len(batch) > 1 and self._splits and len(batch) * height * width >= self._pixels_of_batch:
            self._again.extend(batch)
        else:
            yield from self._allowed(batch)
        while self._again:  # filled by `refuse`
            yield from self._allowed([self._again.popleft()])

    def _allowed(self, batch: list[_Image]) -> Iterator[list[_Image]]:
        """Yield the batch without the images that are left out, unless it is too large or nothing is left."""
        height, width = batch[0].pixels.shape[:2]
        for image in batch if height * width >= self._pixels_alone else ():
            why = f"{width}x{height} is not tried, for it has no fewer pixels than {self._too_large}"
            self._refuse_alone(image, why)
        if rest := [image for image in batch if image.source not in self._sources]:
            yield rest

    def refuse(self, batch: Sequence[_Image], error: BatchDoesNotFit) -> None:
        """Let the images of a batch that did not fit be tried alone, or leave its only image out.

        Raises UserError for several images that do not fit the memory without `splits`, and BatchDoesNotFit for one
        with `raises`.
        """
        height, width = batch[0].pixels.shape[:2]
        if len(batch) == 1:
            if error.is_of_memory:
                self._pixels_alone = height * width
                self._too_large = f"{batch[0].source}: {error}"
            self._refuse_alone(batch[0], str(error))
            return
        if error.is_of_memory:
            if not self._splits:
                raise UserError(str(error)) from error
            self._pixels_of_batch = len(batch) * height * width
        self._again.extend(batch)

    def _refuse_alone(self, image: _Image, why: str) -> None:
        if self._raises:
            raise BatchDoesNotFit(f"{image.source}: {why}")
        if image.source not in self._sources:
            self._sources.add(image.source)
            self.lines.append(f"{image.source}: {why}")
