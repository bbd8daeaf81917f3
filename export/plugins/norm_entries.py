"""Holds the entries of the norm's kernels as TensorRT calls them: inputs, then sizes, then outputs.

Everything is channels last without gaps, and what does not change with the shape of the images is compiled in; of
sizes TensorRT passes 32-bit integers alone. `cyclegan_fast.kernels.norm` has the kernels themselves.
"""

from cyclegan_fast.kernels.norm.forward import instance_norm_apply, instance_norm_statistics
from cyclegan_fast.kernels.triton_language import tl, triton


@triton.jit
def plugin_norm_statistics(
    x_ptr,  # [N, H, W, C]
    height,
    width,
    splits,
    partial_ptr,  # [N, splits, 3, C] float32: written
    CHANNELS: tl.constexpr,
    PIXELS_PER_PROGRAM: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write the statistics of each split of each plane; the grid is (splits, blocks of channels, images)."""
    instance_norm_statistics(
        x_ptr, partial_ptr, height, width, CHANNELS, splits, PIXELS_PER_PROGRAM, height * width, 1,
        True, False, BLOCK_PIXELS, BLOCK_CHANNELS,
    )  # fmt: skip


@triton.jit
def plugin_norm_apply(
    x_ptr,  # [N, H, W, C]
    partial_ptr,  # [N, splits, 3, C] float32
    height,
    width,
    splits,
    y_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C]: written
    statistics_ptr,  # [N, 3, C] float32: written
    CHANNELS: tl.constexpr,
    PIXELS_PER_PROGRAM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PAD: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write y = reflect_pad(act(xhat)); the grid is (programs, blocks of channels, images)."""
    instance_norm_apply(
        x_ptr, partial_ptr, statistics_ptr, x_ptr, y_ptr, height, width, CHANNELS, splits, PIXELS_PER_PROGRAM,
        height * width, 1, height * width, width, 1, EPS, 0.0,
        True, True, False, True, ACTIVATION, PAD, False, BLOCK_PIXELS, BLOCK_CHANNELS,
    )  # fmt: skip


@triton.jit
def plugin_norm_apply_residual(
    x_ptr,  # [N, H, W, C]
    partial_ptr,  # [N, splits, 3, C] float32
    residual_ptr,  # [N, H, W, C]
    height,
    width,
    splits,
    y_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C]: written
    statistics_ptr,  # [N, 3, C] float32: written
    CHANNELS: tl.constexpr,
    PIXELS_PER_PROGRAM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PAD: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write y = reflect_pad(act(xhat) + residual); the grid is (programs, blocks of channels, images)."""
    instance_norm_apply(
        x_ptr, partial_ptr, statistics_ptr, residual_ptr, y_ptr, height, width, CHANNELS, splits, PIXELS_PER_PROGRAM,
        height * width, 1, height * width, width, 1, EPS, 0.0,
        True, True, True, True, ACTIVATION, PAD, False, BLOCK_PIXELS, BLOCK_CHANNELS,
    )  # fmt: skip
