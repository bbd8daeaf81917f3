"""Convolves a wide tensor to a thin one: the kernel, and its launch."""

import torch
from torch import Tensor

from .. import plans
from ..gpus import gpu_of
from ..launching import run_kernel
from ..layout import empty_channels_last
from ..triton_language import tl, triton
from .planning import ASYNCHRONOUS, block_of, blocks_of, columns_of, divided_forward
from .weights import ThinWeight


@triton.jit
def _added(x, weights, sums, KERNEL: tl.constexpr):
    """Return the sums of the K - 1 newest rows of y, the newest first, to which a row of x was added."""
    newer = (tl.dot(x, weights[0]),)
    for i in tl.static_range(1, KERNEL - 1):
        newer += (tl.dot(x, weights[i], sums[i - 1]),)
    return newer


@triton.jit(do_not_specialize=[*plans.RUN_TIME_SIZES, "x_height", "x_width", "rows_per_program"])
def thin_convolution(
    x_ptr,  # [N, H + K - 1 - 2 * PAD, W + K - 1 - 2 * PAD, G * C], channels last
    weight_ptr,  # a weight and bias_ptr [G * THIN] as `ThinWeight` describes
    bias_ptr,
    y_ptr,  # [N, H, W, G * THIN]: written
    x_height,
    x_width,
    height,  # that of y
    width,
    channels,  # C, those of a group
    groups,
    strips,
    rows_per_program,
    weight_first,
    weight_group_stride,
    weight_thin_stride,
    weight_wide_stride,
    weight_row_stride,
    weight_column_stride,
    THIN: tl.constexpr,
    KERNEL: tl.constexpr,
    PAD: tl.constexpr,  # zeros around x that are not in memory
    HAS_BIAS: tl.constexpr,
    TANH: tl.constexpr,
    ASYNCHRONOUS: tl.constexpr,  # whether tensor cores work while other instructions run
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write y = conv2d(x, weight) + bias, or its tanh.

        y[n, h, w, o] = bias[o] + sum over i, j, c of x[n, h + i - PAD, w + j - PAD, c] * weight[o, i, j, c]

    The grid is (chunks of rows times strips, groups times blocks of four of y's channels, images). A program walks
    down the rows of x in a strip of BLOCK_PIXELS. A row meets the weights of each i once: a product [pixels, C] x
    [C, (j, o)], which is added to the sums of y's row h = row - i. So K rows of y are under way; the oldest, for which
    i = K - 1 was the last, is summed up over j, each column shifted by its j, and written. All sums are in float32 and
    in one order.

    Asynchronous products are waited for before their sums move on to other places in `sums`; others come last, or
    their operands would not leave registers for the row that is written.
    """
    BLOCKS: tl.constexpr = (THIN + 3) // 4
    strip, image = tl.program_id(0) % strips, tl.program_id(2)
    group, first_thin = tl.program_id(1) // BLOCKS, tl.program_id(1) % BLOCKS * 4
    first_row = tl.program_id(0) // strips * rows_per_program
    end_row = tl.minimum(first_row + rows_per_program, height)
    first_column = strip * (BLOCK_PIXELS - KERNEL + 1)
    pixel = tl.arange(0, BLOCK_PIXELS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    column = tl.arange(0, COLUMNS)
    tap, thin = column // 4, first_thin + column % 4
    is_used = (tap < KERNEL) & (thin < THIN)

    x_column = first_column - PAD + pixel
    x_mask = ((x_column >= 0) & (x_column < x_width))[:, None] & (channel < channels)[None, :]
    x_pointers = x_ptr + (image.to(tl.int64) * x_height * x_width * groups + group) * channels
    x_pointers += x_column[:, None] * (groups * channels) + channel[None, :]
    weight_ptr += weight_first + group * weight_group_stride
    weight_offsets = (thin * weight_thin_stride + tap * weight_column_stride)[None, :]
    weight_offsets += channel[:, None] * weight_wide_stride
    weight_mask = (channel < channels)[:, None] & is_used[None, :]
    weights = ()
    sums = ()  # of the K - 1 newest rows of y, the newest first
    for i in tl.static_range(KERNEL):
        of_row = tl.load(weight_ptr + i * weight_row_stride + weight_offsets, mask=weight_mask, other=0.0)
        weights += (of_row,)
        if i > 0:
            sums += (tl.zeros([BLOCK_PIXELS, COLUMNS], tl.float32),)

    shifted_pixel = tl.minimum(pixel[:, None] + tap[None, :], BLOCK_PIXELS - 1)
    output = first_thin + tl.arange(0, 4)
    y_column = first_column + pixel
    y_mask = ((pixel <= BLOCK_PIXELS - KERNEL) & (y_column < width))[:, None] & (output < THIN)[None, :]
    y_pointers = y_ptr + (image.to(tl.int64) * height * width * groups + group) * THIN
    y_pointers += y_column[:, None] * (groups * THIN) + output[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + group * THIN + output, mask=output < THIN, other=0.0).to(tl.float32)

    for row in range(first_row, end_row + KERNEL - 1):
        x_row = row - PAD
        x = tl.load(
            x_pointers + x_row * (x_width * groups * channels),
            mask=x_mask & (x_row >= 0) & (x_row < x_height),
            other=0.0,
        )
        if ASYNCHRONOUS:
            products = _added(x, weights, sums, KERNEL)
            # Triton waits for a product that is used. One that is only passed on moves while it is still written.
            newer = ()
            for i in tl.static_range(KERNEL - 1):
                newer += (tl.where(height > 0, products[i], 0.0),)
        y_row = row - (KERNEL - 1)
        total = tl.dot(x, weights[KERNEL - 1], sums[KERNEL - 2])
        # Columns without a tap are zero unless x is infinite: they may not reach y.
        total = tl.where(is_used[None, :], tl.gather(total, shifted_pixel, 0), 0.0)
        y = tl.sum(tl.reshape(total, [BLOCK_PIXELS, COLUMNS // 4, 4]), axis=1)
        if HAS_BIAS:
            y += bias[None, :]
        if TANH:
            y = 1.0 - 2.0 / (tl.exp(2.0 * y) + 1.0)
        tl.store(
            y_pointers + y_row * (width * groups * THIN),
            y.to(y_ptr.dtype.element_ty),
            mask=y_mask & (y_row >= first_row),
        )
        if not ASYNCHRONOUS:
            newer = _added(x, weights, sums, KERNEL)
        sums = newer


def convolve_to_thin(
    x: Tensor, weight: ThinWeight, bias: Tensor | None, plan: plans.ThinPlan, *, pad: int, flipped: bool, tanh: bool
) -> Tensor:
    """Launch the convolution of x [N, G * wide, H, W] with weights, flipped or not, behind `pad` zeros on each side.

    Returns [N, G * thin, H', W'], channels last, in x's dtype; x in another layout is copied to that.
    """
    batch, _, x_height, x_width = x.shape
    kernel, groups = weight.kernel, weight.groups
    height, width = (side + 2 * pad - kernel + 1 for side in (x_height, x_width))
    y = empty_channels_last((batch, groups * weight.thin, height, width), like=x)
    if y.numel() == 0:
        return y
    parts = groups * blocks_of(weight.thin)
    divided = divided_forward(plan.forward_pixels, batch, parts, height, width, kernel, gpu_of(x))
    arguments = {
        **weight.arguments(flipped=flipped),
        "x_ptr": x.contiguous(memory_format=torch.channels_last),
        "bias_ptr": weight.weight if bias is None else bias,
        "y_ptr": y,
        "x_height": x_height,
        "x_width": x_width,
        "height": height,
        "width": width,
        "channels": weight.wide,
        "groups": groups,
        "strips": divided.strips,
        "rows_per_program": divided.rows,
        "THIN": weight.thin,
        "KERNEL": kernel,
        "PAD": pad,
        "HAS_BIAS": bias is not None,
        "TANH": tanh,
        "ASYNCHRONOUS": gpu_of(x).capability in ASYNCHRONOUS,
        "BLOCK_PIXELS": divided.block_pixels,
        "BLOCK_CHANNELS": block_of(weight.wide),
        "COLUMNS": columns_of(kernel),
    }
    run_kernel(thin_convolution, (divided.strips * divided.chunks, parts, batch), arguments, **divided.options)
    return y
