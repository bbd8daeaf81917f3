"""Sums up the gradient of a thin convolution's weights: two kernels, and their launches."""

import torch
from torch import Tensor

from .. import plans
from ..gpus import gpu_of
from ..launching import run_kernel
from ..triton_language import tl, triton
from .planning import block_of, blocks_of, columns_of, divided_wgrad
from .weights import ThinWeight

_SUM_ELEMENTS, _SUM_PARTS = 64, 128


@triton.jit(
    do_not_specialize=[
        *plans.RUN_TIME_SIZES, "thin_height", "thin_width", "chunks", "units", "rows_per_unit", "units_per_program",
    ]
)  # fmt: skip
def thin_weight_gradient(
    x_ptr,  # the wide tensor, [N, H, W, G * C], channels last
    thin_ptr,  # [N, H + K - 1 - 2 * PAD, W + K - 1 - 2 * PAD, G * THIN], channels last
    partial_ptr,  # [programs, G * BLOCKS, K, C, COLUMNS] sums of each program, float32: written
    height,  # that of x
    width,
    thin_height,
    thin_width,
    channels,  # C, those of a group
    groups,
    strips,
    chunks,
    units,
    rows_per_unit,
    units_per_program,
    THIN: tl.constexpr,
    KERNEL: tl.constexpr,
    PAD: tl.constexpr,  # zeros around the thin tensor that are not in memory
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write the sums over a program's pixels (n, h, w).

        partial[k, c, (l, o)] = sum of x[n, h, w, c] * thin[n, h + k - PAD, w + l - PAD, o]

    The grid is (programs, groups times BLOCKS of four of the thin tensor's channels). The pixels of all images are
    divided into units, each a strip of BLOCK_PIXELS and a chunk of rows, and a program has `units_per_program` of them.
    Walking down the rows of x it keeps the K rows of the thin tensor that a row meets, each with the shifts l side by
    side as columns, and loads what the next row needs while it multiplies. All sums are in float32 and in one order.
    """
    BLOCKS: tl.constexpr = (THIN + 3) // 4
    program, part = tl.program_id(0), tl.program_id(1)
    group, first_thin = part // BLOCKS, part % BLOCKS * 4
    pixel = tl.arange(0, BLOCK_PIXELS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    column = tl.arange(0, COLUMNS)
    # Columns without a tap or channel repeat others, and are left out of the sums that are added up.
    tap, thin = column // 4, tl.minimum(first_thin + column % 4, THIN - 1)
    channel_mask = (channel < channels)[None, :]
    x_row_elements, thin_row_elements = width * groups * channels, thin_width * groups * THIN
    sums = ()
    for _ in tl.static_range(KERNEL):
        sums += (tl.zeros([BLOCK_CHANNELS, COLUMNS], tl.float32),)
    for unit in range(program * units_per_program, tl.minimum((program + 1) * units_per_program, units)):
        strip, chunk, image = unit % strips, unit // strips % chunks, unit // (strips * chunks)
        first_row = chunk * rows_per_unit
        end_row = tl.minimum(first_row + rows_per_unit, height)
        x_column = strip * BLOCK_PIXELS + pixel
        x_mask = (x_column < width)[:, None] & channel_mask
        x_pointers = x_ptr + (image.to(tl.int64) * height * width * groups + group) * channels
        x_pointers += x_column[:, None] * (groups * channels) + channel[None, :]
        thin_column = x_column[:, None] + (tap - PAD)[None, :]
        thin_mask = (thin_column >= 0) & (thin_column < thin_width)
        thin_offsets = thin_column * (groups * THIN) + thin[None, :]
        thin_pointer = thin_ptr + (image.to(tl.int64) * thin_height * thin_width * groups + group) * THIN
        rows = ()
        for k in tl.static_range(KERNEL):
            row = first_row + k - PAD
            mask = thin_mask & (row >= 0) & (row < thin_height)
            rows += (tl.load(thin_pointer + row * thin_row_elements + thin_offsets, mask=mask, other=0.0),)
        x = tl.load(x_pointers + first_row * x_row_elements, mask=x_mask, other=0.0)
        for row in range(first_row, end_row):
            next_x = tl.load(x_pointers + (row + 1) * x_row_elements, mask=x_mask & (row + 1 < end_row), other=0.0)
            next_row = row + KERNEL - PAD
            mask = thin_mask & (next_row >= 0) & (next_row < thin_height)
            next_thin = tl.load(thin_pointer + next_row * thin_row_elements + thin_offsets, mask=mask, other=0.0)
            across = tl.trans(x)
            added = ()
            newer = ()
            for k in tl.static_range(KERNEL):
                added += (tl.dot(across, rows[k], sums[k]),)
                if k > 0:
                    newer += (rows[k],)
            sums = added
            newer += (next_thin,)
            rows = newer
            x = next_x
    partial_ptr += (program * groups * BLOCKS + part).to(tl.int64) * (KERNEL * channels * COLUMNS)
    offsets = channel[:, None] * COLUMNS + column[None, :]
    for k in tl.static_range(KERNEL):
        tl.store(partial_ptr + k * channels * COLUMNS + offsets, sums[k], mask=(channel < channels)[:, None])


@triton.jit(do_not_specialize=["parts"])
def thin_weight_gradient_sum(
    x_ptr,  # [parts, G * BLOCKS, K, C, COLUMNS] sums of the parts, float32
    weight_ptr,  # the gradient of a weight, as `ThinWeight` describes it: written
    parts,
    channels,
    groups,
    weight_first,
    weight_group_stride,
    weight_thin_stride,
    weight_wide_stride,
    weight_row_stride,
    weight_column_stride,
    THIN: tl.constexpr,
    KERNEL: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write the sum over all parts, in one order.

    The grid is (blocks of BLOCK_CHANNELS of [K, C, COLUMNS], groups times BLOCKS, as in `thin_weight_gradient`).
    """
    BLOCKS: tl.constexpr = (THIN + 3) // 4
    element = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    group, first_thin = tl.program_id(1) // BLOCKS, tl.program_id(1) % BLOCKS * 4
    column, channel, k = element % COLUMNS, element // COLUMNS % channels, element // (COLUMNS * channels)
    tap, thin = column // 4, first_thin + column % 4
    mask = k < KERNEL
    part = tl.arange(0, BLOCK_PARTS)
    total = tl.zeros([BLOCK_CHANNELS], tl.float32)
    for first in range(0, parts, BLOCK_PARTS):
        row = (first + part) * groups * BLOCKS + tl.program_id(1)
        offsets = row.to(tl.int64)[:, None] * (KERNEL * channels * COLUMNS) + element[None, :]
        total += tl.sum(
            tl.load(x_ptr + offsets, mask=(first + part < parts)[:, None] & mask[None, :], other=0.0), axis=0
        )
    at = weight_ptr + weight_first + group * weight_group_stride + k * weight_row_stride
    at += channel * weight_wide_stride + thin * weight_thin_stride + tap * weight_column_stride
    tl.store(at, total.to(weight_ptr.dtype.element_ty), mask=mask & (tap < KERNEL) & (thin < THIN))


def sum_weight_gradient(
    wide: Tensor, thin: Tensor, gradient: ThinWeight, plan: plans.ThinPlan, *, pad: int, flipped: bool
) -> None:
    """Launch both kernels, and write the gradient.

    Args:
        wide: the tensor of many channels, [N, G * wide, H, W]: the convolution's x, or the gradient of its result.
        thin: the other one.
        gradient: written.
        plan: how long the strips are.
        pad: zeros around `thin`.
        flipped: whether tap (k, l) of the correlation is the weights' (K - 1 - k, K - 1 - l).
    """
    batch, _, height, width = wide.shape
    kernel, groups = gradient.kernel, gradient.groups
    if wide.numel() == 0 or thin.numel() == 0:
        gradient.weight.zero_()
        return
    parts = groups * blocks_of(gradient.thin)
    divided = divided_wgrad(plan.wgrad_pixels, batch, parts, height, width, gpu_of(wide))
    units = batch * divided.strips * divided.chunks
    programs = plans.ceil_div(units, divided.units_per_program)
    columns = columns_of(kernel)
    partials = torch.empty((programs, parts, kernel, gradient.wide, columns), dtype=torch.float32, device=wide.device)
    arguments = {
        "x_ptr": wide.contiguous(memory_format=torch.channels_last),
        "thin_ptr": thin.contiguous(memory_format=torch.channels_last),
        "partial_ptr": partials,
        "height": height,
        "width": width,
        "thin_height": thin.size(2),
        "thin_width": thin.size(3),
        "channels": gradient.wide,
        "groups": groups,
        "strips": divided.strips,
        "chunks": divided.chunks,
        "units": units,
        "rows_per_unit": divided.rows,
        "units_per_program": divided.units_per_program,
        "THIN": gradient.thin,
        "KERNEL": kernel,
        "PAD": pad,
        "BLOCK_PIXELS": divided.block_pixels,
        "BLOCK_CHANNELS": block_of(gradient.wide),
        "COLUMNS": columns,
    }
    run_kernel(thin_weight_gradient, (programs, parts, 1), arguments, **divided.options)
    sums = {
        **gradient.arguments(flipped=flipped),
        "x_ptr": partials,
        "parts": programs,
        "channels": gradient.wide,
        "groups": groups,
        "THIN": gradient.thin,
        "KERNEL": kernel,
        "COLUMNS": columns,
        "BLOCK_PARTS": _SUM_PARTS,
        "BLOCK_CHANNELS": _SUM_ELEMENTS,
    }
    blocks = plans.ceil_div(kernel * gradient.wide * columns, _SUM_ELEMENTS)
    run_kernel(thin_weight_gradient_sum, (blocks, parts, 1), sums, num_warps=4)
