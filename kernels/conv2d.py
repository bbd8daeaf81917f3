"""Computes the reflection-padded 3x3 convolution, and the statistics of its result for the norm behind it.

The gradients are the library's (cuDNN's); only the forward pass has a kernel here.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import plans
from .arguments.tensors import check_image_batch, check_like, check_tensor
from .dispatch import Impl, autocast, choose
from .gpus import gpu_of
from .launching import run_kernel
from .layout import addressable, empty_channels_last, needs_wide_offsets
from .norm.statistics import store_partial
from .reflection_pad import REFLECTION_PAD, REFLECTION_PAD_BACKWARD, reflection_pad_reference
from .registration import FusedFunction, below_autograd, cast_under_autocast, define, differentiable_once, differentiate
from .tiles import image_pointer, reflected, tile_offsets, widened
from .triton_language import tl, triton


def conv2d_reflect_reference(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Pad by 1 and convolve in plain PyTorch; the partials [N, 1, 3, C_out] describe each image by one tile."""
    y = F.conv2d(reflection_pad_reference(x, 1), weight)
    with torch.no_grad():
        wide = y.double() if y.dtype == torch.float64 else y.float()
        mean = wide.mean(dim=(2, 3))  # [N, C]
        m2 = (wide - mean[:, :, None, None]).square().sum(dim=(2, 3))  # [N, C]
        count = torch.full_like(mean, y.size(2) * y.size(3))
        partials = torch.stack([count, mean, m2], dim=1)[:, None]  # [N, 1, 3, C]
    return y, partials


