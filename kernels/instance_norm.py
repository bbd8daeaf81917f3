"""Instance norm (Ulyanov et al. 2016, arXiv 1607.08022) with activation, residual sum and reflection padding."""

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import Activation, Impl, check_image_batch, choose
from kernels.reflection_pad import check_pad, reflection_pad_reference


def instance_norm_reference(
    x: Tensor, *, activation: Activation, negative_slope: float, residual: Tensor | None, pad: int, eps: float
) -> Tensor:
    """y = reflect_pad(act((x - mean) * rstd) + residual), mean and biased variance over H, W of each (n, c)."""
    y = _normalise(x, eps) if x.numel() else x
    if activation == "relu":
        y = F.relu(y)
    elif activation == "leaky_relu":
        y = F.leaky_relu(y, negative_slope)
    if residual is not None:
        y = y + residual
    return reflection_pad_reference(y, pad)


def _normalise(x: Tensor, eps: float) -> Tensor:
    if x.is_cuda or x.dtype in (torch.float32, torch.float64):
        return F.instance_norm(x, eps=eps)
    # Without float32 weights PyTorch's norm on the CPU rounds its statistics to x's dtype: at |mean| = 17 std the error
    # of a bfloat16 result is 2e-2 instead of the 1.7e-3 of one rounding.
    ones = torch.ones(x.size(1), device=x.device)
    return F.instance_norm(x, weight=ones, bias=torch.zeros_like(ones), eps=eps)


IMPLEMENTATIONS = {"reference": instance_norm_reference}


def instance_norm(
    x: Tensor,
    *,
    activation: Activation = "none",
    negative_slope: float = 0.2,
    residual: Tensor | None = None,
    pad: int = 0,
    eps: float = 1e-5,
    partials: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Normalise each (image, channel) plane, then activate, add `residual`, and pad by reflection.

    Args:
        x: [N, C, H, W], H*W at least 2, any floating dtype.
        activation: "none", "relu" or "leaky_relu"; the last uses `negative_slope`.
        residual: [N, C, H, W] of x's dtype and device; may be strided, such as the interior of a padded buffer.
        pad: reflection padding of the result, smaller than H and W.
        eps: added to the biased variance.
        partials: [N, tiles, 3, C] count, mean and M2 of each tile of x, as `conv2d_reflect` returns them. They save a
            pass over x and change nothing else; the reference has no use for them.
        impl: see `kernels.dispatch.choose`.

    Returns [N, C, H + 2*pad, W + 2*pad] in x's dtype. Raises ValueError or TypeError naming the argument at fault.
    """
    check_image_batch("x", x)
    height, width = x.shape[2:]
    check_pad(pad, height, width)
    if height * width == 1:
        raise ValueError("x must have more than one pixel a plane to have a variance, got 1x1")
    if activation not in get_args(Activation):
        raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {activation!r}")
    if residual is not None:
        _check_residual(x, residual)
    if partials is not None and (
        partials.dim() != 4 or partials.shape[::2] != (x.size(0), 3) or partials.size(3) != x.size(1)
    ):
        raise ValueError(f"partials must be [{x.size(0)}, tiles, 3, {x.size(1)}], got {tuple(partials.shape)}")
    implementation = IMPLEMENTATIONS[choose("instance_norm", impl, x)]
    return implementation(x, activation=activation, negative_slope=negative_slope, residual=residual, pad=pad, eps=eps)


def _check_residual(x: Tensor, residual: Tensor) -> None:
    if residual.shape != x.shape:
        raise ValueError(f"residual must have x's shape {tuple(x.shape)}, got {tuple(residual.shape)}")
    if residual.dtype != x.dtype or residual.device != x.device:
        raise TypeError(f"residual must be {x.dtype} on {x.device} as x is, got {residual.dtype} on {residual.device}")
