"""Holds the forward kernels of the fused instance norm, and `norm_forward`, which plans their launches.

For each plane (image n, channel c) of x:

    xhat = (x - mean) * rstd                rstd = 1 / sqrt(variance + eps), biased variance over H, W
    y    = reflect_pad(act(xhat) + residual)

x lies channels last or first without gaps between rows, a residual in any strides that `layout.addressable` describes;
y is written channels last. Tensors are float32, float16 or bfloat16; all sums are float32. `plans.NormPlan` says which
of the variants runs.
"""

from typing import Any

import torch
from torch import Tensor

from .. import plans
from ..dispatch import Activation
from ..gpus import gpu_of
from ..launching import run_kernel
from ..layout import addressable, empty_channels_last, needs_wide_offsets, part
from ..tiles import activated, image_pointer, mirror_interior, reflected, store_padded, tile_offsets, widened
from ..triton_language import tl, triton
from .cooperation import arrive_and_wait, cooperate
from .statistics import combined_statistics, load_pivot, normalised_tile, store_partial, store_statistics


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def instance_norm_statistics(
    x_ptr,  # [N, H * W, C] or [N, C, H * W]
    partial_ptr,  # [N, splits, 3, C] count, mean about the pivot, M2; float32
    height,
    width,
    channels,
    splits,
    pixels_per_program,
    x_image_stride,
    x_channel_stride,
    X_CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Phase 1 of two: write count, mean about the pivot and M2 of each split of each plane.

    The grid is (splits, blocks of channels, images). A program reads `pixels_per_program` pixels of BLOCK_CHANNELS
    channels of one image, BLOCK_PIXELS at a time.
    """
    split, channel_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = widened(channels, WIDE)
    x_channel_stride = widened(x_channel_stride, WIDE)
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, X_CHANNELS_LAST)
    channel = channel_block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < channels
    pivot = load_pivot(x_ptr, height * width, channel, channel_mask, channels, x_channel_stride, X_CHANNELS_LAST)

    first = split * pixels_per_program
    last = tl.minimum(first + pixels_per_program, height * width)
    # Each slot of the tile follows its own pixels (Welford 1962); the slots are combined once, at the end.
    mean = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    m2 = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    seen = 0.0
    for start in range(first, last, BLOCK_PIXELS):
        pixel = start + tl.arange(0, BLOCK_PIXELS)
        in_split = (pixel < last)[:, None]
        offsets = tile_offsets(pixel, channel, channels, x_channel_stride, X_CHANNELS_LAST)
        x = tl.load(x_ptr + offsets, mask=in_split & channel_mask[None, :], other=0.0).to(tl.float32) - pivot
        seen += 1.0
        deviation = tl.where(in_split, x - mean, 0.0)
        mean += deviation * (1.0 / seen)
        m2 += deviation * (x - mean)

    slot = tl.arange(0, BLOCK_PIXELS)
    count = tl.maximum(last - first - slot + BLOCK_PIXELS - 1, 0) // BLOCK_PIXELS
    count = count.to(tl.float32)[:, None]
    total = tl.maximum(last - first, 1).to(tl.float32)
    split_mean = tl.sum(count / total * mean, axis=0, keep_dims=True)
    deviation = mean - split_mean
    split_m2 = tl.sum(m2 + count * deviation * deviation, axis=0, keep_dims=True)
    split_count = tl.maximum(last - first, 0).to(tl.float32)
    store_partial(partial_ptr, split_count, split_mean, split_m2, image, split, splits, channel, channel_mask, channels)


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def instance_norm_apply(
    x_ptr,  # [N, H * W, C] or [N, C, H * W]
    partial_ptr,  # [N, splits, 3, C]
    statistics_ptr,  # [N, 3, C] high, low, rstd: written
    residual_ptr,  # [N, H, W, C] or [N, C, H, W], any row stride
    y_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C]
    height,
    width,
    channels,
    splits,
    pixels_per_program,  # counted in the padded result
    x_image_stride,
    x_channel_stride,
    residual_image_stride,
    residual_row_stride,
    residual_channel_stride,
    eps,
    slope,
    PIVOTED: tl.constexpr,  # whether the partials' means are relative to the pivot
    X_CHANNELS_LAST: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    RESIDUAL_CHANNELS_LAST: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PAD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Phase 2 of two: write y = reflect_pad(act(xhat) + residual), and the statistics for the backward pass.

    The grid is (programs, blocks of channels, images). Every program combines the partials of all splits of its planes,
    then writes `pixels_per_program` pixels of the padded y once each, gathering x by reflection. The first program
    writes the statistics. The partials are those of phase 1, or of `conv2d_3x3`, whose means are not relative to a
    pivot.
    """
    program, channel_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = widened(channels, WIDE)
    x_channel_stride = widened(x_channel_stride, WIDE)
    residual_channel_stride = widened(residual_channel_stride, WIDE)
    residual_row_stride = widened(residual_row_stride, WIDE)
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, X_CHANNELS_LAST)
    residual_ptr = image_pointer(residual_ptr, image, residual_image_stride, channels, RESIDUAL_CHANNELS_LAST)
    padded_width = width + 2 * PAD
    padded_pixels = (height + 2 * PAD) * padded_width
    y_ptr = image_pointer(y_ptr, image, padded_pixels, channels, True)
    channel = channel_block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < channels
    if PIVOTED:
        pivot = load_pivot(x_ptr, height * width, channel, channel_mask, channels, x_channel_stride, X_CHANNELS_LAST)
    else:
        pivot = tl.zeros([1, BLOCK_CHANNELS], tl.float32)
    high, low, rstd = combined_statistics(
        partial_ptr,
        pivot,
        image,
        channel,
        channel_mask,
        splits,
        height * width,
        channels,
        eps,
        max(16, 1024 // BLOCK_CHANNELS),
    )
    if program == 0:
        store_statistics(statistics_ptr, high, low, rstd, image, channel, channel_mask, channels)

    first = program * pixels_per_program
    last = tl.minimum(first + pixels_per_program, padded_pixels)
    for start in range(first, last, BLOCK_PIXELS):
        padded_pixel = start + tl.arange(0, BLOCK_PIXELS)
        mask = (padded_pixel < last)[:, None] & channel_mask[None, :]
        if PAD > 0 or HAS_RESIDUAL:
            row = reflected(padded_pixel // padded_width - PAD, height)
            column = reflected(padded_pixel % padded_width - PAD, width)
            pixel = row * width + column
        else:
            pixel = padded_pixel
        offsets = tile_offsets(pixel, channel, channels, x_channel_stride, X_CHANNELS_LAST)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        y = activated(normalised_tile(x, high, low, rstd), slope, ACTIVATION)
        if HAS_RESIDUAL:
            pixel = row * residual_row_stride + column
            offsets = tile_offsets(pixel, channel, channels, residual_channel_stride, RESIDUAL_CHANNELS_LAST)
            y += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        offsets = tile_offsets(padded_pixel, channel, channels, 0, True)
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _loaded_half(
    x_ptr, first, pixels, channel, channel_mask, channels, x_channel_stride,
    X_CHANNELS_LAST: tl.constexpr, HALF_PIXELS: tl.constexpr,
):  # fmt: skip
    """Load x at half of a program's pixels: return their places, which exist, and x, float32 with zeros elsewhere."""
    pixel = first + tl.arange(0, HALF_PIXELS)
    in_image = (pixel < pixels)[:, None]
    offsets = tile_offsets(pixel, channel, channels, x_channel_stride, X_CHANNELS_LAST)
    x = tl.load(x_ptr + offsets, mask=in_image & channel_mask[None, :], other=0.0).to(tl.float32)
    return pixel, in_image, x


@triton.jit
def _write_half(
    residual_ptr,
    y_ptr,
    y,  # [P, C] act(xhat)
    pixel,
    mask,
    channel,
    height,
    width,
    channels,
    residual_row_stride,
    residual_channel_stride,
    COOPERATIVE: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    RESIDUAL_CHANNELS_LAST: tl.constexpr,
    PAD: tl.constexpr,
):
    """Add the residual to half of a program's pixels and store them in the interior of y.

    Where programs share a plane the frame is written here as well; else `mirror_interior` fills it afterwards.
    """
    row, column = pixel // width, pixel % width
    if HAS_RESIDUAL:
        offsets = tile_offsets(
            row * residual_row_stride + column, channel, channels, residual_channel_stride, RESIDUAL_CHANNELS_LAST
        )  # fmt: skip
        y += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if PAD == 0:
        offsets = tile_offsets(pixel, channel, channels, 0, True)
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)
    else:
        store_padded(
            y_ptr, y, row, column, channel, mask, COOPERATIVE, height, width, channels, PAD, MIRROR_COLUMNS=COOPERATIVE
        )


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def instance_norm_on_chip(
    x_ptr,  # [N, H * W, C] or [N, C, H * W]
    partial_ptr,  # [N, splits, 3, C], used where COOPERATIVE
    arrivals_ptr,  # [N * channel blocks] int32 zeros, used where COOPERATIVE
    statistics_ptr,  # [N, 3, C]: written
    residual_ptr,  # [N, H, W, C] or [N, C, H, W], any row stride
    y_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C]
    height,
    width,
    channels,
    splits,
    x_image_stride,
    x_channel_stride,
    residual_image_stride,
    residual_row_stride,
    residual_channel_stride,
    eps,
    slope,
    COOPERATIVE: tl.constexpr,
    X_CHANNELS_LAST: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    RESIDUAL_CHANNELS_LAST: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PAD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write y and the statistics in one phase that reads x once and keeps it in registers.

    The grid is (splits, blocks of channels, images). Without COOPERATIVE one program holds all pixels of BLOCK_CHANNELS
    planes. With it `splits` programs of BLOCK_PIXELS pixels each share them: they exchange count, mean and M2 through
    `partial_ptr` and wait for each other, and store each pixel with its mirror images; one program alone fills the
    frame from the interior at the end.
    """
    split, channel_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = widened(channels, WIDE)
    x_channel_stride = widened(x_channel_stride, WIDE)
    residual_channel_stride = widened(residual_channel_stride, WIDE)
    residual_row_stride = widened(residual_row_stride, WIDE)
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, X_CHANNELS_LAST)
    residual_ptr = image_pointer(residual_ptr, image, residual_image_stride, channels, RESIDUAL_CHANNELS_LAST)
    y_ptr = image_pointer(y_ptr, image, (height + 2 * PAD) * (width + 2 * PAD), channels, True)
    channel = channel_block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < channels
    pixels = height * width
    first = split * BLOCK_PIXELS
    count = tl.minimum(pixels - first, BLOCK_PIXELS).to(tl.float32)
    # The tile is worked on in halves: the second half's residual is read when the first half is stored, and needs no
    # registers before.
    HALF_PIXELS: tl.constexpr = BLOCK_PIXELS // 2
    pixel0, there0, x0 = _loaded_half(
        x_ptr, first, pixels, channel, channel_mask, channels, x_channel_stride, X_CHANNELS_LAST, HALF_PIXELS
    )
    pixel1, there1, x1 = _loaded_half(
        x_ptr,
        first + HALF_PIXELS,
        pixels,
        channel,
        channel_mask,
        channels,
        x_channel_stride,
        X_CHANNELS_LAST,
        HALF_PIXELS,
    )
    # The second sum recovers what rounding took from the first, so that no pivot is needed.
    high = (tl.sum(x0, axis=0, keep_dims=True) + tl.sum(x1, axis=0, keep_dims=True)) / count
    lost = tl.where(there0, x0 - high, 0.0) + tl.where(there1, x1 - high, 0.0)
    low = tl.sum(lost, axis=0, keep_dims=True) / count
    deviation0 = tl.where(there0, (x0 - high) - low, 0.0)
    deviation1 = tl.where(there1, (x1 - high) - low, 0.0)
    m2 = tl.sum(deviation0 * deviation0 + deviation1 * deviation1, axis=0, keep_dims=True)
    if COOPERATIVE:
        pivot = load_pivot(x_ptr, height * width, channel, channel_mask, channels, x_channel_stride, X_CHANNELS_LAST)
        mean = (high - pivot) + low
        store_partial(partial_ptr, count, mean, m2, image, split, splits, channel, channel_mask, channels)
        arrive_and_wait(arrivals_ptr, image * tl.num_programs(1) + channel_block, splits)
        high, low, rstd = combined_statistics(
            partial_ptr,
            pivot,
            image,
            channel,
            channel_mask,
            splits,
            pixels,
            channels,
            eps,
            max(16, 1024 // BLOCK_CHANNELS),
        )
        xhat0, xhat1 = normalised_tile(x0, high, low, rstd), normalised_tile(x1, high, low, rstd)
    else:
        rstd = tl.div_rn(1.0, tl.sqrt_rn(m2 / count + eps))
        xhat0, xhat1 = deviation0 * rstd, deviation1 * rstd
    if split == 0:
        store_statistics(statistics_ptr, high, low, rstd, image, channel, channel_mask, channels)
    _write_half(
        residual_ptr, y_ptr, activated(xhat0, slope, ACTIVATION), pixel0,
        there0 & channel_mask[None, :], channel, height, width, channels, residual_row_stride, residual_channel_stride,
        COOPERATIVE, HAS_RESIDUAL, RESIDUAL_CHANNELS_LAST, PAD,
    )  # fmt: skip
    _write_half(
        residual_ptr, y_ptr, activated(xhat1, slope, ACTIVATION), pixel1,
        there1 & channel_mask[None, :], channel, height, width, channels, residual_row_stride, residual_channel_stride,
        COOPERATIVE, HAS_RESIDUAL, RESIDUAL_CHANNELS_LAST, PAD,
    )  # fmt: skip
    if PAD > 0 and not COOPERATIVE:
        tl.debug_barrier()  # every thread's part of the interior is written before others read it
        mirror_interior(y_ptr, channel, channel_mask, height, width, channels, PAD, min(BLOCK_PIXELS, 512))


def norm_forward(
    x: Tensor,
    *,
    activation: Activation,
    negative_slope: float,
    residual: Tensor | None,
    pad: int,
    eps: float,
    partials: Tensor | None = None,
    y: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Launch the forward kernels; return y [N, C, H + 2*pad, W + 2*pad], channels last, and statistics [N, 3, C].

    The rows of the statistics are the mean's high and low parts and 1 / sqrt(variance + eps), float32.

    Args:
        x: [N, C, H, W].
        activation: "none", "relu" or "leaky_relu"; the last uses `negative_slope`.
        negative_slope: the leaky ReLU's slope below zero.
        residual: [N, C, H, W], in any strides.
        pad: reflection padding of y.
        eps: added to the biased variance.
        partials: [N, tiles, 3, C] count, mean and M2 of each tile of x, from a convolution; phase 1 is then left out.
        y: memory for the result, of its shape and dtype, channels last; by default it is new.
    """
    batch, channels, height, width = x.shape
    if y is None:
        y = empty_channels_last((batch, channels, height + 2 * pad, width + 2 * pad), like=x)
    statistics = torch.empty((batch, 3, channels), dtype=torch.float32, device=x.device)
    if x.numel() == 0:
        return y, statistics
    if partials is not None:
        partials = partials.contiguous()
    x_at = addressable(x, adjacent_rows=True)
    shape = (batch, channels, height, width)
    gpu = gpu_of(x)
    if partials is None:
        plan = plans.norm_plan("forward", shape, pad, x.dtype, gpu, channels_last=x_at.channels_last)
    else:  # the first phase is done already
        plan = plans.two_phase_rule("forward", shape, pad, x.dtype, gpu)
    residual_at = x_at if residual is None else addressable(residual)
    for images in plan.chunks(batch):
        arguments = {
            **x_at.arguments("x", images),
            **residual_at.arguments("residual", images),
            "HAS_RESIDUAL": residual is not None,
            "statistics_ptr": part(statistics, images),
            "y_ptr": part(y, images),
            "height": height,
            "width": width,
            "channels": channels,
            "eps": eps,
            "slope": negative_slope,
            "ACTIVATION": activation,
            "PAD": pad,
            "WIDE": needs_wide_offsets(x_at.tensor, residual_at.tensor, y),
            "BLOCK_PIXELS": plan.block_pixels,
            "BLOCK_CHANNELS": plan.block_channels,
        }
        if plan.variant == "two_phase":
            _two_phases(plan, arguments, None if partials is None else part(partials, images))
        else:
            _on_chip(plan, arguments)
    return y, statistics


def _two_phases(plan: plans.NormPlan, arguments: dict[str, Any], partials: Tensor | None) -> None:
    x, y = arguments["x_ptr"], arguments["y_ptr"]
    batch, channels, height, width = x.shape
    blocks = plan.blocks(channels)
    arguments["PIVOTED"] = partials is None
    if partials is None:
        splits = plan.programs(height * width)
        partials = torch.empty((batch, splits, 3, channels), dtype=torch.float32, device=x.device)
        arguments |= {"partial_ptr": partials, "splits": splits, "pixels_per_program": plan.pixels_per_program}
        run_kernel(instance_norm_statistics, (splits, blocks, batch), arguments, **plan.options)
    arguments |= {
        "partial_ptr": partials,
        "splits": partials.size(1),
        "pixels_per_program": plan.writer_pixels,
    }
    grid = (plan.writers(y.size(2) * y.size(3)), blocks, batch)
    run_kernel(instance_norm_apply, grid, arguments, **plan.writer_options)


def _on_chip(plan: plans.NormPlan, arguments: dict[str, Any]) -> None:
    batch, channels = arguments["x_ptr"].shape[:2]
    cooperation, options = cooperate(plan, arguments["x_ptr"], 3)
    grid = (cooperation["splits"], plan.blocks(channels), batch)
    run_kernel(instance_norm_on_chip, grid, arguments | cooperation, **plan.options, **options)
