"""Computes the gradient of a reflection-padded 3x3 convolution by its input, without the padded gradient in between.

The library can give the gradient of the padded input, [N, C, H + 2, W + 2], whose frame is then folded onto the pixels
that it mirrors: 6% more pixels at 64x64, at sizes that divide badly into tiles. Or it gives the gradient of an input
that is padded by zeros, [N, C, H, W], in which what came through the frame is missing. A kernel adds that: it concerns
the rows and columns next to the edges alone.
"""

from typing import Any

import torch
from torch import Tensor

from .. import plans
from ..conv2d import groups_of, tf32_is_allowed
from ..gpus import gpu_of
from ..launching import run_kernel
from ..tiles import tile_offsets
from ..triton_language import tl, triton

LEAST_SIDE = 4  # on a shorter one, a pixel has mirror images in both frames


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def conv2d_3x3_edge_gradients(
    x_ptr,  # [N, H, W, GROUPS * C], the gradient of x: added to
    dy_ptr,  # [N, H, W, GROUPS * C_out]
    weight_ptr,  # [GROUPS * C_out, 3, 3, C]
    height,
    width,
    channels,  # of a group of x
    outputs,  # of a group of dy
    images,
    GROUPS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Add to dx what came through the frame of reflect_pad(x, 1).

        d_padded[p, q] = sum over i, j, o of dy[p + 1 - i, q + 1 - j, o] * weight[o, i, j]      p in -1..H, q in -1..W
        dx[h, w] += sum of d_padded[p, q] over all (p, q) but (h, w) itself to which reflection copies (h, w)

    Row 1 is copied to p = -1, where only i = 0 and row 0 of dy count, and row H - 2 to p = H, where only i = 2 and row
    H - 1 do; columns likewise. So a place in one of these rows has three terms, (i, 0..2), one in such a column three,
    (0..2, j), and one in both seven, with (i, j) of the corner.

    The grid is (places, groups times blocks of BLOCK_OUTPUTS channels of x). Of the places come first the ends of the
    rows, BLOCK_PIXELS images at a time: they have the longest sums. Then come for each image the rows and columns
    without their ends, BLOCK_PIXELS places at a time. Sums run over BLOCK_CHANNELS channels of dy at a time. No place
    belongs to two programs.
    """
    SIDES: tl.constexpr = 4  # two rows and two columns, without their ends; there are as many ends
    program = tl.program_id(0)
    corners = SIDES * tl.cdiv(images, BLOCK_PIXELS)
    in_corner = program < corners
    tiles = tl.cdiv(tl.maximum(height, width), BLOCK_PIXELS)
    along_side = tl.maximum(program - corners, 0)
    side = tl.where(in_corner, program, along_side // tiles) % SIDES
    # 0: not next to an edge, 1: next to the first one, 2: next to the last one.
    vertical = tl.where(in_corner, side // 2 + 1, tl.where(side < 2, side + 1, 0))
    horizontal = tl.where(in_corner, side % 2 + 1, tl.where(side < 2, 0, side - 1))
    blocks = tl.cdiv(channels, BLOCK_OUTPUTS)
    group = tl.program_id(1) // blocks
    all_channels, all_outputs = GROUPS * channels, GROUPS * outputs

    number = tl.arange(0, BLOCK_PIXELS)
    place = (along_side % tiles) * BLOCK_PIXELS + number
    count = tl.where(vertical > 0, width, height)
    is_end = (place == 1) | (place == count - 2)
    image = tl.where(in_corner, (program // SIDES) * BLOCK_PIXELS + number, along_side // (tiles * SIDES))
    valid = (image < images) & (in_corner | ((place < count) & ~is_end))
    row = tl.where(vertical == 0, place, tl.where(vertical == 1, 1, height - 2))
    column = tl.where(horizontal == 0, place, tl.where(horizontal == 1, 1, width - 2))
    far_row, far_i = tl.where(vertical == 1, 0, height - 1), tl.where(vertical == 1, 0, 2)
    far_column, far_j = tl.where(horizontal == 1, 0, width - 1), tl.where(horizontal == 1, 0, 2)
    first_pixel = image.to(tl.int64) * (height * width)
    # The terms are 0 to 2 along a row, 3 to 5 along a column, and 6 of the corner.
    first_term = tl.where(vertical > 0, 0, 3)
    end_term = tl.where(in_corner, 7, tl.where(vertical > 0, 3, 6))
    steps = tl.cdiv(outputs, BLOCK_CHANNELS)
    channel = (tl.program_id(1) % blocks) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    channel_mask = channel < channels
    total = tl.zeros([BLOCK_PIXELS, BLOCK_OUTPUTS], tl.float32)
    for step in range(first_term * steps, end_term * steps):
        term = step // steps
        output = (step % steps) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
        output_mask = output < outputs
        is_upright = (term >= 3) & (term < 6)
        i = tl.where(is_upright, term - 3, far_i)
        j = tl.where(term < 3, term, far_j)
        dy_row = tl.where(is_upright, row + 1 - i, far_row)
        dy_column = tl.where(term < 3, column + 1 - j, far_column)
        is_there = valid & (dy_row >= 0) & (dy_row < height) & (dy_column >= 0) & (dy_column < width)
        output = group * outputs + output
        dy_offsets = tile_offsets(first_pixel + dy_row * width + dy_column, output, all_outputs, 0, True)
        dy = tl.load(dy_ptr + dy_offsets, mask=is_there[:, None] & output_mask[None, :], other=0.0)
        weight_offsets = (output * 9 + i * 3 + j)[:, None] * channels + channel[None, :]
        weight = tl.load(weight_ptr + weight_offsets, mask=output_mask[:, None] & channel_mask[None, :], other=0.0)
        total = tl.dot(dy, weight, total, input_precision=PRECISION)

    offsets = tile_offsets(first_pixel + row * width + column, group * channels + channel, all_channels, 0, True)
    mask = valid[:, None] & channel_mask[None, :]
    total += tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(x_ptr + offsets, total.to(x_ptr.dtype.element_ty), mask=mask)


def reflected_input_gradient(dy: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """Compute the gradient of conv2d(reflect_pad(x, 1), weight) by x; both sides have at least `LEAST_SIDE` pixels.

    Args:
        dy: [N, C_out, H, W].
        weight: [C_out, C / groups, 3, 3].
        like: a tensor of x's shape, dtype and device, [N, C, H, W], of which nothing is read.

    Returns [N, C, H, W], channels last.
    """
    groups = groups_of(like, weight)
    dx: Tensor = torch.ops.aten.convolution_backward(
        dy, like, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], groups, [True, False, False]
    )[0]
    dx = dx.contiguous(memory_format=torch.channels_last)
    if dx.numel():
        _add_edges(dx, dy, weight, groups)
    return dx


def _add_edges(dx: Tensor, dy: Tensor, weight: Tensor, groups: int) -> None:
    batch, channels, height, width = dx.shape
    assert min(height, width) >= LEAST_SIDE, f"a side of {height}x{width} is shorter than {LEAST_SIDE}"
    outputs = dy.size(1) // groups
    plan = plans.edge_plan((batch, channels // groups, height, width), outputs, dx.dtype, gpu_of(dx))
    arguments: dict[str, Any] = {
        "x_ptr": dx,
        "dy_ptr": dy.contiguous(memory_format=torch.channels_last),
        "weight_ptr": weight.contiguous(memory_format=torch.channels_last),
        "height": height,
        "width": width,
        "channels": channels // groups,
        "outputs": outputs,
        "GROUPS": groups,
        "images": batch,
        "PRECISION": "tf32" if dx.dtype == torch.float32 and tf32_is_allowed() else "ieee",
        "BLOCK_PIXELS": plan.block_pixels,
        "BLOCK_OUTPUTS": plan.block_outputs,
        "BLOCK_CHANNELS": plan.block_channels,
    }
    tiles = plans.ceil_div(max(height, width), plan.block_pixels)
    places = 4 * (plans.ceil_div(batch, plan.block_pixels) + batch * tiles)
    blocks = plans.ceil_div(channels // groups, plan.block_outputs)
    run_kernel(conv2d_3x3_edge_gradients, (places, groups * blocks, 1), arguments, **plan.options)
