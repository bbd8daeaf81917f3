"""The residual block of the generator as one operator that reads and writes reflection-padded buffers."""

import torch.nn.functional as F
from torch import Tensor

from kernels.conv2d import check_weight
from kernels.dispatch import Impl, check_image_batch, choose
from kernels.instance_norm import instance_norm_reference


def residual_block_reference(x: Tensor, weight1: Tensor, weight2: Tensor, *, pad_out: int, eps: float) -> Tensor:
    """y = x + norm(conv(pad(relu(norm(conv(x)))))), no activation after the sum (Johnson et al. 2016)."""
    middle = F.conv2d(x, weight1)
    middle = instance_norm_reference(middle, activation="relu", negative_slope=0.0, residual=None, pad=1, eps=eps)
    return instance_norm_reference(
        F.conv2d(middle, weight2),
        activation="none",
        negative_slope=0.0,
        residual=x[:, :, 1:-1, 1:-1],
        pad=pad_out,
        eps=eps,
    )


IMPLEMENTATIONS = {"reference": residual_block_reference}


def residual_block(
    x: Tensor, weight1: Tensor, weight2: Tensor, *, pad_out: int = 1, eps: float = 1e-5, impl: Impl = "auto"
) -> Tensor:
    """Two 3x3 convolutions with instance norm around a skip connection.

    x [N, C, H + 2, W + 2] is already padded by 1; weight1 and weight2 are [C, C, 3, 3] of x's dtype. Returns
    [N, C, H + 2*pad_out, W + 2*pad_out]: pad_out 1 for the next block to read, 0 after the last one. The convolutions
    have no bias: the norm behind each would cancel it. Raises ValueError or TypeError naming the argument at fault.
    """
    check_image_batch("x", x)
    if min(x.shape[2:]) < 4:
        raise ValueError(f"x must be a padded buffer of at least 4x4 (2x2 and its pad of 1), got {tuple(x.shape)}")
    for name, weight in (("weight1", weight1), ("weight2", weight2)):
        check_weight(name, weight, x)
        if weight.size(0) != x.size(1):
            raise ValueError(f"{name} must keep x's {x.size(1)} channels, got {weight.size(0)}")
    if pad_out not in (0, 1):
        raise ValueError(f"pad_out must be 0 or 1, got {pad_out}")
    implementation = IMPLEMENTATIONS[choose("residual_block", impl, x)]
    return implementation(x, weight1, weight2, pad_out=pad_out, eps=eps)
