"""Prepares images as the original implementation does: resizes, and the crops that training draws."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cyclegan_fast.conventions import SMALLEST_DISCRIMINATOR_SIDE, nearest_side
from cyclegan_fast.images.pixel_type import RGB, SampleArray

if TYPE_CHECKING:  # importing it would import PyTorch, without which exported files are run
    from cyclegan_fast.config.options import Preprocess


@dataclass(frozen=True)
class Preparation:
    """Prepares a training image once, before the random crop: resizes it (bicubic) as the original does."""

    preprocess: "Preprocess"
    load_size: int
    crop_size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a prepared image of 8-bit RGB; raises ValueError as `sides` does."""
        return resize(image, *self.sides(*image.size))

    def of_samples(self, samples: SampleArray) -> SampleArray:
        """Return prepared samples [H, W, C] of any type; raises ValueError as `sides` does."""
        height, width = samples.shape[:2]
        return resize_samples(samples, *self.sides(width, height))

    def sides(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of a prepared image.

        Raises ValueError for one that is too small for its network or its crop.
        """
        if self.preprocess == "resize_and_crop":
            return self.load_size, self.load_size
        if self.preprocess == "none":
            sides = nearest_side(width), nearest_side(height)
            if min(sides) < SMALLEST_DISCRIMINATOR_SIDE:
                raise ValueError(
                    f"becomes {sides[0]}x{sides[1]}, and a discriminator needs {SMALLEST_DISCRIMINATOR_SIDE} pixels "
                    "each way: use --preprocess resize_and_crop"
                )
            return sides
        # The original's rule: the height is cut off to whole pixels, and no lower than the crop.
        scaled = self.load_size, max(self.load_size * height // width, self.crop_size)
        if self.preprocess == "scale_width":
            return nearest_side(scaled[0]), nearest_side(scaled[1])
        if self.preprocess == "scale_width_and_crop":
            width, height = scaled
        if min(width, height) < self.crop_size:
            raise ValueError(
                f"{width}x{height} is smaller than the crop of {self.crop_size}: lower --crop-size, "
                "or use --preprocess resize_and_crop"
            )
        return width, height


def held_out_preparation(size: int) -> Preparation:
    """Return the preparation of test images: a resize to the training crop's square, without crop or flip."""
    return Preparation("resize_and_crop", load_size=size, crop_size=size)


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return an image at width x height pixels, resized (bicubic) where it is of another size."""
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def resize_samples(samples: SampleArray, width: int, height: int) -> SampleArray:
    """Return samples [H, W, C] at width x height pixels, resized (bicubic) where they are of another size.

    8-bit RGB is resized as `resize` does it, and everything else in float32: whole numbers are rounded. A bicubic
    filter overshoots beside edges: what goes beyond the least or the greatest value of a channel becomes that value, so
    that counts stay positive.
    """
    if samples.shape[:2] == (height, width):
        return samples
    if samples.dtype == np.uint8 and samples.shape[2] == RGB.channels:
        return np.asarray(resize(Image.fromarray(samples), width, height))
    resized = np.empty((height, width, samples.shape[2]), np.float32)
    for channel in range(samples.shape[2]):
        # Pillow resizes one channel at a time in floating point, and smooths what is made smaller.
        own = np.ascontiguousarray(samples[..., channel], np.float32)
        low, high = np.fmin.reduce(own, None), np.fmax.reduce(own, None)  # of those that are not NaN
        resized[..., channel] = np.asarray(resize(Image.fromarray(own), width, height)).clip(low, high)
    return (resized if samples.dtype.kind == "f" else np.rint(resized)).astype(samples.dtype, copy=False)
