"""Adds a bias and applies an activation, for the convolutions of the networks that no norm follows."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import plans
from ..arguments.options import check_choice, checked_number
from ..arguments.tensors import check_beside, check_floating, check_image_batch
from ..dispatch import Impl, choose
from ..launching import run_kernel
from ..layout import empty_channels_last
from ..registration import FusedFunction, below_autograd, define, differentiable_once, differentiate
from ..tiles import activated
from ..triton_language import tl, triton
from .partial_sums import elements_per_program, sum_of_columns

BiasedActivation = Literal["leaky_relu", "tanh"]
_ACTIVATIONS: tuple[BiasedActivation, ...] = get_args(BiasedActivation)


def bias_activation_reference(
    x: Tensor, bias: Tensor, activation: BiasedActivation, negative_slope: float = 0.2
) -> Tensor:
    """Compute `bias_activation` in plain PyTorch."""
    y = x + bias.to(x.dtype).view(-1, 1, 1)
    return torch.tanh(y) if activation == "tanh" else F.leaky_relu(y, negative_slope)


# --- kernels ---------------------------------------------------------------------------------------------------------


@triton.jit
def hyperbolic_tangent(x):
    """Return tanh(x) of float32, to a few units in the last place.

    Near 0, where 1 - exp(-2|x|) would cancel, it is the series up to x^7: its next term is 2e-10 of tanh(0.1).
    """
    square = x * x
    series = x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 - square * (17.0 / 315.0))))
    small = tl.exp(-2.0 * tl.abs(x))
    quotient = (1.0 - small) / (1.0 + small)
    return tl.where(tl.abs(x) < 0.1, series, tl.where(x < 0, -quotient, quotient))


@triton.jit(do_not_specialize=["pixels"])
def bias_activation_forward(
    x_ptr,  # [PIXELS, CHANNELS]: the pixels of all images
    bias_ptr,  # [CHANNELS]
    y_ptr,  # [PIXELS, CHANNELS]: written
    pixels,
    channels,
    slope,
    ACTIVATION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write y = act(x + bias); the grid is (blocks of pixels, blocks of channels, 1)."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    offsets = pixel[:, None] * channels + channel[None, :]
    bias = tl.load(bias_ptr + channel, mask=channel < channels, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32) + bias[None, :]
    y = hyperbolic_tangent(x) if ACTIVATION == "tanh" else activated(x, slope, ACTIVATION)
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["pixels", "pixels_per_program"])
def bias_activation_backward(
    x_ptr,  # [PIXELS, CHANNELS]: the forward pass's result
    dy_ptr,  # [PIXELS, CHANNELS]
    dx_ptr,  # [PIXELS, CHANNELS]: written
    partial_ptr,  # [PROGRAMS, CHANNELS], float32: written with WANTS_BIAS
    pixels,
    pixels_per_program,
    channels,
    slope,
    ACTIVATION: tl.constexpr,
    WANTS_BIAS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write dx = dy act', by the result, and its sum over a program's pixels.

    The grid is (programs, blocks of channels, 1).
    """
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < channels
    first = tl.program_id(0).to(tl.int64) * pixels_per_program
    last = tl.minimum(first + pixels_per_program, pixels)
    total = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), tl.float32)
    for start in range(first, last, BLOCK_PIXELS):
        pixel = start + tl.arange(0, BLOCK_PIXELS)
        mask = (pixel < last)[:, None] & channel_mask[None, :]
        offsets = pixel[:, None] * channels + channel[None, :]
        y = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        dx = dy * (1.0 - y * y) if ACTIVATION == "tanh" else tl.where(y > 0, dy, dy * slope)
        tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        total += dx
    if WANTS_BIAS:
        offsets = tl.program_id(0) * channels + channel
        tl.store(partial_ptr + offsets, tl.sum(total, axis=0), mask=channel_mask)


_TILE_ELEMENTS = 2048
_NUM_WARPS = 4


def _tile(channels: int) -> tuple[int, int]:
    block_channels = min(64, plans.power_of_two(channels))
    return _TILE_ELEMENTS // block_channels, block_channels


def _forward(x: Tensor, bias: Tensor, activation: BiasedActivation, negative_slope: float) -> Tensor:
    """Launch the forward kernel; return y [N, C, H, W], channels last."""
    y = empty_channels_last(x.shape, like=x)
    if x.numel() == 0:
        return y
    channels = x.size(1)
    pixels = x.numel() // channels
    block_pixels, block_channels = _tile(channels)
    arguments = {
        "x_ptr": x.contiguous(memory_format=torch.channels_last),
        "bias_ptr": bias.contiguous(),
        "y_ptr": y,
        "pixels": pixels,
        "channels": channels,
        "slope": negative_slope,
        "ACTIVATION": activation,
        "BLOCK_PIXELS": block_pixels,
        "BLOCK_CHANNELS": block_channels,
    }
    grid = plans.ceil_div(pixels, block_pixels), plans.ceil_div(channels, block_channels), 1
    run_kernel(bias_activation_forward, grid, arguments, num_warps=_NUM_WARPS)
    return y


