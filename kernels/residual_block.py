"""Computes the generator's residual block as one operator that reads and writes reflection-padded buffers.

It runs the kernels of `conv2d` and `norm/` and the library's convolutions, and has no kernel of its own.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import plans
from .arguments.options import checked_eps, checked_integer
from .arguments.tensors import check_image_batch, check_like, check_tensor
from .conv2d import conv_forward, conv_gradients, groups_of
from .convolution.edge_gradients import LEAST_SIDE, reflected_input_gradient
from .convolution.weight_gradients import placed, weight_gradient
from .dispatch import Impl, autocast, choose
from .gpus import gpu_of
from .instance_norm import InstanceNormFunction, instance_norm_reference
from .layout import empty_channels_last
from .norm.backward import norm_backward
from .norm.forward import norm_forward
from .pending_sum import PendingSum, split_gradient
from .registration import FusedFunction, below_autograd, cast_under_autocast, define, differentiable_once, differentiate


def residual_block_reference(x: Tensor, weight1: Tensor, weight2: Tensor, pad_out: int, eps: float) -> Tensor:
    """Return y = x + norm(conv(pad(relu(norm(conv(x)))))), in plain PyTorch.

    There is no activation after the sum (Johnson et al. 2016). x is padded already; y is padded by `pad_out`.
    """
    groups = groups_of(x, weight1)
    middle = F.conv2d(x, weight1, groups=groups)
    middle = instance_norm_reference(middle, activation="relu", negative_slope=0.0, residual=None, pad=1, eps=eps)
    return instance_norm_reference(
        F.conv2d(middle, weight2, groups=groups),
        activation="none",
        negative_slope=0.0,
        residual=x[:, :, 1:-1, 1:-1],
        pad=pad_out,
        eps=eps,
    )


# --- the Triton operator ---------------------------------------------------------------------------------------------


def _launch_forward(
    x: Tensor, weight1: Tensor, weight2: Tensor, pad_out: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    first, partials = _convolve(x, weight1)
    middle, statistics1 = norm_forward(
        first, activation="relu", negative_slope=0.0, residual=None, pad=1, eps=eps, partials=partials
    )
    second, partials = _convolve(middle, weight2)
    batch, channels, height, width = second.shape
    y, statistics2 = norm_forward(
        second,
        activation="none",
        negative_slope=0.0,
        residual=x[:, :, 1:-1, 1:-1],
        pad=pad_out,
        eps=eps,
        partials=partials,
        y=placed("result", weight2, (batch, channels, height + 2, width + 2)) if pad_out else None,
    )
    return y, first, statistics1, second, statistics2


def _convolve(padded: Tensor, weight: Tensor) -> tuple[Tensor, Tensor | None]:
    """Convolve [N, C, H + 2, W + 2] without further padding; return the result, and its partials or None.

    Of the library's convolution, which has no partials, and this package's, the one runs that is faster together with
    the norm behind it. This package's has no groups.
    """
    batch, channels, height, width = padded.shape
    shape = (batch, channels, height - 2, width - 2)
    groups = groups_of(padded, weight)
    if groups == 1 and padded.numel() and plans.conv_beats_library(shape, weight.size(0), padded.dtype, gpu_of(padded)):
        return conv_forward(padded, weight, reflect=False)
    return F.conv2d(padded, weight, groups=groups), None


def _fake_forward(
    x: Tensor, weight1: Tensor, weight2: Tensor, pad_out: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, channels, height, width = x.shape
    height, width = height - 2, width - 2
    y = empty_channels_last((batch, channels, height + 2 * pad_out, width + 2 * pad_out), like=x)
    statistics = torch.empty((batch, 3, channels), dtype=torch.float32, device=x.device)
    first = F.conv2d(x, weight1, groups=groups_of(x, weight1))
    second = F.conv2d(_middle_like(x), weight2, groups=groups_of(x, weight2))
    return y, first, statistics, second, torch.empty_like(statistics)


def _middle_like(x: Tensor) -> Tensor:
    """Return the padded middle activation, uninitialised: of x's shape, channels last."""
    return empty_channels_last((x.size(0), x.size(1), x.size(2), x.size(3)), like=x)


_FORWARD = define(
    "residual_block(Tensor x, Tensor weight1, Tensor weight2, int pad_out, float eps) "
    "-> (Tensor y, Tensor first, Tensor statistics1, Tensor second, Tensor statistics2)",
    _launch_forward,
    _fake_forward,
)
cast_under_autocast(_FORWARD)


