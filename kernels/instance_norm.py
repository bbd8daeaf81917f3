"""Computes instance norm (Ulyanov et al. 2016, arXiv 1607.08022) with activation, residual sum and reflection padding.

The Triton kernels and their launches are in `norm/`, the operators in C in `cpu/`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments.options import check_choice, checked_eps, checked_number, checked_pad
from .arguments.tensors import check_image_batch, check_like, check_tensor
from .cpu.operators import format_of, norm_gradient_in_c, norm_in_c, pad_gradient_in_c, wide_dtype
from .dispatch import ACTIVATIONS, Activation, Impl, choose, is_exporting, wide
from .layout import empty_channels_last
from .norm.backward import norm_backward
from .norm.forward import norm_forward
from .pending_sum import split_gradient
from .reflection_pad import reflection_pad_reference
from .registration import FusedFunction, below_autograd, define, differentiable_once, differentiate, is_watched


def instance_norm_reference(
    x: Tensor,
    *,
    activation: Activation,
    negative_slope: float,
    residual: Tensor | None,
    pad: int,
    eps: float,
    partials: Tensor | None = None,
) -> Tensor:
    """Return y = reflect_pad(act((x - mean) * rstd) + residual), in plain PyTorch.

    rstd = 1 / sqrt(variance + eps); mean and biased variance are those over H, W of each (n, c). `partials` are not
    used.
    """
    y = apply_activation(_normalise(x, eps) if x.numel() else x, activation, negative_slope)
    if residual is not None:
        y = y + residual
    return reflection_pad_reference(y, pad)


def apply_activation(x: Tensor, activation: Activation, negative_slope: float) -> Tensor:
    """Return the activation of x, by PyTorch's operator."""
    if activation == "relu":
        return F.relu(x)
    return F.leaky_relu(x, negative_slope) if activation == "leaky_relu" else x


def _normalise(x: Tensor, eps: float) -> Tensor:
    if eps == 0 and not is_exporting():
        # PyTorch's instance norm makes 0 of a plane of one value, where the formula and the other implementations make
        # NaN, and its batch norm refuses this eps.
        return _normalise_written_out(x, eps)
    if x.is_cuda or is_exporting():
        return F.instance_norm(x, eps=eps)
    is_wide = x.dtype in (torch.float32, torch.float64)
    if torch.compiler.is_compiling() and not is_wide:
        # The compiler's code for a norm with float32 weights is slower than no compiler.
        return _normalise_written_out(x, eps)
    # Without float32 weights PyTorch's norms on the CPU round their statistics to x's dtype: at |mean| = 17 std the
    # error of a bfloat16 result is 2e-2 instead of the 1.7e-3 of one rounding.
    ones = None if is_wide else torch.ones(x.size(1), device=x.device)
    zeros = None if is_wide else torch.zeros(x.size(1), device=x.device)
    if x.size(0) > 1 and not x.is_contiguous(memory_format=torch.channels_last):
        return F.instance_norm(x, weight=ones, bias=zeros, eps=eps)
    # The instance norm of one image is a batch norm. PyTorch's instance norm returns a view, and the gradient of the
    # batch norm inside it takes a channels-last gradient for one that is not (torch 2.13): the result is off by its own
    # size. Several channels-last images it would copy to the other format and back.
    images = [
        F.batch_norm(_strides_renewed(image), None, None, ones, zeros, training=True, eps=eps)
        for image in torch.split(x, 1)
    ]
    return images[0] if len(images) == 1 else torch.cat(images)


def _normalise_written_out(x: Tensor, eps: float) -> Tensor:
    values = wide(x)
    variance, mean = torch.var_mean(values, (2, 3), correction=0, keepdim=True)
    return ((values - mean) * (variance + eps).rsqrt()).to(x.dtype)


def _strides_renewed(image: Tensor) -> Tensor:
    """Return a channels-last image with the stride that a whole image has, also where it was none of a batch.

    The stride of a single image is arbitrary, and batch norm's gradient takes the memory format from it all the same.
    """
    _, channels, height, width = image.shape
    if image.stride(0) == channels * height * width or not image.is_contiguous(memory_format=torch.channels_last):
        return image
    return image[0].permute(1, 2, 0).view(1, height, width, channels).permute(0, 3, 1, 2)


# --- the Triton operator; its kernels stand in norm/forward.py and norm/backward.py ----------------------------------


