"""Defines `Translator`, which translates a batch of images, for generators in PyTorch and for exported files.

Importing it needs no PyTorch. on_device.py and on_gpu.py run a network of PyTorch, tiled.py does so for images of any
size.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from cyclegan_fast.images.pixels import FloatImages, Pixels, to_pixels_array, to_signed_array
from cyclegan_fast.system.errors import UserError


class Translator(Protocol):
    """Translates a batch of images, whatever it computes with."""

    def __call__(self, pixels: Pixels) -> Pixels:
        """Translate uint8 [N, H, W, 3]; H and W are multiples of 4 (of a U-Net's `multiple`), at least 8.

        Raises NotFinite.
        """


@runtime_checkable
class OverlappingTranslator(Translator, Protocol):
    """Translates a batch while the host goes on, so that the next one can be given to it before this one has ended."""

    def begin(self, pixels: Pixels) -> Callable[[], Pixels]:
        """Begin to translate a batch, and return what waits for the result and returns it; both raise NotFinite."""


class NotFinite(UserError):
    """Says that a translation holds NaN or infinities; `index` is its place in the batch."""

    def __init__(self, index: int) -> None:
        super().__init__(
            "the generator's translation is not finite: its weights are damaged, or this precision is too low for them"
        )
        self.index = index


class SignedTranslator:
    """Translates by a function that takes float32 [N, 3, H, W] in [-1, 1] and returns the same; needs no PyTorch."""

    def __init__(self, function: Callable[[FloatImages], FloatImages]) -> None:
        self.function = function

    def __call__(self, pixels: Pixels) -> Pixels:
        return to_pixels_array(self.signed(to_signed_array(pixels)))

    def signed(self, images: FloatImages) -> FloatImages:
        """Translate float32 [N, 3, H, W] in [-1, 1] without rounding to 8 bits. Raises NotFinite."""
        translated = self.function(images)
        for index, image in enumerate(translated):
            if not np.isfinite(image).all():
                raise NotFinite(index)
        return translated