def _launch_backward(
    dy: Tensor,
    skip: Tensor | None,
    x: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    first: Tensor,
    statistics1: Tensor,
    second: Tensor,
    statistics2: Tensor,
    pad_out: int,
    wants_around: bool,
    wants_x: bool,
    wants_middle: bool,
    folds_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    norm2 = norm_backward(
        dy,
        second,
        statistics2,
        activation="none",
        negative_slope=0.0,
        pad=pad_out,
        skip=skip,
        wants_residual=wants_around,
        dx=placed("gradient", weight2, second.shape),
    )
    d_middle = input_gradient(norm2.dx, x, weight2, first, folds=_edges_pay(first, weight2))
    # Norm 1, which reads `first` in any case, remakes the middle activation.
    norm1 = norm_backward(
        d_middle,
        first,
        statistics1,
        activation="relu",
        negative_slope=0.0,
        pad=1,
        remake=wants_middle,
        dx=placed("gradient", weight1, first.shape),
        remade=placed("middle", weight2, x.shape) if wants_middle else None,
    )
    dx = input_gradient(norm1.dx, x, weight1, first, folds=folds_x) if wants_x else None
    return _without_none((dx, norm2.d_residual, norm1.dx, norm2.dx, norm1.remade), x)


def _edges_pay(first: Tensor, weight: Tensor) -> bool:
    """Tell whether gradients without a frame are faster here; `first` is any tensor of the block without a pad."""
    batch, _, height, width = first.shape
    groups = groups_of(first, weight)
    shape = (batch, weight.size(1), height, width)
    return min(height, width) >= LEAST_SIDE and plans.edges_beat_padding(
        shape, weight.size(0) // groups, first.dtype, gpu_of(first)
    )


def input_gradient(dy: Tensor, padded: Tensor, weight: Tensor, unpadded: Tensor, *, folds: bool) -> Tensor:
    """Return the gradient of a convolution's padded input, or of that input before it was padded where `folds`.

    `padded` and `unpadded` say by their shapes what the input is like.
    """
    if folds:
        return reflected_input_gradient(dy, weight, unpadded)
    dx, _ = conv_gradients(dy, padded, weight, (True, False))
    assert dx is not None
    return dx


def _without_none(
    results: tuple[Tensor | None, Tensor | None, Tensor, Tensor, Tensor | None], x: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Replace None by an empty tensor for each result.

    An operator returns tensors only, and no two of them may be the same one.
    """
    a, b, c, d, e = (x.new_empty(0) if result is None else result for result in results)
    return a, b, c, d, e


def _fake_backward(
    dy: Tensor,
    skip: Tensor | None,
    x: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    first: Tensor,
    statistics1: Tensor,
    second: Tensor,
    statistics2: Tensor,
    pad_out: int,
    wants_around: bool,
    wants_x: bool,
    wants_middle: bool,
    folds_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    middle = _middle_like(x)
    d_first, d_second, around = (torch.empty_like(first, memory_format=torch.channels_last) for _ in range(3))
    dx = conv_gradients(d_first, x, weight1, (wants_x, False))[0]
    if wants_x and folds_x:
        dx = torch.empty_like(d_first)
    results = dx, around if wants_around else None, d_first, d_second, middle if wants_middle else None
    return _without_none(results, x)


_BACKWARD = define(
    "residual_block_backward(Tensor dy, Tensor? skip, Tensor x, Tensor weight1, Tensor weight2, Tensor first, "
    "Tensor statistics1, Tensor second, Tensor statistics2, int pad_out, bool wants_around, bool wants_x, "
    "bool wants_middle, bool folds_x) -> (Tensor dx, Tensor around, Tensor d_first, Tensor d_second, Tensor middle)",
    _launch_backward,
    _fake_backward,
)


class _ResidualBlockFunction(FusedFunction):
    """Differentiates the operator.

    It keeps the block's input, the results of both convolutions and their statistics for the backward pass, and remakes
    the middle activation.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight1: Tensor, weight2: Tensor, pad_out: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        with below_autograd():
            outputs = _FORWARD(x, weight1, weight2, pad_out, eps)
        ctx.save_for_backward(x, weight1, weight2, *outputs[1:])
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)
        ctx.pad_out = pad_out
        ctx.producer_adds = type(x.grad_fn).__name__ in _ADDING_NODES
        return outputs  # type: ignore[no-any-return]  # torch.ops is untyped

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 5
        dy, skip = split_gradient(dy, ctx.pad_out)
        wants_x, wants_weight1, wants_weight2 = ctx.needs_input_grad[:3]
        # Without a pad, dy itself goes around the block, unless the sum is put off: dy is the caller's, who may write
        # to it before the sum is formed.
        separate = wants_x and (ctx.pad_out > 0 or ctx.producer_adds)
        saved = ctx.saved_tensors  # which a checkpoint gives out once
        x, weight1, weight2 = saved[:3]
        # Who reads the gradient in parts folds it anyway.
        folds = ctx.producer_adds and type(dy) is Tensor and _edges_pay(saved[3], weight1)
        dx, around, d_first, d_second, middle = _BACKWARD(
            dy, skip, *saved, ctx.pad_out, separate, wants_x, wants_weight2, folds
        )
        if wants_x and folds:
            operands = d_first, x, weight1
            dx = PendingSum.of_folded(dx, around, x, lambda: input_gradient(*operands, d_first, folds=False), operands)
        elif wants_x:
            pending = PendingSum(dx, around if separate else dy)
            dx = pending if ctx.producer_adds and type(dx) is Tensor else pending.added()
        return (
            dx if wants_x else None,
            weight_gradient(d_first, x, weight1) if wants_weight1 else None,
            weight_gradient(d_second, middle, weight2) if wants_weight2 else None,
            None,
            None,
        )


differentiate(_FORWARD, _ResidualBlockFunction)

# The names of the autograd nodes whose backward kernels read a gradient in two parts (see `pending_sum`).
_ADDING_NODES = {f"{function.__name__}Backward" for function in (InstanceNormFunction, _ResidualBlockFunction)}


def residual_block_triton(x: Tensor, weight1: Tensor, weight2: Tensor, pad_out: int, eps: float) -> Tensor:
    """Return what `residual_block_reference` does, through the operator `cyclegan_fast::residual_block`."""
    y: Tensor = _FORWARD(x, weight1, weight2, pad_out, eps)[0]
    return y


_IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int, float], Tensor]] = {
    "reference": residual_block_reference,
    "triton": residual_block_triton,
}


