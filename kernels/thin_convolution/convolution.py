"""Provides the convolutions from and to a thin tensor: operators of stride 1 and without padding.

`conv2d_to_thin` computes its result and the gradient of its weights here, `conv2d_from_thin` both of its gradients; the
library (cuDNN) computes the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import plans
from ..arguments.options import check_flag, checked_integer
from ..arguments.tensors import check_image_batch, check_like, check_tensor
from ..dispatch import Impl, autocast, choose
from ..gpus import gpu_of
from ..layout import empty_channels_last, needs_wide_offsets
from ..registration import (
    FusedFunction,
    below_autograd,
    cast_under_autocast,
    define,
    differentiable_once,
    differentiate,
)
from .forward import convolve_to_thin
from .planning import LARGEST_KERNEL, MOST_CHANNELS, MOST_THIN
from .weight_gradient import sum_weight_gradient
from .weights import ThinWeight


def conv2d_to_thin_reference(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, tanh: bool) -> Tensor:
    """Convolve in plain PyTorch."""
    y = F.conv2d(x, weight, bias, groups=groups)
    return torch.tanh(y) if tanh else y


def conv2d_from_thin_reference(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve in plain PyTorch."""
    return F.conv2d(x, weight, groups=groups)


# --- to a thin tensor ------------------------------------------------------------------------------------------------


def _key(operator: str, x: Tensor, weight: Sequence[int]) -> str:
    """Return the key of a convolution in a tuned table; `weight` is the weight's shape."""
    batch, _, height, width = x.shape
    lost = weight[2] - 1
    return plans.thin_key(operator, (batch, weight[0], height - lost, width - lost), weight, x.dtype)


def _plan(operator: str, x: Tensor, weight: Sequence[int]) -> plans.ThinPlan:
    return plans.thin_plan(_key(operator, x, weight), gpu_of(x))


def beats_library(operator: str, x: Tensor, weight: Tensor, groups: int = 1) -> bool:
    """Return whether the kernels take a convolution, and were measured to be faster than the library there."""
    return suits_thin(operator, x, weight, groups) and plans.thin_beats_library(
        _key(operator, x, weight.shape), gpu_of(x)
    )


def launch_to_thin(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, tanh: bool) -> Tensor:
    """Launch the convolution of `conv2d_to_thin`."""
    plan = _plan("conv2d_to_thin", x, weight.shape)
    return convolve_to_thin(x, ThinWeight(weight, groups, True), bias, plan, pad=0, flipped=False, tanh=tanh)


def _fake_to_thin(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, tanh: bool) -> Tensor:
    lost = weight.size(2) - 1
    return empty_channels_last((x.size(0), weight.size(0), x.size(2) - lost, x.size(3) - lost), like=x)


def launch_to_thin_wgrad(dy: Tensor, x: Tensor, kernel: int, groups: int) -> Tensor:
    """Launch the gradient of the weights [G * thin, C, K, K], from dy and x as `conv2d_to_thin` has them."""
    gradient = _fake_to_thin_wgrad(dy, x, kernel, groups)
    plan = _plan("conv2d_to_thin", x, gradient.shape)
    sum_weight_gradient(x, dy, ThinWeight(gradient, groups, True), plan, pad=kernel - 1, flipped=True)
    return gradient


