"""Defines `Translator`, which translates a batch of images, for generators in PyTorch and for exported files.

Importing it needs no PyTorch. on_device.py and on_gpu.py run a network of PyTorch, strips/ does so for images of any
size.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import FloatImages, to_pixels_array, to_signed_array
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted


class Translator(Protocol):
    """Translates a batch of images, whatever it computes with."""

    @property
    def source(self) -> PixelType:
        """Describe the pixels that are translated."""

    @property
    def target(self) -> PixelType:
        """Describe the pixels of the translations."""

    def __call__(self, samples: SampleArray, /) -> SampleArray:
        """Translate samples [N, H, W, C] of `source` to those of `target`, of the same sides.

        H and W are multiples of 4 (of a U-Net's `multiple`), at least 8. Raises NotFinite and BatchDoesNotFit.
        """


@runtime_checkable
class OverlappingTranslator(Translator, Protocol):
    """Translates a batch while the host goes on, so that the next one can be given to it before this one has ended.

    Only `begin` raises BatchDoesNotFit.
    """

    def begin(self, samples: SampleArray, /) -> Callable[[], SampleArray]:
        """Begin to translate a batch, and return what waits for the result and returns it; both raise NotFinite."""


class NotFinite(UserError):
    """Says that a translation holds NaN or infinities; `index` is its place in the batch."""

    def __init__(self, index: int) -> None:
        super().__init__(
            "the generator's translation is not finite: its weights are damaged, or this precision is too low for them"
        )
        self.index = index


class BatchDoesNotFit(UserError):
    """Says that a batch is not translated for its size: memory does not hold it, or what computes takes no such sides.

    `is_of_memory` tells whether memory is what lacks, so that as many pixels or more need not be tried again.
    """

    def __init__(self, message: str, *, is_of_memory: bool = True) -> None:
        super().__init__(message)
        self.is_of_memory = is_of_memory


def images_do_not_fit(count: int, height: int, width: int) -> str:
    """Say that so many images of a size do not fit; what they do not fit is to follow."""
    return f"{counted(count, 'image')} of {width}x{height} {'does' if count == 1 else 'do'} not fit"


class FunctionTranslator:
    """Translates by a function that takes samples [N, H, W, C] of `source` and returns those of `target`."""

    def __init__(
        self, function: Callable[[SampleArray], SampleArray], source: PixelType = RGB, target: PixelType = RGB
    ) -> None:
        self.function = function
        self.source = source
        self.target = target

    def __call__(self, samples: SampleArray) -> SampleArray:
        return self.function(samples)


class SignedTranslator:
    """Translates by a function that takes float32 [N, C, H, W] in [-1, 1] and returns the same; needs no PyTorch."""

    def __init__(
        self, function: Callable[[FloatImages], FloatImages], source: PixelType = RGB, target: PixelType = RGB
    ) -> None:
        self.function = function
        self.source = source
        self.target = target

    def __call__(self, samples: SampleArray) -> SampleArray:
        return to_pixels_array(self.signed(to_signed_array(samples, self.source)), self.target)

    def signed(self, images: FloatImages) -> FloatImages:
        """Translate float32 [N, C, H, W] in [-1, 1] without rounding to samples. Raises NotFinite."""
        translated = self.function(images)
        for index, image in enumerate(translated):
            if not np.isfinite(image).all():
                raise NotFinite(index)
        return translated