def _backward(
    dy: Tensor, y: Tensor, bias: Tensor, activation: BiasedActivation, negative_slope: float, wants_bias: bool
) -> tuple[Tensor, Tensor]:
    """Launch the backward kernels; return dx, channels last, and the bias's gradient, which is empty unless wanted."""
    dx, d_bias = _fake_backward(dy, y, bias, activation, negative_slope, wants_bias)
    if y.numel() == 0:
        return dx, d_bias.zero_()
    channels = y.size(1)
    pixels = y.numel() // channels
    block_pixels, block_channels = _tile(channels)
    per_program = elements_per_program(pixels, block_pixels)
    programs = plans.ceil_div(pixels, per_program)
    partial = torch.empty((programs, channels), dtype=torch.float32, device=y.device) if wants_bias else None
    arguments = {
        "x_ptr": y.contiguous(memory_format=torch.channels_last),
        "dy_ptr": dy.contiguous(memory_format=torch.channels_last),
        "dx_ptr": dx,
        "partial_ptr": dx if partial is None else partial,
        "pixels": pixels,
        "pixels_per_program": per_program,
        "channels": channels,
        "slope": negative_slope,
        "ACTIVATION": activation,
        "WANTS_BIAS": wants_bias,
        "BLOCK_PIXELS": block_pixels,
        "BLOCK_CHANNELS": block_channels,
    }
    grid = programs, plans.ceil_div(channels, block_channels), 1
    run_kernel(bias_activation_backward, grid, arguments, num_warps=_NUM_WARPS)
    return dx, d_bias if partial is None else sum_of_columns(partial, bias.dtype)


# --- the operator ----------------------------------------------------------------------------------------------------


def _fake_forward(x: Tensor, bias: Tensor, activation: str, negative_slope: float) -> Tensor:
    return empty_channels_last(x.shape, like=x)


def _fake_backward(
    dy: Tensor, y: Tensor, bias: Tensor, activation: str, negative_slope: float, wants_bias: bool
) -> tuple[Tensor, Tensor]:
    return empty_channels_last(y.shape, like=y), bias.new_empty(bias.shape if wants_bias else (0,))


_ARGUMENTS = "Tensor bias, str activation, float negative_slope"
BIAS_ACTIVATION = define(f"bias_activation(Tensor x, {_ARGUMENTS}) -> Tensor", _forward, _fake_forward)
BIAS_ACTIVATION_BACKWARD = define(
    f"bias_activation_backward(Tensor dy, Tensor y, {_ARGUMENTS}, bool wants_bias) -> (Tensor, Tensor)",
    _backward,
    _fake_backward,
)


class _BiasActivationFunction(FusedFunction):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, activation: BiasedActivation, negative_slope: float) -> Tensor:
        ctx.options = activation, negative_slope
        with below_autograd():
            y: Tensor = BIAS_ACTIVATION(x, bias, activation, negative_slope)
        ctx.save_for_backward(y, bias)
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        y, bias = ctx.saved_tensors
        dx, d_bias = BIAS_ACTIVATION_BACKWARD(dy, y, bias, *ctx.options, ctx.needs_input_grad[1])
        return dx, d_bias if ctx.needs_input_grad[1] else None, None, None


differentiate(BIAS_ACTIVATION, _BiasActivationFunction)


def bias_activation(
    x: Tensor, bias: Tensor, activation: BiasedActivation, *, negative_slope: float = 0.2, impl: Impl = "auto"
) -> Tensor:
    """Return act(x + bias), [N, C, H, W] in x's dtype, which Triton writes channels last and rounds once.

    Args:
        x: [N, C, H, W] in any floating dtype: what a convolution gives without its bias.
        bias: [C] in any floating dtype, which its gradient has as well.
        activation: "leaky_relu" or "tanh".
        negative_slope: the leaky ReLU's slope below zero, above 0: the gradient takes the sign from the result.
        impl: the implementation, see `kernels.dispatch.choose`.

    Raises ValueError or TypeError where an operand does not fit, and what `choose` raises.
    """
    check_image_batch("x", x)
    check_floating("bias", bias)
    check_choice("activation", activation, _ACTIVATIONS)
    if bias.shape != x.shape[1:2]:
        raise ValueError(f"bias must be [{x.size(1)}], got {tuple(bias.shape)}")
    check_beside("bias", bias, x)
    negative_slope = checked_number("negative_slope", negative_slope)
    if negative_slope <= 0:
        raise ValueError(f"negative_slope must be positive, got {negative_slope}")
    if choose("bias_activation", impl, x) == "reference":
        return bias_activation_reference(x, bias, activation, negative_slope)
    y: Tensor = BIAS_ACTIVATION(x, bias, activation, negative_slope)
    return y
