"""Holds the device functions by which the norm's kernels keep, exchange and combine the statistics of a plane.

The mean of a plane is kept as a pair: (high, low) is its unevaluated sum of two float32, so that (x - high) - low is
exact to float32 rounding of the *deviation*, however large the mean is. Splits of a plane take their statistics about
a pivot, the median of three of its pixels. M2 is the sum of squared deviations from the mean.
"""

from ..tiles import tile_offsets
from ..triton_language import tl, triton


@triton.jit
def combined_statistics(
    partial_ptr,  # [N, splits, 3, C] count, mean, M2 of each split, float32
    pivot,  # [1, C] float32, what the means are relative to
    image,
    channel,  # [C]
    channel_mask,
    splits,
    pixels,
    channels,
    eps,
    BLOCK_SPLITS: tl.constexpr,
):
    """Combine the splits of a plane in a fixed order: return its mean as (high, low) and its rstd, each [1, C].

        rstd = 1 / sqrt(M2 / pixels + eps)
        M2   = sum over splits of (M2 of the split + count * (mean of the split - mean)^2)

    This is the combination of Chan et al. 1979, for the splits of a block at once and then for two parts: the blocks
    before and this one. The mean is followed in two float32.
    """
    first_split = image.to(tl.int64) * splits
    seen = tl.zeros([1, channel.shape[0]], tl.float32)
    mean = tl.zeros([1, channel.shape[0]], tl.float32)
    mean_low = tl.zeros([1, channel.shape[0]], tl.float32)
    m2 = tl.zeros([1, channel.shape[0]], tl.float32)
    for start in range(0, splits, BLOCK_SPLITS):
        split = start + tl.arange(0, BLOCK_SPLITS)
        mask = (split < splits)[:, None] & channel_mask[None, :]
        offsets = ((first_split + split) * 3)[:, None] * channels + channel[None, :]
        count = tl.load(partial_ptr + offsets, mask=mask, other=0.0)
        part_mean = tl.load(partial_ptr + offsets + channels, mask=mask, other=0.0)
        part_m2 = tl.load(partial_ptr + offsets + 2 * channels, mask=mask, other=0.0)
        # Combine the splits of this block; a second sum recovers what rounding took from their common mean.
        block_count = tl.sum(count, axis=0, keep_dims=True)
        share = count / tl.maximum(block_count, 1.0)
        block_mean = tl.sum(share * part_mean, axis=0, keep_dims=True)
        deviation = part_mean - block_mean
        block_lost = tl.sum(share * deviation, axis=0, keep_dims=True)
        block_m2 = tl.sum(part_m2 + count * deviation * deviation, axis=0, keep_dims=True)
        # Combine them with the splits of the blocks before.
        weight = block_count / tl.maximum(seen + block_count, 1.0)
        step, step_low = block_mean - mean, block_lost - mean_low
        mean, rounding = two_sum(mean, step * weight)
        mean_low += rounding + step_low * weight
        step += step_low
        m2 += block_m2 + step * step * seen * weight
        seen += block_count
    high, low = two_sum(pivot, mean)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(m2 / pixels + eps))
    return high, low + mean_low, rstd


@triton.jit
def two_sum(a, b):
    """Return a + b as the rounded sum and its exact error (Knuth)."""
    total = a + b
    from_b = total - a
    return total, (a - (total - from_b)) + (b - from_b)


@triton.jit
def normalised_tile(x, high, low, rstd):
    """Return xhat = (x - mean) * rstd. Forward and backward round it alike, so that they agree on its sign."""
    return ((x - high) - low) * rstd


@triton.jit
def load_statistics(statistics_ptr, image, channel, channel_mask, channels):
    """Return an image's high, low and rstd, each [1, C], from statistics [N, 3, C]."""
    offsets = (image.to(tl.int64) * 3 * channels + channel)[None, :]
    mask = channel_mask[None, :]
    high = tl.load(statistics_ptr + offsets, mask=mask, other=0.0)
    low = tl.load(statistics_ptr + offsets + channels, mask=mask, other=0.0)
    rstd = tl.load(statistics_ptr + offsets + 2 * channels, mask=mask, other=0.0)
    return high, low, rstd


@triton.jit
def store_statistics(statistics_ptr, high, low, rstd, image, channel, channel_mask, channels):
    """Write an image's high, low and rstd, each [1, C], to statistics [N, 3, C]."""
    offsets = (image.to(tl.int64) * 3 * channels + channel)[None, :]
    mask = channel_mask[None, :]
    tl.store(statistics_ptr + offsets, high, mask=mask)
    tl.store(statistics_ptr + offsets + channels, low, mask=mask)
    tl.store(statistics_ptr + offsets + 2 * channels, rstd, mask=mask)


@triton.jit
def store_partial(partial_ptr, count, mean, m2, image, split, splits, channel, channel_mask, channels):
    """Write one split's count, mean and M2 to partials [N, splits, 3, C]; mean and m2 are [1, C]."""
    offsets = ((image.to(tl.int64) * splits + split) * 3 * channels + channel)[None, :]
    mask = channel_mask[None, :]
    tl.store(partial_ptr + offsets, tl.zeros_like(mean) + count, mask=mask)
    tl.store(partial_ptr + offsets + channels, mean, mask=mask)
    tl.store(partial_ptr + offsets + 2 * channels, m2, mask=mask)


@triton.jit
def load_pivot(x_ptr, pixels, channel, channel_mask, channels, channel_stride, CHANNELS_LAST: tl.constexpr):
    """Return the median of three pixels of each plane, [1, C] float32, which one outlier cannot be."""
    pixel = tl.zeros([1], tl.int32)
    mask = channel_mask[None, :]
    offsets = tile_offsets(pixel, channel, channels, channel_stride, CHANNELS_LAST)
    first = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    offsets = tile_offsets(pixel + pixels // 2, channel, channels, channel_stride, CHANNELS_LAST)
    middle = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    offsets = tile_offsets(pixel + (pixels - 1), channel, channels, channel_stride, CHANNELS_LAST)
    last = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    return tl.maximum(tl.minimum(first, middle), tl.minimum(tl.maximum(first, middle), last))
