"""Holds the backward kernels of the fused instance norm, and `norm_backward`, which plans their launches.

They compute dx from dY, the gradient of y = reflect_pad(act(xhat) + residual):

    h  = fold(dY) + skip                    fold: the adjoint of the padding; h is also the residual's gradient
    g  = h * act'(xhat)                     xhat = (x - mean) * rstd, recomputed from x
    dx = rstd * (g - mean_hw(g) - xhat * mean_hw(g * xhat))

`skip` is a second gradient of y's interior. A residual block reads its input twice, through its convolutions and around
them; both gradients come here and are added on load. x, dY and `skip` lie in the strides that `layout.addressable`
describes; all results are written channels last. All sums are float32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import plans
from ..dispatch import Activation
from ..gpus import gpu_of
from ..launching import run_kernel
from ..layout import addressable, empty_channels_last, needs_wide_offsets, part
from ..tiles import (
    activated,
    activation_gradient,
    folded,
    image_pointer,
    rows_near_edge,
    store_padded,
    tile_offsets,
    widened,
)
from ..triton_language import tl, triton
from .cooperation import arrive_and_wait, cooperate
from .statistics import load_statistics, normalised_tile


@triton.jit
def gradient_after_sum(
    dy_ptr,
    skip_ptr,
    row,
    column,
    channel,
    mask,
    near_edge,
    height,
    width,
    channels,
    dy_row_stride,
    dy_channel_stride,
    skip_row_stride,
    skip_channel_stride,
    HAS_SKIP: tl.constexpr,
    DY_CHANNELS_LAST: tl.constexpr,
    SKIP_CHANNELS_LAST: tl.constexpr,
    PAD: tl.constexpr,
):
    """Return h = fold(dY) + skip on a tile, float32 [P, C]."""
    h = folded(
        dy_ptr, row, column, channel, mask, near_edge, height, width, channels,
        dy_row_stride, dy_channel_stride, PAD, DY_CHANNELS_LAST,
    )  # fmt: skip
    if HAS_SKIP:
        h += folded(
            skip_ptr, row, column, channel, mask, False, height, width, channels,
            skip_row_stride, skip_channel_stride, 0, SKIP_CHANNELS_LAST,
        )  # fmt: skip
    return h


@triton.jit
def combined_sums(partial_ptr, image, channel, channel_mask, splits, channels, BLOCK_SPLITS: tl.constexpr):
    """Return a plane's sums of g and of g * xhat, each [1, C], from partials [N, splits, 2, C] in a fixed order."""
    first_split = image.to(tl.int64) * splits
    sum_g = tl.zeros([1, channel.shape[0]], tl.float32)
    sum_gx = tl.zeros([1, channel.shape[0]], tl.float32)
    for start in range(0, splits, BLOCK_SPLITS):
        split = start + tl.arange(0, BLOCK_SPLITS)
        mask = (split < splits)[:, None] & channel_mask[None, :]
        offsets = ((first_split + split) * 2)[:, None] * channels + channel[None, :]
        sum_g += tl.sum(tl.load(partial_ptr + offsets, mask=mask, other=0.0), axis=0, keep_dims=True)
        sum_gx += tl.sum(tl.load(partial_ptr + offsets + channels, mask=mask, other=0.0), axis=0, keep_dims=True)
    return sum_g, sum_gx


