"""Describes the arrays that an engine takes and gives; needs nothing but numpy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.system.errors import UserError
from export.engines.engine_card import EngineCard, ImageShape, Profile
from export.graphs.interface import sample_dtype

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ImageLayout:
    """Describes the arrays at one end of an engine, of the profile's shapes.

    They are samples [N, H, W, C] where `has_samples`, uint8 or, in the images' own units, float32; else they are
    float32 [N, C, H, W] in [-1, 1].
    """

    kind: PixelType
    has_samples: bool
    profile: Profile

    @classmethod
    def of_ends(cls, card: EngineCard) -> "tuple[ImageLayout, ImageLayout]":
        """Return what an engine takes and what it gives."""
        source, target = card.ends
        return cls(source, card.uint8_io, card.profile), cls(target, card.uint8_io, card.profile)

    @property
    def dtype(self) -> npt.DTypeLike:
        return np.dtype(sample_dtype(self.kind) if self.has_samples else "float32")

    def __str__(self) -> str:
        if not self.has_samples:
            return f"float32 [N, {self.kind.channels}, H, W] in [-1, 1]"
        values = "" if self.kind.dtype == "uint8" else f" from {self.kind.low:g} to {self.kind.high:g}"
        return f"{self.dtype} [N, H, W, {self.kind.channels}]{values}"

    @property
    def channel_axis(self) -> int:
        return 3 if self.has_samples else 1

    def array_shape(self, shape: ImageShape) -> tuple[int, int, int, int]:
        batch, height, width = shape
        channels = self.kind.channels
        return (batch, height, width, channels) if self.has_samples else (batch, channels, height, width)

    def size(self, shape: ImageShape) -> int:
        """Return the bytes of an array of images of `shape`."""
        batch, height, width = shape
        return batch * self.kind.channels * height * width * np.dtype(self.dtype).itemsize

    def check(self, images: object) -> ImageShape:
        """Return batch, height and width of an array. Raises UserError where the engine does not take it.

        Strides are free: the array is copied in any case.
        """
        if not isinstance(images, np.ndarray):
            raise UserError(f"the engine takes an array of {self}, got {type(images).__name__}")
        channels = self.channel_axis
        if images.dtype != self.dtype or images.ndim != 4 or images.shape[channels] != self.kind.channels:
            raise UserError(f"the engine takes {self}, got {images.dtype} {list(images.shape)}")
        batch, height, width = (side for axis, side in enumerate(images.shape) if axis != channels)
        self.profile.check((batch, height, width))
        return batch, height, width
