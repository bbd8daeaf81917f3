"""Describes the arrays that an engine takes and gives; needs nothing but numpy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclegan_fast.system.errors import UserError
from export.engines.engine_card import EngineCard, ImageShape, Profile

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ImageLayout:
    """Describes an engine's arrays, the same for input and output, of the profile's shapes.

    They are uint8 [N, H, W, 3] where `uint8_io`, else float32 [N, 3, H, W] in [-1, 1].
    """

    uint8_io: bool
    profile: Profile

    @classmethod
    def of(cls, card: EngineCard) -> "ImageLayout":
        return cls(card.uint8_io, card.profile)

    @property
    def dtype(self) -> npt.DTypeLike:
        return np.dtype(np.uint8 if self.uint8_io else np.float32)

    def __str__(self) -> str:
        return "uint8 [N, H, W, 3]" if self.uint8_io else "float32 [N, 3, H, W] in [-1, 1]"

    def array_shape(self, shape: ImageShape) -> tuple[int, int, int, int]:
        batch, height, width = shape
        return (batch, height, width, 3) if self.uint8_io else (batch, 3, height, width)

    def size(self, shape: ImageShape) -> int:
        """Return the bytes of an array of images of `shape`."""
        batch, height, width = shape
        return batch * 3 * height * width * np.dtype(self.dtype).itemsize

    def check(self, images: object) -> ImageShape:
        """Return batch, height and width of an array. Raises UserError where the engine does not take it.

        Strides are free: the array is copied in any case.
        """
        if not isinstance(images, np.ndarray):
            raise UserError(f"the engine takes an array of {self}, got {type(images).__name__}")
        channels = 3 if self.uint8_io else 1
        if images.dtype != self.dtype or images.ndim != 4 or images.shape[channels] != 3:
            raise UserError(f"the engine takes {self}, got {images.dtype} {list(images.shape)}")
        batch, height, width = (side for axis, side in enumerate(images.shape) if axis != channels)
        self.profile.check((batch, height, width))
        return batch, height, width