# --- kernel ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def conv2d_3x3(
    x_ptr,  # [N, H, W, C] or [N, H + 2, W + 2, C], channels last
    weight_ptr,  # [C_out, 3, 3, C]
    y_ptr,  # [N, H, W, C_out]: written
    partial_ptr,  # [N, tiles, 3, C_out] count, mean, M2 of each tile of y, float32: written
    height,  # that of y
    width,
    channels,
    outputs,
    splits,  # number of tiles of an image
    x_image_stride,
    x_row_stride,
    REFLECT: tl.constexpr,  # whether x is unpadded and its indices reflect; else it is padded by 1 already
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write y = conv2d(reflect_pad(x, 1), weight), and count, mean and M2 of each tile of y.

        y[n, h, w, o] = sum over i, j, c of x[n, reflect(h + i - 1), reflect(w + j - 1), c] * weight[o, i, j, c]

    with i and j in 0..2; without REFLECT x is padded by 1 and read at [n, h + i, w + j, c]. This is an implicit GEMM: M
    = pixels of an image, N = C_out, K = 9 C; nothing is unfolded or padded in memory. The grid is (tiles of
    BLOCK_PIXELS pixels, blocks of BLOCK_OUTPUTS channels of y, images). A program steps through the nine taps and for
    each through C, BLOCK_CHANNELS at a time, and sums in float32.
    """
    tile, output_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels, outputs = widened(channels, WIDE), widened(outputs, WIDE)
    x_row_stride = widened(x_row_stride, WIDE)
    pixels = height * width
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, True)
    y_ptr = image_pointer(y_ptr, image, pixels, outputs, True)
    first = tile * BLOCK_PIXELS
    pixel = first + tl.arange(0, BLOCK_PIXELS)
    in_image = pixel < pixels
    row, column = pixel // width, pixel % width
    output = output_block * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    output_mask = output < outputs
    channel_blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    total = tl.zeros([BLOCK_PIXELS, BLOCK_OUTPUTS], tl.float32)
    for step in range(0, 9 * channel_blocks):
        tap = step // channel_blocks
        channel = (step % channel_blocks) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
        channel_mask = channel < channels
        x_row, x_column = row + tap // 3, column + tap % 3
        if REFLECT:
            x_row, x_column = reflected(x_row - 1, height), reflected(x_column - 1, width)
        x_offsets = tile_offsets(x_row * x_row_stride + x_column, channel, channels, 0, True)
        x = tl.load(x_ptr + x_offsets, mask=in_image[:, None] & channel_mask[None, :], other=0.0)
        weight_offsets = (output * 9 + tap)[:, None] * channels + channel[None, :]
        weight = tl.load(weight_ptr + weight_offsets, mask=output_mask[:, None] & channel_mask[None, :], other=0.0)
        total = tl.dot(x, tl.trans(weight), total, input_precision=PRECISION)

    y = total.to(y_ptr.dtype.element_ty)
    mask = in_image[:, None] & output_mask[None, :]
    tl.store(y_ptr + tile_offsets(pixel, output, outputs, 0, True), y, mask=mask)
    # The norm normalises what was stored, so the statistics are those of the rounded values.
    stored = y.to(tl.float32)
    count = tl.minimum(pixels - first, BLOCK_PIXELS).to(tl.float32)
    mean = tl.sum(tl.where(mask, stored, 0.0), axis=0, keep_dims=True) / count
    deviation = tl.where(mask, stored - mean, 0.0)
    m2 = tl.sum(deviation * deviation, axis=0, keep_dims=True)
    store_partial(partial_ptr, count, mean, m2, image, tile, splits, output, output_mask, outputs)


def tf32_is_allowed() -> bool:
    """Return whether PyTorch allows TF32 in convolutions.

    There are two switches for it, and PyTorch refuses to read the older one when the newer was set.
    """
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        precision = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]  # absent from torch's stubs
        return bool(precision == "tf32")


def conv_forward(x: Tensor, weight: Tensor, *, reflect: bool) -> tuple[Tensor, Tensor]:
    """Launch the convolution; return y [N, C_out, H, W], channels last, and its partials [N, tiles, 3, C_out].

    x is [N, C, H, W] where `reflect`, else it is padded by 1 already. An x or weight in another layout than channels
    last is copied to it: the matrix instructions read 16 bytes of channels at a time.
    """
    batch, channels, height, width = x.shape
    if not reflect:
        height, width = height - 2, width - 2
    outputs = weight.size(0)
    plan = plans.conv_plan((batch, channels, height, width), outputs, x.dtype, gpu_of(x))
    tiles = plans.ceil_div(height * width, plan.block_pixels)
    y = empty_channels_last((batch, outputs, height, width), like=x)
    partials = torch.empty((batch, tiles, 3, outputs), dtype=torch.float32, device=x.device)
    if y.numel() == 0:
        return y, partials
    x_at = addressable(x)
    if not x_at.channels_last:
        x_at = addressable(x.contiguous(memory_format=torch.channels_last))
    arguments = {
        **x_at.arguments("x", slice(0, batch)),
        "weight_ptr": weight.contiguous(memory_format=torch.channels_last),
        "y_ptr": y,
        "partial_ptr": partials,
        "height": height,
        "width": width,
        "channels": channels,
        "outputs": outputs,
        "splits": tiles,
        "REFLECT": reflect,
        "WIDE": needs_wide_offsets(x_at.tensor, y),
        "PRECISION": "tf32" if x.dtype == torch.float32 and tf32_is_allowed() else "ieee",
        "BLOCK_PIXELS": plan.block_pixels,
        "BLOCK_OUTPUTS": plan.block_outputs,
        "BLOCK_CHANNELS": plan.block_channels,
    }
    grid = (tiles, plans.ceil_div(outputs, plan.block_outputs), batch)
    run_kernel(conv2d_3x3, grid, arguments, **plan.options)
    return y, partials


# --- the operator ----------------------------------------------------------------------------------------------------


def _launch_forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return conv_forward(x, weight, reflect=True)


def _fake_forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    outputs = weight.size(0)
    if all(isinstance(size, int) for size in (*x.shape, outputs)):
        plan = plans.conv_plan((batch, channels, height, width), outputs, x.dtype, gpu_of(x))
        tiles: int | torch.SymInt = -(-height * width // plan.block_pixels)
    else:  # a plan is looked up by shape, which is not known here
        tiles = torch.library.get_ctx().new_dynamic_size(min=1)
    y = empty_channels_last((batch, outputs, height, width), like=x)
    return y, torch.empty((batch, tiles, 3, outputs), dtype=torch.float32, device=x.device)


_FORWARD = define(
    "conv2d_reflect(Tensor x, Tensor weight) -> (Tensor y, Tensor partials)", _launch_forward, _fake_forward
)
cast_under_autocast(_FORWARD)


class _Conv2dReflectFunction(FusedFunction):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        with below_autograd():
            y, partials = _FORWARD(x, weight)
        ctx.save_for_backward(x, weight)
        ctx.mark_non_differentiable(partials)
        ctx.set_materialize_grads(False)
        return y, partials

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, Tensor | None]:
        if dy is None:
            return None, None
        x, weight = ctx.saved_tensors
        dx, d_weight = conv_gradients(dy, REFLECTION_PAD(x, 1), weight, ctx.needs_input_grad)
        return None if dx is None else REFLECTION_PAD_BACKWARD(dx, 1), d_weight


differentiate(_FORWARD, _Conv2dReflectFunction)


def conv_gradients(
    dy: Tensor, padded: Tensor, weight: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of conv2d(padded, weight), which has no padding of its own, by the library.

    Args:
        dy: [N, C_out, H, W].
        padded: the convolution's input, [N, C, H + 2, W + 2].
        weight: [C_out, C / groups, 3, 3].
        wanted: whether the gradients of the input and of the weight are wanted; what is not is None.
    """
    if not any(wanted):
        return None, None
    if dy.numel() == 0:  # fake and real convolutions disagree about the layout of empty tensors
        return torch.zeros_like(padded) if wanted[0] else None, torch.zeros_like(weight) if wanted[1] else None
    mask = [*wanted, False]
    one, zero = [1, 1], [0, 0]
    dx, d_weight, _ = torch.ops.aten.convolution_backward(
        dy, padded, weight, None, one, zero, one, False, zero, groups_of(padded, weight), mask
    )
    return dx, d_weight


_IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "reference": conv2d_reflect_reference,
    "triton": _FORWARD,
}


def conv2d_reflect(x: Tensor, weight: Tensor, *, impl: Impl = "auto") -> tuple[Tensor, Tensor]:
    """Convolve x with 3x3 weights: stride 1, reflection padding 1, no bias.

    x is [N, C, H, W] and not padded, weight [C_out, C, 3, 3] of x's dtype. Returns y [N, C_out, H, W] and partials
    [N, tiles, 3, C_out] (at least float32, not differentiable): count, mean and M2, the sum of squared deviations, of
    each tile of y, for `instance_norm`. A tile never crosses two images; the number of tiles is the implementation's.

    Triton reads and writes channels last, copies an x or a weight that lies otherwise, and multiplies float32 in TF32
    where torch.backends.cudnn.allow_tf32 allows it to cuDNN. Autocast casts x and weight as for any convolution.

    Raises ValueError where the shapes do not fit, a side is 1 or there are no channels, TypeError where an operand is
    no dense tensor or the dtypes differ.
    """
    check_image_batch("x", x)
    check_tensor("weight", weight)
    x, weight = autocast(x, weight)
    check_weight("weight", weight, x)
    if min(x.shape[2:]) < 2:
        raise ValueError(f"x must be at least 2x2 to be padded by reflection, got {x.size(2)}x{x.size(3)}")
    implementation = _IMPLEMENTATIONS[choose("conv2d_reflect", impl, x)]
    return implementation(x, weight)


def groups_of(x: Tensor, weight: Tensor) -> int:
    """Return into how many groups a convolution with [C_out, C / groups, 3, 3] divides x's C channels."""
    return x.size(1) // weight.size(1)


def check_weight(name: str, weight: Tensor, x: Tensor) -> None:
    """Raise ValueError or TypeError where `weight` is not [C_out, C, 3, 3] for x's channels, dtype and device."""
    if weight.dim() != 4 or weight.shape[1:] != (x.size(1), 3, 3) or not weight.size(0):
        raise ValueError(f"{name} must be [C_out, {x.size(1)}, 3, 3], C_out at least 1, got {tuple(weight.shape)}")
    check_like(name, weight, x)
