"""Converts 8-bit pixels to the tensors and arrays that networks take, and back. Importing it needs no PyTorch."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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


def to_signed(pixels: "Tensor") -> "Tensor":
    """Convert uint8 [N, H, W, 3] to float32 [N, 3, H, W] in [-1, 1], on the same device."""
    return signed(pixels.permute(0, 3, 1, 2)).contiguous()


def to_pixels(images: "Tensor") -> Pixels:
    """Convert [N, 3, H, W] in [-1, 1] to uint8 [N, H, W, 3] on the host, rounded (not truncated)."""
    return as_pixels(levels(images))


def signed(levels: "Tensor") -> "Tensor":
    """Convert uint8 to float32 in [-1, 1], of the same shape, layout and device."""
    return levels.float().div_(127.5).sub_(1.0)


def levels(images: "Tensor") -> "Tensor":
    """Convert values in [-1, 1] to uint8, rounded, of the same shape and device: the inverse of `signed`."""
    return images.detach().float().add(1.0).mul(127.5).round().clamp(0, 255).byte()


def as_tensor(pixels: Pixels, device: "torch.device | str" = "cpu") -> "Tensor":
    """Convert uint8 [N, H, W, 3] on the host to a uint8 tensor [N, 3, H, W] on a device."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)


def as_pixels(images: "Tensor") -> Pixels:
    """Convert a uint8 tensor [N, 3, H, W] to uint8 [N, H, W, 3] on the host."""
    pixels: Pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def to_signed_array(pixels: Pixels) -> FloatImages:
    """Convert uint8 [N, H, W, 3] to float32 [N, 3, H, W] in [-1, 1], as `to_signed` does, without PyTorch."""
    signed = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
    signed /= 127.5
    signed -= 1.0
    return signed


def to_pixels_array(images: FloatImages) -> Pixels:
    """Convert [..., 3, H, W] in [-1, 1] to uint8 [..., H, W, 3], rounded, as `to_pixels` does, without PyTorch."""
    levels = np.rint((images + np.float32(1.0)) * np.float32(127.5)).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(levels, -3, -1))
