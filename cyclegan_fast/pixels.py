"""Between 8-bit pixels and the tensors that networks take; importing it needs no PyTorch."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]


def to_signed(pixels: "Tensor") -> "Tensor":
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1], on the same device."""
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def to_pixels(images: "Tensor") -> Pixels:
    """[N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3] on the host, rounded (not truncated)."""
    levels = images.detach().float().add(1.0).mul(127.5).round().clamp(0, 255).byte()
    pixels: Pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels
