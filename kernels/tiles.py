"""What the kernels share: addresses of a tile, reflection and its adjoint, activations.

A tile is [pixels, channels] of one image. A tensor is described by an image stride, a row stride, both in pixels, and
`CHANNELS_LAST`: element (n, h, w, c) lies at (n * image_stride + h * row_stride + w) * C + c where channels come last,
and at n * image_stride + h * row_stride + w + c * channel_stride where they do not. Pixel offsets have 64 bits: a batch
of activations passes 2^31 elements long before it fills a GPU.
"""

from kernels.triton_language import tl, triton


@triton.jit
def tile_offsets(
    image,  # scalar
    pixel,  # [P] offset inside the image, in pixels
    channel,  # [C]
    channels,
    image_stride,
    channel_stride,
    CHANNELS_LAST: tl.constexpr,
):
    """Element offsets [P, C] of a tile, int64."""
    pixel = image.to(tl.int64) * image_stride + pixel
    if CHANNELS_LAST:
        return pixel[:, None] * channels + channel[None, :]
    return pixel[:, None] + channel[None, :].to(tl.int64) * channel_stride


@triton.jit
def reflected(position, side):
    """Where a position outside of 0..side-1 is mirrored from; the edge itself is not repeated."""
    position = tl.abs(position)
    return tl.where(position >= side, 2 * (side - 1) - position, position)


@triton.jit
def mirror_images(position, side, PAD: tl.constexpr, COPY: tl.constexpr):
    """The place in the padded side where `position` is written for the COPY-th time, and whether it is.

    Copy 0 is its own place, 1 its mirror image before the first element, 2 the one behind the last. Short sides
    (3 <= side <= 2 * PAD + 1) have positions with all three.
    """
    if COPY == 0:
        return position + PAD, position >= 0
    if COPY == 1:
        return PAD - position, (position >= 1) & (position <= PAD)
    return 2 * (side - 1) - position + PAD, (position >= side - 1 - PAD) & (position <= side - 2)


@triton.jit
def _folded_row(
    y_ptr,
    total,
    row_copy: tl.constexpr,
    image,
    row,
    column,
    channel,
    mask,
    height,
    width,
    channels,
    image_stride,
    row_stride,
    channel_stride,
    PAD: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    padded_row, row_is_there = mirror_images(row, height, PAD, row_copy)
    for column_copy in tl.static_range(3):
        padded_column, column_is_there = mirror_images(column, width, PAD, column_copy)
        pixel = padded_row.to(tl.int64) * row_stride + padded_column
        offsets = tile_offsets(image, pixel, channel, channels, image_stride, channel_stride, CHANNELS_LAST)
        is_there = mask & (row_is_there & column_is_there)[:, None]
        total += tl.load(y_ptr + offsets, mask=is_there, other=0.0).to(tl.float32)
    return total


@triton.jit
def folded(
    y_ptr,  # gradient of the padded tensor
    image,
    row,  # [P] interior rows
    column,  # [P]
    channel,  # [C]
    mask,  # [P, C]
    near_edge,  # scalar: whether a row of this tile has a mirror image in the pad
    height,
    width,
    channels,
    image_stride,
    row_stride,
    channel_stride,
    PAD: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """The adjoint of reflection padding, gathered: float32 [P, C], summed in one fixed order.

    Up to 4 gradients meet in a pixel, up to 9 on short sides.
    """
    if PAD == 0:
        pixel = row.to(tl.int64) * row_stride + column
        offsets = tile_offsets(image, pixel, channel, channels, image_stride, channel_stride, CHANNELS_LAST)
        return tl.load(y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    total = tl.zeros(mask.shape, tl.float32)
    total = _folded_row(
        y_ptr, total, 0, image, row, column, channel, mask, height, width, channels,
        image_stride, row_stride, channel_stride, PAD, CHANNELS_LAST,
    )  # fmt: skip
    if near_edge:
        for row_copy in tl.static_range(1, 3):
            total = _folded_row(
                y_ptr, total, row_copy, image, row, column, channel, mask, height, width, channels,
                image_stride, row_stride, channel_stride, PAD, CHANNELS_LAST,
            )  # fmt: skip
    return total


@triton.jit
def rows_near_edge(first_pixel, last_pixel, height, width, PAD: tl.constexpr):
    """Whether the rows of a range of pixels reach the ones that reflection copies."""
    if PAD == 0:
        return False
    return (first_pixel // width <= PAD) | (last_pixel // width >= height - 1 - PAD)


@triton.jit
def _store_row(
    y_ptr, value, row_copy: tl.constexpr, image, row, column, channel, mask, height, width, channels, PAD: tl.constexpr
):
    padded_width = width + 2 * PAD
    image_stride = (height + 2 * PAD).to(tl.int64) * padded_width
    padded_row, row_is_there = mirror_images(row, height, PAD, row_copy)
    for column_copy in tl.static_range(3 if PAD > 0 else 1):
        padded_column, column_is_there = mirror_images(column, width, PAD, column_copy)
        pixel = padded_row.to(tl.int64) * padded_width + padded_column
        offsets = tile_offsets(image, pixel, channel, channels, image_stride, 0, True)
        tl.store(y_ptr + offsets, value, mask=mask & (row_is_there & column_is_there)[:, None])


@triton.jit
def store_padded(
    y_ptr,  # [N, H + 2 * PAD, W + 2 * PAD, C], dense
    value,  # [P, C]
    image,
    row,  # [P]
    column,  # [P]
    channel,  # [C]
    mask,  # [P, C]
    near_edge,
    height,
    width,
    channels,
    PAD: tl.constexpr,
):
    """Write a tile of the interior to every place where reflection padding puts it."""
    value = value.to(y_ptr.dtype.element_ty)
    _store_row(y_ptr, value, 0, image, row, column, channel, mask, height, width, channels, PAD)
    # Without a pad, `near_edge` is False at compile time.
    if near_edge:
        for row_copy in tl.static_range(1, 3):
            _store_row(y_ptr, value, row_copy, image, row, column, channel, mask, height, width, channels, PAD)


@triton.jit
def activated(x, slope, ACTIVATION: tl.constexpr):
    """relu and leaky relu of a float32 tile."""
    if ACTIVATION == "relu":
        # Not maximum(x, 0): a NaN must stay one.
        return tl.where(x < 0, 0.0, x)
    if ACTIVATION == "leaky_relu":
        return tl.where(x < 0, x * slope, x)
    return x


@triton.jit
def activation_gradient(g, x, slope, ACTIVATION: tl.constexpr):
    """g * act'(x), 0 at x = 0 for relu as in PyTorch."""
    if ACTIVATION == "relu":
        return tl.where(x > 0, g, 0.0)
    if ACTIVATION == "leaky_relu":
        return tl.where(x > 0, g, g * slope)
    return g