def _fake_to_thin_wgrad(dy: Tensor, x: Tensor, kernel: int, groups: int) -> Tensor:
    return empty_channels_last((dy.size(1), x.size(1) // groups, kernel, kernel), like=x)


_TO_THIN = define(
    "conv2d_to_thin(Tensor x, Tensor weight, Tensor? bias, int groups, bool tanh) -> Tensor",
    launch_to_thin,
    _fake_to_thin,
)
_TO_THIN_WGRAD = define(
    "conv2d_to_thin_wgrad(Tensor dy, Tensor x, int kernel, int groups) -> Tensor",
    launch_to_thin_wgrad,
    _fake_to_thin_wgrad,
)
cast_under_autocast(_TO_THIN)


class _ToThinFunction(FusedFunction):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, tanh: bool) -> Tensor:
        with below_autograd():
            y: Tensor = _TO_THIN(x, weight, bias, groups, tanh)
        ctx.save_for_backward(x, weight, *([y] if tanh else []))
        ctx.groups = groups
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *tanh = ctx.saved_tensors
        if tanh:
            dy = torch.ops.aten.tanh_backward(dy, tanh[0])
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        dx = _library_dgrad(dy, x, weight, ctx.groups) if wants_x else None
        d_weight = _TO_THIN_WGRAD(dy, x, weight.size(2), ctx.groups) if wants_weight else None
        return dx, d_weight, dy.sum((0, 2, 3)) if wants_bias else None, None, None


differentiate(_TO_THIN, _ToThinFunction)


def _library_dgrad(dy: Tensor, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    if dy.numel() == 0:  # fake and real convolutions disagree about the layout of empty tensors
        return torch.zeros_like(x)
    one, zero = [1, 1], [0, 0]
    dx: Tensor = torch.ops.aten.convolution_backward(
        dy, x, weight, None, one, zero, one, False, zero, groups, [True, False, False]
    )[0]
    return dx


# --- from a thin tensor ----------------------------------------------------------------------------------------------


def _launch_from_thin(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    return F.conv2d(x, weight, groups=groups).contiguous(memory_format=torch.channels_last)


def _fake_from_thin(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    return _fake_to_thin(x, weight, None, groups, False)


def launch_from_thin_dgrad(dy: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Launch the gradient of x, from dy [N, G * C, H, W] and the weight of `conv2d_from_thin`."""
    pad = weight.size(2) - 1
    batch, channels, height, width = dy.shape
    key = plans.thin_key("conv2d_from_thin", (batch, channels, height, width), weight.shape, dy.dtype)
    plan = plans.thin_plan(key, gpu_of(dy))
    return convolve_to_thin(dy, ThinWeight(weight, groups, False), None, plan, pad=pad, flipped=True, tanh=False)


def _fake_from_thin_dgrad(dy: Tensor, weight: Tensor, groups: int) -> Tensor:
    more = weight.size(2) - 1
    return empty_channels_last((dy.size(0), groups * weight.size(1), dy.size(2) + more, dy.size(3) + more), like=dy)


def launch_from_thin_wgrad(dy: Tensor, x: Tensor, kernel: int, groups: int) -> Tensor:
    """Launch the gradient of the weights [G * C, thin, K, K], from dy and x as `conv2d_from_thin` has them."""
    gradient = _fake_to_thin_wgrad(dy, x, kernel, groups)
    plan = _plan("conv2d_from_thin", x, gradient.shape)
    sum_weight_gradient(dy, x, ThinWeight(gradient, groups, False), plan, pad=0, flipped=False)
    return gradient


_FROM_THIN = define(
    "conv2d_from_thin(Tensor x, Tensor weight, int groups) -> Tensor", _launch_from_thin, _fake_from_thin
)
_FROM_THIN_DGRAD = define(
    "conv2d_from_thin_dgrad(Tensor dy, Tensor weight, int groups) -> Tensor",
    launch_from_thin_dgrad,
    _fake_from_thin_dgrad,
)
_FROM_THIN_WGRAD = define(
    "conv2d_from_thin_wgrad(Tensor dy, Tensor x, int kernel, int groups) -> Tensor",
    launch_from_thin_wgrad,
    _fake_to_thin_wgrad,
)
cast_under_autocast(_FROM_THIN)


class _FromThinFunction(FusedFunction):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        with below_autograd():
            y: Tensor = _FROM_THIN(x, weight, groups)
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = _FROM_THIN_DGRAD(dy, weight, ctx.groups) if ctx.needs_input_grad[0] else None
        d_weight = _FROM_THIN_WGRAD(dy, x, weight.size(2), ctx.groups) if ctx.needs_input_grad[1] else None
        return dx, d_weight, None


differentiate(_FROM_THIN, _FromThinFunction)


# --- public ----------------------------------------------------------------------------------------------------------

_TO_THIN_IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, Tensor | None, int, bool], Tensor]] = {
    "reference": conv2d_to_thin_reference,
    "triton": _TO_THIN,
}
_FROM_THIN_IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "reference": conv2d_from_thin_reference,
    "triton": _FROM_THIN,
}


def conv2d_to_thin(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int = 1, tanh: bool = False, impl: Impl = "auto"
) -> Tensor:
    """Convolve many channels to at most sixteen a group, stride 1 and no padding, and take the tanh if asked to.

    x is [N, G * C, H, W], weight [G * thin, C, K, K], bias [G * thin] or None; returns [N, G * thin, H - K + 1,
    W - K + 1]. Triton takes what `suits_thin` says and writes channels last; in float32 and float64 "auto" is the
    reference. Autocast casts x, weight and bias as for any convolution.

    Raises ValueError where the shapes do not fit, TypeError where an operand is no dense tensor, the dtypes differ or
    Triton was asked for and does not take them, RuntimeError as `choose` does.
    """
    check_image_batch("x", x)
    check_tensor("weight", weight)
    if bias is not None:
        check_tensor("bias", bias)
    check_flag("tanh", tanh)
    x, weight, *others = autocast(x, weight, *([] if bias is None else [bias]))
    bias = others[0] if others else None
    groups = _checked_groups(x, weight, groups)
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"bias must be [{weight.size(0)}], got {tuple(bias.shape)}")
        check_like("bias", bias, x)
    chosen = _chosen("conv2d_to_thin", impl, x, weight, groups)
    return _TO_THIN_IMPLEMENTATIONS[chosen](x, weight, bias, groups, tanh)


def conv2d_from_thin(x: Tensor, weight: Tensor, *, groups: int = 1, impl: Impl = "auto") -> Tensor:
    """Convolve at most sixteen channels a group to many, stride 1, no padding and no bias.

    x is [N, G * thin, H, W], weight [G * C, thin, K, K]; returns [N, G * C, H - K + 1, W - K + 1]. The rest is as in
    `conv2d_to_thin`.
    """
    check_image_batch("x", x)
    check_tensor("weight", weight)
    x, weight = autocast(x, weight)
    groups = _checked_groups(x, weight, groups)
    chosen = _chosen("conv2d_from_thin", impl, x, weight, groups)
    return _FROM_THIN_IMPLEMENTATIONS[chosen](x, weight, groups)


def suits_thin(operator: str, x: Tensor, weight: Tensor, groups: int = 1) -> bool:
    """Return whether the kernels take a convolution of an operator, whose name says which side is thin.

    They take float16 and bfloat16, odd kernels of 3 to 7 taps a side, at most 16 channels a group on one side and 16 to
    128 on the other, and images with less than 2^31 elements.
    """
    kernel = weight.size(2)
    sides = (weight.size(0) // groups, weight.size(1))
    thin, wide = sides if operator == "conv2d_to_thin" else sides[::-1]
    return (
        x.dtype in (torch.float16, torch.bfloat16)
        and kernel == weight.size(3)
        and kernel in range(3, LARGEST_KERNEL + 1, 2)
        and thin <= MOST_THIN
        and 16 <= wide <= MOST_CHANNELS
        and x.size(2) * x.size(3) * groups * wide < 2**31
        and not needs_wide_offsets(x)
    )


def _chosen(operator: str, impl: Impl, x: Tensor, weight: Tensor, groups: int) -> str:
    chosen = choose(operator, impl, x)
    if chosen == "triton" and not suits_thin(operator, x, weight, groups):
        if impl == "auto":
            return "reference"
        raise TypeError(
            f"impl='triton' for {operator} takes float16 or bfloat16, odd kernels up to {LARGEST_KERNEL} and at most "
            f"{MOST_THIN} channels on one side, got {x.dtype} and weights {tuple(weight.shape)} in {groups} groups"
        )
    return chosen


def _checked_groups(x: Tensor, weight: Tensor, groups: int) -> int:
    """Return the number of groups; raises ValueError or TypeError where x, the weight and it do not fit together."""
    groups = checked_integer("groups", groups, 1, x.size(1))
    is_filter = weight.dim() == 4 and min(weight.shape) > 0
    if not is_filter or weight.size(1) * groups != x.size(1) or weight.size(0) % groups:
        raise ValueError(
            f"weight must be [C_out, {x.size(1)} / {groups}, K, K], C_out a multiple of {groups}, "
            f"got {tuple(weight.shape)}"
        )
    check_like("weight", weight, x)
    if min(x.shape[2:]) < max(weight.shape[2:]):
        raise ValueError(f"x must be at least as large as the kernel, got {tuple(x.shape)} and {tuple(weight.shape)}")
    return groups
