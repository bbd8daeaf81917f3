"""Pads by reflection, and nothing else: for the 3-channel image in front of a generator's stem.

Elsewhere in the networks the norm in front pads its own result (`instance_norm`).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import plans
from .arguments.options import checked_pad
from .arguments.tensors import check_image_batch
from .cpu.operators import format_of, pad_gradient_in_c
from .dispatch import Impl, choose
from .launching import run_kernel
from .layout import addressable, empty_channels_last, needs_wide_offsets
from .registration import FusedFunction, below_autograd, define, differentiable_once, differentiate, is_watched
from .tiles import folded, image_pointer, reflected, rows_near_edge, tile_offsets, widened
from .triton_language import tl, triton


def reflection_pad_reference(x: Tensor, pad: int) -> Tensor:
    """Pad by reflection in plain PyTorch: y[..., i, j] = x[..., |i - pad|, |j - pad|] on the near sides.

    The edge itself is not repeated.
    """
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


# --- kernels ---------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def reflection_pad_forward(
    x_ptr,  # [N, H, W, C] or [N, C, H, W]
    y_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C]: written
    height,
    width,
    channels,
    x_image_stride,
    x_row_stride,
    x_channel_stride,
    X_CHANNELS_LAST: tl.constexpr,
    PAD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write y[n, i, j, c] = x[n, reflect(i - PAD), reflect(j - PAD), c].

    The grid is (tiles of BLOCK_PIXELS pixels of y, blocks of BLOCK_CHANNELS channels, images). Each pixel of y is
    written once, gathered from where it is mirrored.
    """
    tile, channel_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = widened(channels, WIDE)
    x_channel_stride = widened(x_channel_stride, WIDE)
    x_row_stride = widened(x_row_stride, WIDE)
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, X_CHANNELS_LAST)
    channel = channel_block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    padded_width = width + 2 * PAD
    padded_pixels = (height + 2 * PAD) * padded_width
    y_ptr = image_pointer(y_ptr, image, padded_pixels, channels, True)
    padded_pixel = tile * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    mask = (padded_pixel < padded_pixels)[:, None] & (channel < channels)[None, :]
    row = reflected(padded_pixel // padded_width - PAD, height)
    column = reflected(padded_pixel % padded_width - PAD, width)
    source = row * x_row_stride + column
    offsets = tile_offsets(source, channel, channels, x_channel_stride, X_CHANNELS_LAST)
    x = tl.load(x_ptr + offsets, mask=mask)
    tl.store(y_ptr + tile_offsets(padded_pixel, channel, channels, 0, True), x, mask=mask)


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def reflection_pad_backward(
    x_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C] or [N, C, ...]: the gradient of the padded tensor
    dx_ptr,  # [N, H, W, C]: written
    height,  # that of dx
    width,
    channels,
    x_image_stride,
    x_row_stride,
    x_channel_stride,
    X_CHANNELS_LAST: tl.constexpr,
    PAD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write dx = fold(dY), the adjoint of the padding (see `tiles.folded`); `x_ptr` holds dY.

    The grid is (tiles of BLOCK_PIXELS pixels of dx, blocks of BLOCK_CHANNELS channels, images). Each pixel of dx
    gathers its gradients in one order, without atomics: the bits are the same every time.
    """
    tile, channel_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = widened(channels, WIDE)
    x_channel_stride = widened(x_channel_stride, WIDE)
    x_row_stride = widened(x_row_stride, WIDE)
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, X_CHANNELS_LAST)
    dx_ptr = image_pointer(dx_ptr, image, height * width, channels, True)
    channel = channel_block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    pixels = height * width
    first = tile * BLOCK_PIXELS
    pixel = first + tl.arange(0, BLOCK_PIXELS)
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    dx = folded(
        x_ptr, pixel // width, pixel % width, channel, mask,
        rows_near_edge(first, first + BLOCK_PIXELS, height, width, PAD), height, width, channels,
        x_row_stride, x_channel_stride, PAD, X_CHANNELS_LAST,
    )  # fmt: skip
    offsets = tile_offsets(pixel, channel, channels, 0, True)
    tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)


def pad_forward(x: Tensor, pad: int) -> Tensor:
    """Launch the padding of x [N, C, H, W]; return [N, C, H + 2*pad, W + 2*pad], channels last."""
    batch, channels, height, width = x.shape
    y = empty_channels_last((batch, channels, height + 2 * pad, width + 2 * pad), like=x)
    _launch(reflection_pad_forward, x, pad, (height, width), y_ptr=y)
    return y


def pad_backward(dy: Tensor, pad: int) -> Tensor:
    """Launch the adjoint on dy [N, C, H + 2*pad, W + 2*pad]; return dx [N, C, H, W], channels last."""
    batch, channels, height, width = dy.shape
    dx = empty_channels_last((batch, channels, height - 2 * pad, width - 2 * pad), like=dy)
    _launch(reflection_pad_backward, dy, pad, (dx.size(2), dx.size(3)), dx_ptr=dx)
    return dx


def _launch(kernel: Any, x: Tensor, pad: int, sides: tuple[int, int], **written: Tensor) -> None:
    (result,) = written.values()
    if result.numel() == 0:
        return
    batch, channels = x.shape[:2]
    plan = plans.pad_plan(channels)
    pixels = result.size(2) * result.size(3)
    x_at = addressable(x)
    arguments = {
        **x_at.arguments("x", slice(0, batch)),
        **written,
        "height": sides[0],
        "width": sides[1],
        "channels": channels,
        "PAD": pad,
        "WIDE": needs_wide_offsets(x_at.tensor, result),
        "BLOCK_PIXELS": plan.block_pixels,
        "BLOCK_CHANNELS": plan.block_channels,
    }
    grid = (plans.ceil_div(pixels, plan.block_pixels), plans.ceil_div(channels, plan.block_channels), batch)
    run_kernel(kernel, grid, arguments, num_warps=plan.num_warps)


# --- the operator ----------------------------------------------------------------------------------------------------


def _fake_forward(x: Tensor, pad: int) -> Tensor:
    return empty_channels_last((x.size(0), x.size(1), x.size(2) + 2 * pad, x.size(3) + 2 * pad), like=x)


def _fake_backward(dy: Tensor, pad: int) -> Tensor:
    return _fake_forward(dy, -pad)


# The gradient of conv2d calls these two as well.
REFLECTION_PAD = define("reflection_pad(Tensor x, int pad) -> Tensor", pad_forward, _fake_forward)
REFLECTION_PAD_BACKWARD = define("reflection_pad_backward(Tensor dy, int pad) -> Tensor", pad_backward, _fake_backward)


class _ReflectionPadFunction(FusedFunction):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pad: int) -> Tensor:
        ctx.pad = pad
        with below_autograd():
            y: Tensor = REFLECTION_PAD(x, pad)
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return REFLECTION_PAD_BACKWARD(dy, ctx.pad), None


differentiate(REFLECTION_PAD, _ReflectionPadFunction)


# --- PyTorch's padding with a gradient in C, for a CPU ---------------------------------------------------------------


def _pad_on_cpu(x: Tensor, pad: int) -> Tensor:
    layout = format_of(x)
    if not x.numel():
        return _fake_pad_on_cpu(x, pad)
    if not pad:
        return x.clone(memory_format=layout)
    y = reflection_pad_reference(x.contiguous(memory_format=layout), pad)
    return y.contiguous(memory_format=layout)


def _fake_pad_on_cpu(x: Tensor, pad: int) -> Tensor:
    shape = (x.size(0), x.size(1), x.size(2) + 2 * pad, x.size(3) + 2 * pad)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=format_of(x))


def _fake_backward_on_cpu(dy: Tensor, pad: int) -> Tensor:
    return _fake_pad_on_cpu(dy, -pad)


_PAD_ON_CPU = define("reflection_pad_on_cpu(Tensor x, int pad) -> Tensor", _pad_on_cpu, _fake_pad_on_cpu)
_PAD_ON_CPU_BACKWARD = define(
    "reflection_pad_on_cpu_backward(Tensor dy, int pad) -> Tensor", pad_gradient_in_c, _fake_backward_on_cpu
)


class _PadOnCpuFunction(FusedFunction):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pad: int) -> Tensor:
        ctx.pad = pad
        with below_autograd():
            y: Tensor = _PAD_ON_CPU(x, pad) if is_watched(x) else _pad_on_cpu(x, pad)
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return (_PAD_ON_CPU_BACKWARD if is_watched(dy) else pad_gradient_in_c)(dy, ctx.pad), None


differentiate(_PAD_ON_CPU, _PadOnCpuFunction)


def reflection_pad_c(x: Tensor, pad: int) -> Tensor:
    """Pad by PyTorch's operator, with a gradient in C; see `instance_norm.instance_norm_c`."""
    y: Tensor
    if is_watched(x):
        y = _PAD_ON_CPU(x, pad)
    elif torch.is_grad_enabled() and x.requires_grad:
        y = _PadOnCpuFunction.apply(x, pad)
    else:
        y = _pad_on_cpu(x, pad)
    return y


_IMPLEMENTATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "reference": reflection_pad_reference,
    "c": reflection_pad_c,
    "triton": REFLECTION_PAD,
}


def reflection_pad(x: Tensor, pad: int, *, impl: Impl = "auto") -> Tensor:
    """Pad both image sides by reflection, the edge pixel not repeated.

    x [N, C, H, W] in any floating dtype -> [N, C, H + 2*pad, W + 2*pad], which Triton writes channels last. Raises
    ValueError where x is not 4-D or has no channels, or pad is negative or not smaller than H and W; TypeError where x
    is no dense floating-point tensor or pad no integer; RuntimeError as `choose` does.
    """
    check_image_batch("x", x)
    pad = checked_pad(pad, x.size(2), x.size(3))
    implementation = _IMPLEMENTATIONS[choose("reflection_pad", impl, x)]
    return implementation(x, pad)