def residual_block(
    x: Tensor, weight1: Tensor, weight2: Tensor, *, pad_out: int = 1, eps: float = 1e-5, impl: Impl = "auto"
) -> Tensor:
    """Apply a residual block: two 3x3 convolutions with instance norm, and a skip connection around them.

    x [N, C, H + 2, W + 2] is already padded by 1; weight1 and weight2 are [C, C, 3, 3] of x's dtype, or
    [C, C / groups, 3, 3]: the convolutions then map each group of x's channels to itself, as two blocks beside each
    other do. Returns [N, C, H + 2*pad_out, W + 2*pad_out]: pad_out 1 for the next block to read, 0 after the last one.
    The convolutions have no bias: the norm behind each would cancel it. Triton writes channels last. Autocast casts x
    and the weights as for any convolution.

    Raises ValueError or TypeError naming the argument at fault.
    """
    check_image_batch("x", x)
    check_tensor("weight1", weight1)
    check_tensor("weight2", weight2)
    x, weight1, weight2 = autocast(x, weight1, weight2)
    if min(x.shape[2:]) < 4:
        raise ValueError(f"x must be a padded buffer of at least 4x4 (2x2 and its pad of 1), got {tuple(x.shape)}")
    for name, weight in (("weight1", weight1), ("weight2", weight2)):
        _check_block_weight(name, weight, x)
    if weight1.shape != weight2.shape:
        raise ValueError(f"weight2 must have weight1's shape {tuple(weight1.shape)}, got {tuple(weight2.shape)}")
    eps, pad_out = checked_eps(eps), checked_integer("pad_out", pad_out, 0, 1)
    implementation = _IMPLEMENTATIONS[choose("residual_block", impl, x)]
    return implementation(x, weight1, weight2, pad_out, eps)


def _check_block_weight(name: str, weight: Tensor, x: Tensor) -> None:
    channels = x.size(1)
    if weight.dim() != 4 or weight.shape[2:] != (3, 3) or not weight.size(1) or channels % weight.size(1):
        raise ValueError(f"{name} must be [{channels}, {channels} / groups, 3, 3], got {tuple(weight.shape)}")
    if weight.size(0) != channels:
        raise ValueError(f"{name} must keep x's {channels} channels, got {weight.size(0)}")
    check_like(name, weight, x)
