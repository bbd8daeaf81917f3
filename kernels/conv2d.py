"""Reflection-padded 3x3 convolution that also gathers the statistics of its result."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import Impl, check_image_batch, choose
from kernels.reflection_pad import reflection_pad_reference


def conv2d_reflect_reference(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Pad by 1, convolve, and describe each image of the result by one tile."""
    y = F.conv2d(reflection_pad_reference(x, 1), weight)
    with torch.no_grad():
        wide = y.double() if y.dtype == torch.float64 else y.float()
        mean = wide.mean(dim=(2, 3))  # [N, C]
        m2 = (wide - mean[:, :, None, None]).square().sum(dim=(2, 3))  # [N, C]
        count = torch.full_like(mean, y.size(2) * y.size(3))
        partials = torch.stack([count, mean, m2], dim=1)[:, None]  # [N, 1, 3, C]
    return y, partials


IMPLEMENTATIONS = {"reference": conv2d_reflect_reference}


def conv2d_reflect(x: Tensor, weight: Tensor, *, impl: Impl = "auto") -> tuple[Tensor, Tensor]:
    """3x3 convolution, stride 1, reflection padding 1, no bias.

    x [N, C, H, W] unpadded, weight [C_out, C, 3, 3] of x's dtype. Returns y [N, C_out, H, W] and partials
    [N, tiles, 3, C_out] (at least float32, not differentiable): count, mean and M2, the sum of squared deviations, of
    each tile of y, for `instance_norm`. A tile never crosses two images; the number of tiles is the implementation's.
    Raises ValueError where the shapes do not fit or a side is 1, TypeError where the dtypes differ.
    """
    check_image_batch("x", x)
    check_weight("weight", weight, x)
    if min(x.shape[2:]) < 2:
        raise ValueError(f"x must be at least 2x2 to be padded by reflection, got {x.size(2)}x{x.size(3)}")
    implementation = IMPLEMENTATIONS[choose("conv2d_reflect", impl, x)]
    return implementation(x, weight)


def check_weight(name: str, weight: Tensor, x: Tensor) -> None:
    """Refuse what is not a 3x3 weight for x's channels and dtype."""
    if weight.dim() != 4 or weight.shape[1:] != (x.size(1), 3, 3):
        raise ValueError(f"{name} must be [C_out, {x.size(1)}, 3, 3], got {tuple(weight.shape)}")
    if weight.dtype != x.dtype:
        raise TypeError(f"{name} must be {x.dtype} as x is, got {weight.dtype}")
