"""Prepares images as the original implementation does: resizes, and the crops that training draws."""

from dataclasses import dataclass

from PIL import Image

from cyclegan_fast.config.options import Preprocess
from cyclegan_fast.conventions import SMALLEST_DISCRIMINATOR_SIDE, nearest_side


@dataclass(frozen=True)
class Preparation:
    """Prepares a training image once, before the random crop: resizes it (bicubic) as the original does."""

    preprocess: Preprocess
    load_size: int
    crop_size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the prepared image; raises ValueError for one that is too small for its network or its crop."""
        width, height = image.size
        if self.preprocess == "resize_and_crop":
            return resize(image, self.load_size, self.load_size)
        if self.preprocess == "none":
            sides = nearest_side(width), nearest_side(height)
            if min(sides) < SMALLEST_DISCRIMINATOR_SIDE:
                raise ValueError(
                    f"becomes {sides[0]}x{sides[1]}, and a discriminator needs {SMALLEST_DISCRIMINATOR_SIDE} pixels "
                    "each way: use --preprocess resize_and_crop"
                )
            return resize(image, *sides)
        # The original's rule: the height is cut off to whole pixels, and no lower than the crop.
        scaled = self.load_size, max(self.load_size * height // width, self.crop_size)
        if self.preprocess == "scale_width":
            return resize(image, *map(nearest_side, scaled))
        if self.preprocess == "scale_width_and_crop":
            image = resize(image, *scaled)
        if min(image.size) < self.crop_size:
            raise ValueError(
                f"{image.width}x{image.height} is smaller than the crop of {self.crop_size}: lower --crop-size, "
                "or use --preprocess resize_and_crop"
            )
        return image


def held_out_preparation(size: int) -> Preparation:
    """Return the preparation of test images: a resize to the training crop's square, without crop or flip."""
    return Preparation("resize_and_crop", load_size=size, crop_size=size)


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return an image at width x height pixels, resized (bicubic) where it is of another size."""
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