@triton.jit
def store_sums(partial_ptr, sum_g, sum_gx, image, split, splits, channel, channel_mask, channels):
    """Write one split's sums of g and of g * xhat, each [1, C], to partials [N, splits, 2, C]."""
    offsets = ((image.to(tl.int64) * splits + split) * 2 * channels + channel)[None, :]
    tl.store(partial_ptr + offsets, sum_g, mask=channel_mask[None, :])
    tl.store(partial_ptr + offsets + channels, sum_gx, mask=channel_mask[None, :])


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def instance_norm_backward_sums(
    x_ptr,  # [N, H * W, C] or [N, C, H * W]
    statistics_ptr,  # [N, 3, C]
    dy_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C] or [N, C, ...]
    skip_ptr,  # [N, H, W, C] or [N, C, H, W]
    partial_ptr,  # [N, splits, 2, C]: written
    d_residual_ptr,  # [N, H, W, C]: written where STORE_H
    height,
    width,
    channels,
    splits,
    pixels_per_program,
    x_image_stride,
    x_channel_stride,
    dy_image_stride,
    dy_row_stride,
    dy_channel_stride,
    skip_image_stride,
    skip_row_stride,
    skip_channel_stride,
    slope,
    X_CHANNELS_LAST: tl.constexpr,
    DY_CHANNELS_LAST: tl.constexpr,
    SKIP_CHANNELS_LAST: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    STORE_H: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PAD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Phase 1 of two: write the sums of g and of g * xhat of each split, and h where the residual wants its gradient.

    The grid is (splits, blocks of channels, images). A program reads `pixels_per_program` pixels of BLOCK_CHANNELS
    channels of x, dY and `skip` of one image, BLOCK_PIXELS at a time.
    """
    split, channel_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = widened(channels, WIDE)
    x_channel_stride = widened(x_channel_stride, WIDE)
    dy_channel_stride = widened(dy_channel_stride, WIDE)
    dy_row_stride = widened(dy_row_stride, WIDE)
    skip_channel_stride = widened(skip_channel_stride, WIDE)
    skip_row_stride = widened(skip_row_stride, WIDE)
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, X_CHANNELS_LAST)
    dy_ptr = image_pointer(dy_ptr, image, dy_image_stride, channels, DY_CHANNELS_LAST)
    skip_ptr = image_pointer(skip_ptr, image, skip_image_stride, channels, SKIP_CHANNELS_LAST)
    pixels = height * width
    d_residual_ptr = image_pointer(d_residual_ptr, image, pixels, channels, True)
    channel = channel_block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < channels
    high, low, rstd = load_statistics(statistics_ptr, image, channel, channel_mask, channels)
    first = split * pixels_per_program
    last = tl.minimum(first + pixels_per_program, pixels)
    sum_g = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    sum_gx = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    for start in range(first, last, BLOCK_PIXELS):
        pixel = start + tl.arange(0, BLOCK_PIXELS)
        mask = (pixel < last)[:, None] & channel_mask[None, :]
        offsets = tile_offsets(pixel, channel, channels, x_channel_stride, X_CHANNELS_LAST)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        near_edge = rows_near_edge(start, start + BLOCK_PIXELS, height, width, PAD)
        h = gradient_after_sum(
            dy_ptr, skip_ptr, pixel // width, pixel % width, channel, mask, near_edge, height, width, channels,
            dy_row_stride, dy_channel_stride, skip_row_stride, skip_channel_stride,
            HAS_SKIP, DY_CHANNELS_LAST, SKIP_CHANNELS_LAST, PAD,
        )  # fmt: skip
        if STORE_H:
            stored = h.to(d_residual_ptr.dtype.element_ty)
            offsets = tile_offsets(pixel, channel, channels, 0, True)
            tl.store(d_residual_ptr + offsets, stored, mask=mask)
            h = stored.to(tl.float32)  # phase 2 reads it back, and both phases must see the same values
        xhat = normalised_tile(x, high, low, rstd)
        g = activation_gradient(h, xhat, slope, ACTIVATION)
        sum_g += g
        sum_gx += g * xhat
    store_sums(
        partial_ptr, tl.sum(sum_g, axis=0, keep_dims=True), tl.sum(sum_gx, axis=0, keep_dims=True),
        image, split, splits, channel, channel_mask, channels,
    )  # fmt: skip


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def instance_norm_backward_apply(
    x_ptr,  # [N, H * W, C] or [N, C, H * W]
    statistics_ptr,  # [N, 3, C]
    dy_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C] or [N, C, ...]
    skip_ptr,  # [N, H, W, C] or [N, C, H, W]
    partial_ptr,  # [N, splits, 2, C]
    dx_ptr,  # [N, H, W, C]: written
    remade_ptr,  # [N, H + 2 * REMADE_PAD, W + 2 * REMADE_PAD, C] reflect_pad(act(xhat)): written where REMAKE
    height,
    width,
    channels,
    splits,
    pixels_per_program,
    x_image_stride,
    x_channel_stride,
    dy_image_stride,
    dy_row_stride,
    dy_channel_stride,
    skip_image_stride,
    skip_row_stride,
    skip_channel_stride,
    slope,
    X_CHANNELS_LAST: tl.constexpr,
    DY_CHANNELS_LAST: tl.constexpr,
    SKIP_CHANNELS_LAST: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    REMAKE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PAD: tl.constexpr,  # that of dY as it is read here: 0 where phase 1 has folded it
    REMADE_PAD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Phase 2 of two: write dx = rstd * (g - mean_hw(g) - xhat * mean_hw(g * xhat)).

    With REMAKE also write the forward result reflect_pad(act(xhat)) once more, for a caller that did not keep it. The
    grid is (programs, blocks of channels, images). Every program adds up the sums of all splits of its planes.
    """
    program, channel_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = widened(channels, WIDE)
    x_channel_stride = widened(x_channel_stride, WIDE)
    dy_channel_stride = widened(dy_channel_stride, WIDE)
    dy_row_stride = widened(dy_row_stride, WIDE)
    skip_channel_stride = widened(skip_channel_stride, WIDE)
    skip_row_stride = widened(skip_row_stride, WIDE)
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, X_CHANNELS_LAST)
    dy_ptr = image_pointer(dy_ptr, image, dy_image_stride, channels, DY_CHANNELS_LAST)
    skip_ptr = image_pointer(skip_ptr, image, skip_image_stride, channels, SKIP_CHANNELS_LAST)
    pixels = height * width
    dx_ptr = image_pointer(dx_ptr, image, pixels, channels, True)
    remade_ptr = image_pointer(remade_ptr, image, (height + 2 * REMADE_PAD) * (width + 2 * REMADE_PAD), channels, True)
    channel = channel_block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < channels
    high, low, rstd = load_statistics(statistics_ptr, image, channel, channel_mask, channels)
    sum_g, sum_gx = combined_sums(
        partial_ptr, image, channel, channel_mask, splits, channels, max(16, 1024 // BLOCK_CHANNELS)
    )
    mean_g, mean_gx = sum_g / pixels, sum_gx / pixels
    first = program * pixels_per_program
    last = tl.minimum(first + pixels_per_program, pixels)
    for start in range(first, last, BLOCK_PIXELS):
        pixel = start + tl.arange(0, BLOCK_PIXELS)
        row, column = pixel // width, pixel % width
        mask = (pixel < last)[:, None] & channel_mask[None, :]
        offsets = tile_offsets(pixel, channel, channels, x_channel_stride, X_CHANNELS_LAST)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        h = gradient_after_sum(
            dy_ptr, skip_ptr, row, column, channel, mask,
            rows_near_edge(start, start + BLOCK_PIXELS, height, width, PAD), height, width, channels,
            dy_row_stride, dy_channel_stride, skip_row_stride, skip_channel_stride,
            HAS_SKIP, DY_CHANNELS_LAST, SKIP_CHANNELS_LAST, PAD,
        )  # fmt: skip
        xhat = normalised_tile(x, high, low, rstd)
        g = activation_gradient(h, xhat, slope, ACTIVATION)
        dx = rstd * (g - mean_g - xhat * mean_gx)
        offsets = tile_offsets(pixel, channel, channels, 0, True)
        tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        if REMAKE:
            store_padded(
                remade_ptr, activated(xhat, slope, ACTIVATION), row, column, channel, mask,
                rows_near_edge(start, start + BLOCK_PIXELS, height, width, REMADE_PAD),
                height, width, channels, REMADE_PAD,
            )  # fmt: skip


@triton.jit(do_not_specialize=plans.RUN_TIME_SIZES)
def instance_norm_backward_on_chip(
    x_ptr,  # [N, H * W, C] or [N, C, H * W]
    statistics_ptr,  # [N, 3, C]
    dy_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C] or [N, C, ...]
    skip_ptr,  # [N, H, W, C] or [N, C, H, W]
    partial_ptr,  # [N, splits, 2, C], used where COOPERATIVE
    arrivals_ptr,  # [N * channel blocks] int32 zeros, used where COOPERATIVE
    dx_ptr,  # [N, H, W, C]: written
    d_residual_ptr,  # [N, H, W, C]: written where STORE_H
    remade_ptr,  # [N, H + 2 * REMADE_PAD, W + 2 * REMADE_PAD, C]: written where REMAKE
    height,
    width,
    channels,
    splits,
    x_image_stride,
    x_channel_stride,
    dy_image_stride,
    dy_row_stride,
    dy_channel_stride,
    skip_image_stride,
    skip_row_stride,
    skip_channel_stride,
    slope,
    COOPERATIVE: tl.constexpr,
    X_CHANNELS_LAST: tl.constexpr,
    DY_CHANNELS_LAST: tl.constexpr,
    SKIP_CHANNELS_LAST: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    STORE_H: tl.constexpr,
    REMAKE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PAD: tl.constexpr,
    REMADE_PAD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write dx, and as asked for h and the forward result, in one phase that reads x and dY once.

    The grid is (splits, blocks of channels, images). Without COOPERATIVE one program holds xhat and g of all pixels of
    BLOCK_CHANNELS planes in registers. With it `splits` programs of BLOCK_PIXELS pixels each share them: they exchange
    their sums through `partial_ptr` and wait for each other.
    """
    split, channel_block, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels = widened(channels, WIDE)
    x_channel_stride = widened(x_channel_stride, WIDE)
    dy_channel_stride = widened(dy_channel_stride, WIDE)
    dy_row_stride = widened(dy_row_stride, WIDE)
    skip_channel_stride = widened(skip_channel_stride, WIDE)
    skip_row_stride = widened(skip_row_stride, WIDE)
    x_ptr = image_pointer(x_ptr, image, x_image_stride, channels, X_CHANNELS_LAST)
    dy_ptr = image_pointer(dy_ptr, image, dy_image_stride, channels, DY_CHANNELS_LAST)
    skip_ptr = image_pointer(skip_ptr, image, skip_image_stride, channels, SKIP_CHANNELS_LAST)
    pixels = height * width
    dx_ptr = image_pointer(dx_ptr, image, pixels, channels, True)
    d_residual_ptr = image_pointer(d_residual_ptr, image, pixels, channels, True)
    remade_ptr = image_pointer(remade_ptr, image, (height + 2 * REMADE_PAD) * (width + 2 * REMADE_PAD), channels, True)
    channel = channel_block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_mask = channel < channels
    high, low, rstd = load_statistics(statistics_ptr, image, channel, channel_mask, channels)
    pixel = split * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    row, column = pixel // width, pixel % width
    mask = (pixel < pixels)[:, None] & channel_mask[None, :]
    offsets = tile_offsets(pixel, channel, channels, x_channel_stride, X_CHANNELS_LAST)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    xhat = normalised_tile(x, high, low, rstd)
    if REMAKE:
        store_padded(
            remade_ptr, activated(xhat, slope, ACTIVATION), row, column, channel, mask, REMADE_PAD > 0,
            height, width, channels, REMADE_PAD,
        )  # fmt: skip
    h = gradient_after_sum(
        dy_ptr, skip_ptr, row, column, channel, mask, True, height, width, channels,
        dy_row_stride, dy_channel_stride, skip_row_stride, skip_channel_stride,
        HAS_SKIP, DY_CHANNELS_LAST, SKIP_CHANNELS_LAST, PAD,
    )  # fmt: skip
    dense = tile_offsets(pixel, channel, channels, 0, True)
    if STORE_H:
        tl.store(d_residual_ptr + dense, h.to(d_residual_ptr.dtype.element_ty), mask=mask)
    g = activation_gradient(h, xhat, slope, ACTIVATION)
    sum_g = tl.sum(g, axis=0, keep_dims=True)
    sum_gx = tl.sum(g * xhat, axis=0, keep_dims=True)
    if COOPERATIVE:
        store_sums(partial_ptr, sum_g, sum_gx, image, split, splits, channel, channel_mask, channels)
        arrive_and_wait(arrivals_ptr, image * tl.num_programs(1) + channel_block, splits)
        sum_g, sum_gx = combined_sums(
            partial_ptr, image, channel, channel_mask, splits, channels, max(16, 1024 // BLOCK_CHANNELS)
        )
    dx = rstd * (g - sum_g / pixels - xhat * (sum_gx / pixels))
    tl.store(dx_ptr + dense, dx.to(dx_ptr.dtype.element_ty), mask=mask)


@dataclass(frozen=True)
class NormGradients:
    """Holds dx [N, C, H, W], and where asked for the residual's gradient and the forward result.

    `d_residual` is [N, C, H, W]. `remade` is reflect_pad(act(xhat)), [N, C, H + 2*pad, W + 2*pad], without a residual.
    """

    dx: Tensor
    d_residual: Tensor | None
    remade: Tensor | None


def norm_backward(
    dy: Tensor,
    x: Tensor,
    statistics: Tensor,
    *,
    activation: Activation,
    negative_slope: float,
    pad: int,
    skip: Tensor | None = None,
    wants_residual: bool = False,
    remake: bool = False,
    dx: Tensor | None = None,
    remade: Tensor | None = None,
) -> NormGradients:
    """Launch the backward kernels and return the gradients, all channels last.

    Args:
        dy: the gradient of `norm_forward`'s result, [N, C, H + 2*pad, W + 2*pad], or [N, C, H, W] where its pad is
            folded already.
        x: [N, C, H, W] as `norm_forward` read it.
        statistics: [N, 3, C] as `norm_forward` wrote them.
        activation: that of the forward pass, as are `negative_slope` and `pad`.
        negative_slope: the leaky ReLU's slope below zero.
        pad: reflection padding of the forward result.
        skip: [N, C, H, W], a second gradient of y's interior.
        wants_residual: whether d_residual = fold(dy) + skip is returned.
        remake: whether reflect_pad(act(xhat)) is written once more, for a caller that did not keep it.
        dx: memory for the gradient of x, of its shape and dtype, channels last; by default it is new.
        remade: memory for what is written once more, likewise.
    """
    batch, channels, height, width = x.shape
    shape = (batch, channels, height, width)
    dx = empty_channels_last(shape, like=x) if dx is None else dx
    d_residual = empty_channels_last(shape, like=x) if wants_residual else None
    if remake and remade is None:
        remade = empty_channels_last((batch, channels, height + 2 * pad, width + 2 * pad), like=x)
    if x.numel() == 0:
        return NormGradients(dx, d_residual, remade)
    x_at, dy_at = addressable(x, adjacent_rows=True), addressable(dy)
    dy_pad = (dy.size(2) - height) // 2
    plan = plans.norm_plan("backward", shape, dy_pad, x.dtype, gpu_of(x), channels_last=x_at.channels_last)
    skip_at = x_at if skip is None else addressable(skip)
    for images in plan.chunks(batch):
        arguments = {
            **x_at.arguments("x", images),
            **dy_at.arguments("dy", images),
            **skip_at.arguments("skip", images),
            "HAS_SKIP": skip is not None,
            "statistics_ptr": part(statistics, images),
            "dx_ptr": part(dx, images),
            "d_residual_ptr": dx if d_residual is None else part(d_residual, images),
            "STORE_H": wants_residual,
            "remade_ptr": dx if remade is None else part(remade, images),
            "REMAKE": remake,
            "height": height,
            "width": width,
            "channels": channels,
            "slope": negative_slope,
            "ACTIVATION": activation,
            "PAD": dy_pad,
            "REMADE_PAD": pad,
            "WIDE": needs_wide_offsets(x_at.tensor, dy_at.tensor, skip_at.tensor),
            "BLOCK_PIXELS": plan.block_pixels,
            "BLOCK_CHANNELS": plan.block_channels,
        }
        if plan.variant == "two_phase":
            _two_phases(plan, arguments)
        else:
            _on_chip(plan, arguments)
    return NormGradients(dx, d_residual, remade)


def _two_phases(plan: plans.NormPlan, arguments: dict[str, Any]) -> None:
    x = arguments["x_ptr"]
    batch, channels, height, width = x.shape
    splits = plan.programs(height * width)
    arguments |= {
        "partial_ptr": torch.empty((batch, splits, 2, channels), dtype=torch.float32, device=x.device),
        "splits": splits,
        "pixels_per_program": plan.pixels_per_program,
    }
    run_kernel(instance_norm_backward_sums, (splits, plan.blocks(channels), batch), arguments, **plan.options)
    arguments["pixels_per_program"] = plan.writer_pixels
    if arguments["STORE_H"]:
        # Phase 1 left fold(dY) + skip in the residual's gradient: one tensor to read instead of two. Where it folded a
        # pad, there are registers for a tile of twice the size now.
        h = addressable(arguments["d_residual_ptr"])
        tile = plan.block_pixels * (2 if arguments["PAD"] else 1)
        arguments |= {**h.arguments("dy", slice(0, batch)), "HAS_SKIP": False, "PAD": 0, "BLOCK_PIXELS": tile}
    grid = (plan.writers(height * width), plan.blocks(channels), batch)
    run_kernel(instance_norm_backward_apply, grid, arguments, **plan.writer_options)


def _on_chip(plan: plans.NormPlan, arguments: dict[str, Any]) -> None:
    batch, channels = arguments["x_ptr"].shape[:2]
    cooperation, options = cooperate(plan, arguments["x_ptr"], 2)
    grid = (cooperation["splits"], plan.blocks(channels), batch)
    run_kernel(instance_norm_backward_on_chip, grid, arguments | cooperation, **plan.options, **options)