def _launch_forward(
    x: Tensor,
    residual: Tensor | None,
    partials: Tensor | None,
    activation: Activation,
    negative_slope: float,
    pad: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    return norm_forward(
        x,
        activation=activation,
        negative_slope=negative_slope,
        residual=residual,
        pad=pad,
        eps=eps,
        partials=partials,
    )


def _fake_forward(
    x: Tensor,
    residual: Tensor | None,
    partials: Tensor | None,
    activation: Activation,
    negative_slope: float,
    pad: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    y = empty_channels_last((batch, channels, height + 2 * pad, width + 2 * pad), like=x)
    return y, torch.empty((batch, 3, channels), dtype=torch.float32, device=x.device)


_FORWARD = define(
    "instance_norm(Tensor x, Tensor? residual, Tensor? partials, str activation, float negative_slope, int pad, "
    "float eps) -> (Tensor y, Tensor statistics)",
    _launch_forward,
    _fake_forward,
)


def _launch_backward(
    dy: Tensor,
    skip: Tensor | None,
    x: Tensor,
    statistics: Tensor,
    activation: Activation,
    negative_slope: float,
    pad: int,
    wants_residual: bool,
) -> tuple[Tensor, Tensor]:
    gradients = norm_backward(
        dy,
        x,
        statistics,
        activation=activation,
        negative_slope=negative_slope,
        pad=pad,
        skip=skip,
        wants_residual=wants_residual,
    )
    return gradients.dx, x.new_empty(0) if gradients.d_residual is None else gradients.d_residual


def _fake_backward(
    dy: Tensor,
    skip: Tensor | None,
    x: Tensor,
    statistics: Tensor,
    activation: Activation,
    negative_slope: float,
    pad: int,
    wants_residual: bool,
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    dx = empty_channels_last((batch, channels, height, width), like=x)
    return dx, torch.empty_like(dx) if wants_residual else x.new_empty(0)


_BACKWARD = define(
    "instance_norm_backward(Tensor dy, Tensor? skip, Tensor x, Tensor statistics, str activation, "
    "float negative_slope, int pad, bool wants_residual) -> (Tensor dx, Tensor d_residual)",
    _launch_backward,
    _fake_backward,
)


class InstanceNormFunction(FusedFunction):
    """Differentiates the operator; it keeps x and the statistics for the backward pass, and neither xhat nor y."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        partials: Tensor | None,
        activation: Activation,
        negative_slope: float,
        pad: int,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        with below_autograd():
            y, statistics = _FORWARD(x, residual, partials, activation, negative_slope, pad, eps)
        ctx.save_for_backward(x, statistics)
        ctx.mark_non_differentiable(statistics)
        ctx.set_materialize_grads(False)
        ctx.activation, ctx.negative_slope, ctx.pad = activation, negative_slope, pad
        return y, statistics

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 7
        x, statistics = ctx.saved_tensors
        dy, skip = split_gradient(dy, ctx.pad)
        wants_residual = ctx.needs_input_grad[1]
        # Without a pad, dy itself is the residual's gradient.
        separate = wants_residual and ctx.pad > 0
        dx, d_residual = _BACKWARD(dy, skip, x, statistics, ctx.activation, ctx.negative_slope, ctx.pad, separate)
        return dx, (d_residual if separate else dy) if wants_residual else None, None, None, None, None, None


differentiate(_FORWARD, InstanceNormFunction)


def instance_norm_triton(
    x: Tensor,
    *,
    activation: Activation,
    negative_slope: float,
    residual: Tensor | None,
    pad: int,
    eps: float,
    partials: Tensor | None,
) -> Tensor:
    """Return what `instance_norm_reference` does, through the operator `cyclegan_fast::instance_norm`."""
    y: Tensor = _FORWARD(x, residual, partials, activation, negative_slope, pad, eps)[0]
    return y


# --- the operator in C, for a CPU ------------------------------------------------------------------------------------


def _fake_forward_in_c(x: Tensor, residual: Tensor | None, slope: float, pad: int, eps: float) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    shape = (batch, channels, height + 2 * pad, width + 2 * pad)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=format_of(x))
    return y, torch.empty((2, batch, channels), dtype=wide_dtype(x.dtype), device=x.device)


_FORWARD_IN_C = define(
    "instance_norm_in_c(Tensor x, Tensor? residual, float slope, int pad, float eps) -> (Tensor y, Tensor statistics)",
    norm_in_c,
    _fake_forward_in_c,
)


def _run_backward_in_c(
    dy: Tensor, x: Tensor, statistics: Tensor, slope: float, pad: int, wants_residual: bool
) -> tuple[Tensor, Tensor]:
    d_sum = pad_gradient_in_c(dy, pad) if pad else dy
    return norm_gradient_in_c(d_sum, x, statistics, slope), d_sum if wants_residual else x.new_empty(0)


def _fake_backward_in_c(
    dy: Tensor, x: Tensor, statistics: Tensor, slope: float, pad: int, wants_residual: bool
) -> tuple[Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=format_of(x))
    d_residual = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=format_of(dy))
    return dx, d_residual if wants_residual else x.new_empty(0)


_BACKWARD_IN_C = define(
    "instance_norm_in_c_backward(Tensor dy, Tensor x, Tensor statistics, float slope, int pad, bool wants_residual) "
    "-> (Tensor dx, Tensor d_residual)",
    _run_backward_in_c,
    _fake_backward_in_c,
)


class _InstanceNormInCFunction(FusedFunction):
    """Differentiates the operator in C; it keeps x and the statistics for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, slope: float, pad: int, eps: float
    ) -> tuple[Tensor, Tensor]:
        with below_autograd():
            forward = _FORWARD_IN_C if is_watched(x, residual) else norm_in_c
            y, statistics = forward(x, residual, slope, pad, eps)
        ctx.save_for_backward(x, statistics)
        ctx.mark_non_differentiable(statistics)
        ctx.set_materialize_grads(False)
        ctx.slope, ctx.pad = slope, pad
        return y, statistics

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 5
        x, statistics = ctx.saved_tensors
        wants_residual = ctx.needs_input_grad[1]
        # Without a pad, dy itself is the residual's gradient.
        separate = wants_residual and ctx.pad > 0
        backward = _BACKWARD_IN_C if is_watched(dy) else _run_backward_in_c
        dx, d_residual = backward(dy, x, statistics, ctx.slope, ctx.pad, separate)
        return dx, (d_residual if separate else dy) if wants_residual else None, None, None, None


differentiate(_FORWARD_IN_C, _InstanceNormInCFunction)


def instance_norm_c(
    x: Tensor,
    *,
    activation: Activation,
    negative_slope: float,
    residual: Tensor | None,
    pad: int,
    eps: float,
    partials: Tensor | None,
) -> Tensor:
    """Return what `instance_norm_reference` does, through the operator `cyclegan_fast::instance_norm_in_c`.

    Where nobody watches, the operator's function or its derivative is called by itself.
    """
    slope = {"none": 1.0, "relu": 0.0, "leaky_relu": negative_slope}[activation]
    y: Tensor
    if is_watched(x, residual):
        y = _FORWARD_IN_C(x, residual, slope, pad, eps)[0]
    elif torch.is_grad_enabled() and (x.requires_grad or (residual is not None and residual.requires_grad)):
        y = _InstanceNormInCFunction.apply(x, residual, slope, pad, eps)[0]  # type: ignore[no-untyped-call]  # torch's own lack
    else:
        y = norm_in_c(x, residual, slope, pad, eps)[0]
    return y


_IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "reference": instance_norm_reference,
    "c": instance_norm_c,
    "triton": instance_norm_triton,
}


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
        x: [N, C, H, W], C at least 1 and H*W at least 2, any floating dtype.
        activation: "none", "relu" or "leaky_relu".
        negative_slope: the leaky ReLU's slope below zero, a finite number.
        residual: [N, C, H, W] of x's dtype and device; may be strided, such as the interior of a padded buffer.
        pad: reflection padding of the result, smaller than H and W.
        eps: added to the biased variance; finite, at least 0. With 0 a plane of one value becomes NaN.
        partials: [N, tiles, 3, C] count, mean and M2 of each tile of x, as `conv2d_reflect` returns them. They save a
            pass over x and change nothing else; the reference has no use for them.
        impl: see `kernels.dispatch.choose`.

    Returns [N, C, H + 2*pad, W + 2*pad] in x's dtype. Raises ValueError or TypeError naming the argument at fault.
    """
    check_image_batch("x", x)
    height, width = x.shape[2:]
    pad = checked_pad(pad, height, width)
    if height * width == 1:
        raise ValueError("x must have more than one pixel a plane to have a variance, got 1x1")
    check_choice("activation", activation, ACTIVATIONS)
    negative_slope, eps = checked_number("negative_slope", negative_slope), checked_eps(eps)
    if residual is not None:
        _check_residual(x, residual)
    if partials is not None:
        _check_partials(x, partials)
    implementation = _IMPLEMENTATIONS[choose("instance_norm", impl, x)]
    return implementation(
        x,
        activation=activation,
        negative_slope=negative_slope,
        residual=residual,
        pad=pad,
        eps=eps,
        partials=partials,
    )


def _check_partials(x: Tensor, partials: Tensor) -> None:
    check_tensor("partials", partials)
    batch, channels = x.shape[:2]
    if partials.dim() != 4 or partials.shape[::2] != (batch, 3) or partials.size(3) != channels or partials.size(1) < 1:
        raise ValueError(f"partials must be [{batch}, tiles, 3, {channels}], got {tuple(partials.shape)}")
    allowed = (torch.float32, torch.promote_types(x.dtype, torch.float32))
    if partials.dtype not in allowed or partials.device != x.device:
        raise TypeError(f"partials must be {allowed[-1]} on {x.device}, got {partials.dtype} on {partials.device}")


def _check_residual(x: Tensor, residual: Tensor) -> None:
    check_tensor("residual", residual)
    if residual.shape != x.shape:
        raise ValueError(f"residual must have x's shape {tuple(x.shape)}, got {tuple(residual.shape)}")
    check_like("residual", residual, x)
