"""Reflection padding alone, for the 3-channel image in front of a generator's stem."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import Impl, check_image_batch, choose


def reflection_pad_reference(x: Tensor, pad: int) -> Tensor:
    """Mirror without repeating the edge: y[..., i, j] = x[..., |i - pad|, |j - pad|] on the near sides."""
    if pad == 0:
        return x
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return _pad_by_slices(_pad_by_slices(x, pad, dim=2), pad, dim=3)
    return F.pad(x, (pad, pad, pad, pad), mode="reflect")


def _pad_by_slices(x: Tensor, pad: int, dim: int) -> Tensor:
    # PyTorch's CUDA backward of reflection padding adds with atomics; that of slice, flip and cat does not.
    size = x.size(dim)
    before = x.narrow(dim, 1, pad).flip(dim)
    after = x.narrow(dim, size - 1 - pad, pad).flip(dim)
    return torch.cat([before, x, after], dim=dim)


def check_pad(pad: int, height: int, width: int) -> None:
    """Refuse a pad that reflection is not defined for: it must be smaller than both sides."""
    if not 0 <= pad < max(1, min(height, width)):
        raise ValueError(f"pad must be at least 0 and smaller than both sides of {height}x{width}, got {pad}")


IMPLEMENTATIONS = {"reference": reflection_pad_reference}


def reflection_pad(x: Tensor, pad: int, *, impl: Impl = "auto") -> Tensor:
    """Pad both image sides by reflection, the edge pixel not repeated.

    x [N, C, H, W] in any floating dtype -> [N, C, H + 2*pad, W + 2*pad]. Raises ValueError where x is not 4-D or pad
    is negative or not smaller than H and W, TypeError where x is not floating point, RuntimeError as `choose` does.
    """
    check_image_batch("x", x)
    check_pad(pad, x.size(2), x.size(3))
    implementation = IMPLEMENTATIONS[choose("reflection_pad", impl, x)]
    return implementation(x, pad)
