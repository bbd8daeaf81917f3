"""Converts samples to the tensors and arrays that networks take, and back. Importing it needs no PyTorch.

Each function takes the type of the pixels, see pixel_type.py; by default they are 8-bit RGB.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray

FloatImages = npt.NDArray[np.float32]


if TYPE_CHECKING:
    import torch
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]

_PIXELS_AT_ONCE = 8 * 256 * 256
"""The pixels of all images that are translated at once by default: large images go one by one."""


def images_at_once(height: int, width: int) -> int:
    """Return how many images of height x width pixels are translated at once by default."""
    return max(1, _PIXELS_AT_ONCE // (height * width))


def to_signed(samples: "Tensor", kind: PixelType = RGB) -> "Tensor":
    """Convert samples [N, H, W, C] to float32 [N, C, H, W] in [-1, 1], on the same device."""
    return signed(samples.permute(0, 3, 1, 2), kind).contiguous()


def to_pixels(images: "Tensor", kind: PixelType = RGB) -> SampleArray:
    """Convert [N, C, H, W] in [-1, 1] to samples [N, H, W, C] on the host; integers are rounded, not truncated."""
    return as_pixels(levels(images, kind))


def signed(samples: "Tensor", kind: PixelType = RGB) -> "Tensor":
    """Convert samples to float32 in [-1, 1], of the same shape, layout and device.

    Values beyond the range of `kind` become -1 and 1; NaN stays NaN.
    """
    import torch

    images = samples.to(torch.float32, copy=True).sub_(kind.low).div_(kind.half_range).sub_(1.0)
    return images if kind.dtype == "uint8" else images.clamp_(-1.0, 1.0)


def levels(images: "Tensor", kind: PixelType = RGB) -> "Tensor":
    """Convert values in [-1, 1] to samples, of the same shape and device: the inverse of `signed`.

    Integers are rounded. What lies beyond [-1, 1] becomes the range's ends.
    """
    import torch

    values = images.detach().float().add(1.0).mul(kind.half_range).add(kind.low)
    if kind.dtype == "float32":
        return values.clamp(kind.low, kind.high)
    held = kind.held_range
    return values.round().clamp(*held).to(getattr(torch, kind.dtype))


def as_tensor(samples: SampleArray, device: "torch.device | str" = "cpu") -> "Tensor":
    """Convert samples [N, H, W, C] on the host to a tensor [N, C, H, W] of their type on a device."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(samples)).to(device).permute(0, 3, 1, 2)


def as_pixels(images: "Tensor") -> SampleArray:
    """Convert a tensor of samples [N, C, H, W] to an array [N, H, W, C] on the host."""
    samples: SampleArray = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return samples


def to_signed_array(samples: SampleArray, kind: PixelType = RGB) -> FloatImages:
    """Convert samples [N, H, W, C] to float32 [N, C, H, W] in [-1, 1], as `to_signed` does, without PyTorch."""
    images = np.ascontiguousarray(samples.transpose(0, 3, 1, 2)).astype(np.float32)
    images -= np.float32(kind.low)
    images /= np.float32(kind.half_range)
    images -= np.float32(1.0)
    return images if kind.dtype == "uint8" else images.clip(-1.0, 1.0, out=images)


def to_pixels_array(images: FloatImages, kind: PixelType = RGB) -> SampleArray:
    """Convert [..., C, H, W] in [-1, 1] to samples [..., H, W, C], rounded, as `to_pixels` does, without PyTorch."""
    values = (images + np.float32(1.0)) * np.float32(kind.half_range) + np.float32(kind.low)
    if kind.dtype == "float32":
        samples = values.clip(kind.low, kind.high)
    else:
        samples = np.rint(values).clip(*kind.held_range).astype(kind.as_numpy)
    return np.ascontiguousarray(np.moveaxis(samples, -3, -1))
