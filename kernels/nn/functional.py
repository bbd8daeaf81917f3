"""Holds the fused operators as networks call them: with or without a batch, under autocast, in mixed dtypes.

What an operator does not take is computed in parts.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dispatch import Activation, Impl, is_cast_by_autocast
from ..instance_norm import apply_activation, instance_norm
from ..reflection_pad import reflection_pad
from ..residual_block import residual_block


def fused_norm(
    x: Tensor,
    residual: Tensor | None,
    *,
    activation: Activation,
    negative_slope: float,
    pad: int,
    eps: float,
    impl: Impl,
    is_function: bool = False,
) -> Tensor:
    """Compute `instance_norm` for x [N, C, H, W] or [C, H, W]; a residual may have another dtype, or be broadcast.

    `is_function` stands for `F.instance_norm`, to which three dimensions are [N, C, L].
    """
    if x.dim() == 4 and (residual is None or _is_like(residual, x)):
        return instance_norm(
            x, activation=activation, negative_slope=negative_slope, residual=residual, pad=pad, eps=eps, impl=impl
        )
    if x.dim() == 4:
        y = instance_norm(x, activation=activation, negative_slope=negative_slope, eps=eps, impl=impl)
    elif is_function or x.dim() != 3:
        y = apply_activation(F.instance_norm(x, eps=eps), activation, negative_slope)
    else:
        y = instance_norm(x[None], activation=activation, negative_slope=negative_slope, eps=eps, impl=impl)[0]
    if residual is not None:
        y = y + residual
    return padded(y, pad, impl=impl) if pad else y


def _is_like(residual: Any, x: Tensor) -> bool:
    return isinstance(residual, Tensor) and residual.shape == x.shape and residual.dtype == x.dtype


def padded(x: Tensor, pad: int, *, impl: Impl) -> Tensor:
    """Pad x [N, C, H, W] or [C, H, W] by reflection."""
    if x.dim() == 3:
        return reflection_pad(x[None], pad, impl=impl)[0]
    return reflection_pad(x, pad, impl=impl)


def interior(buffer: Tensor, pad: int) -> Tensor:
    """Return what a padded buffer [..., H + 2*pad, W + 2*pad] had before it was padded, as a view."""
    return buffer[..., pad:-pad, pad:-pad]


def convolve(convolution: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, *, with_bias: bool) -> Tensor:
    """Compute what a convolution does, on an x that is padded already where it pads by reflection.

    Without its bias, which an instance norm behind it subtracts again, the bias gets a gradient of zeros.
    """
    bias = convolution.bias if with_bias else None
    if isinstance(convolution, nn.ConvTranspose2d):
        y = F.conv_transpose2d(
            x,
            convolution.weight,
            bias,
            convolution.stride,
            convolution.padding,  # type: ignore[arg-type]  # words are for Conv2d
            convolution.output_padding,
            convolution.groups,
            convolution.dilation,
        )
    else:
        padding = 0 if convolution.padding_mode == "reflect" else convolution.padding
        y = F.conv2d(x, convolution.weight, bias, convolution.stride, padding, convolution.dilation, convolution.groups)
    return y if with_bias else _with_bias_in_graph(y, convolution.bias)


def fused_block(
    x: Tensor,
    convolution1: nn.Conv2d,
    convolution2: nn.Conv2d,
    *,
    pad_out: int,
    eps: float,
    impl: Impl,
    is_function: bool = False,
) -> Tensor:
    """Compute `residual_block` for an x that is padded by 1, [N, C, H + 2, W + 2] or without N.

    `is_function` says of its norms what it says to `fused_norm`.
    """
    if x.dim() == 3 or _changes_under_autocast(x):
        # Under autocast x keeps its dtype around the block, which the sum takes on; the operator has one for all.
        norm: dict[str, Any] = {"negative_slope": 0.0, "eps": eps, "impl": impl, "is_function": is_function}
        middle = fused_norm(convolve(convolution1, x, with_bias=False), None, activation="relu", pad=1, **norm)
        second = convolve(convolution2, middle, with_bias=False)
        return fused_norm(second, interior(x, 1), activation="none", pad=pad_out, **norm)
    weights = [_with_bias_in_graph(part.weight, part.bias) for part in (convolution1, convolution2)]
    return residual_block(x, *weights, pad_out=pad_out, eps=eps, impl=impl)


def _changes_under_autocast(x: Tensor) -> bool:
    device = x.device.type
    if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return False
    return is_cast_by_autocast(x) and x.dtype != torch.get_autocast_dtype(device)


def _with_bias_in_graph(x: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None or not bias.requires_grad or not torch.is_grad_enabled():
        return x
    y: Tensor = _CancelledBias.apply(x, bias)  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped
    return y


class _CancelledBias(torch.autograd.Function):
    """Passes a tensor on, and gives a bias that has no influence its gradient, zeros.

    Without one DistributedDataParallel would wait for it, and optimizers would treat the bias as unused.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.shape, ctx.dtype, ctx.device = bias.shape, bias.dtype, bias.device
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor, Tensor]:
        return dx, torch.zeros(ctx.shape, dtype=ctx.dtype, device=ctx.device)
