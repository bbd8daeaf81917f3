"""Holds the device functions that all kernels share: addresses of a tile, reflection and its adjoint, activations.

No kernel is launched from here; `norm/`, `reflection_pad` and `conv2d` have the kernels.

A tile is [pixels, channels] of one image, [P, C]. A tensor is described by an image stride, a row stride, both in
pixels, and `CHANNELS_LAST`: element (n, h, w, c) lies at (n * image_stride + h * row_stride + w) * C + c where channels
come last, and at n * image_stride + h * row_stride + w + c * channel_stride where they do not. An image's offset has 64
bits, because a batch of activations passes 2^31 elements long before it fills a GPU. Inside an image 32 bits are
enough, and save registers, until the image itself has 2^31 elements: `WIDE` then widens these offsets too.
"""

from .triton_language import tl, triton

# A return that depends on a compile-time flag needs its `else`: Triton compiles what follows a return too, and wants
# one type.


@triton.jit
def image_pointer(ptr, image, image_stride, channels, CHANNELS_LAST: tl.constexpr):
    """Return the pointer to the first element of an image."""
    offset = image.to(tl.int64) * image_stride
    if CHANNELS_LAST:
        offset = offset * channels
    return ptr + offset


@triton.jit
def widened(size, WIDE: tl.constexpr):
    """Return a size that offsets are computed with, in 64 bits where an image needs them."""
    if WIDE:
        return tl.cast(size, tl.int64)
    else:
        return size


@triton.jit
def tile_offsets(
    pixel,  # [P] offset inside the image, in pixels
    channel,  # [C]
    channels,
    channel_stride,
    CHANNELS_LAST: tl.constexpr,
):
    """Return the element offsets [P, C] of a tile inside its image."""
    if CHANNELS_LAST:
        return pixel[:, None] * channels + channel[None, :]
    else:
        return pixel[:, None] + channel[None, :] * channel_stride


@triton.jit
def reflected(position, side):
    """Return the position in 0..side-1 that reflection copies to `position`; the edge itself is not repeated."""
    position = tl.abs(position)
    return tl.where(position >= side, 2 * (side - 1) - position, position)


@triton.jit
def mirror_images(position, side, PAD: tl.constexpr, COPY: tl.constexpr):
    """Return the place in the padded side where copy number COPY of `position` lies, and whether there is one.

    Copy 0 is the position itself, copy 1 its mirror image before the first element, copy 2 the one behind the last.
    Short sides (3 <= side <= 2 * PAD + 1) have positions with all three.
    """
    if COPY == 0:
        return position + PAD, position >= 0
    elif COPY == 1:
        return PAD - position, (position >= 1) & (position <= PAD)
    else:
        return 2 * (side - 1) - position + PAD, (position >= side - 1 - PAD) & (position <= side - 2)


@triton.jit
def _folded_row(
    y_ptr,
    total,
    row_copy: tl.constexpr,
    row,
    column,
    channel,
    mask,
    height,
    width,
    channels,
    row_stride,
    channel_stride,
    PAD: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    padded_row, row_is_there = mirror_images(row, height, PAD, row_copy)
    for column_copy in tl.static_range(3):
        padded_column, column_is_there = mirror_images(column, width, PAD, column_copy)
        offsets = tile_offsets(
            padded_row * row_stride + padded_column, channel, channels, channel_stride, CHANNELS_LAST
        )
        is_there = mask & (row_is_there & column_is_there)[:, None]
        total += tl.load(y_ptr + offsets, mask=is_there, other=0.0).to(tl.float32)
    return total


@triton.jit
def folded(
    y_ptr,  # the gradient of the padded tensor, from the first element of its image on
    row,  # [P] interior rows
    column,  # [P]
    channel,  # [C]
    mask,  # [P, C]
    near_edge,  # scalar, whether a row of this tile has a mirror image in the pad
    height,
    width,
    channels,
    row_stride,
    channel_stride,
    PAD: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """Return fold(dY) on a tile, float32 [P, C]: the adjoint of reflection padding.

    fold(dY)[h, w] is the sum of dY over all places of the padded tensor to which reflection copies (h, w): up to 4, and
    up to 9 on short sides. They are gathered and added in one fixed order, without atomics.
    """
    if PAD == 0:
        offsets = tile_offsets(row * row_stride + column, channel, channels, channel_stride, CHANNELS_LAST)
        return tl.load(y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    else:
        total = tl.zeros(mask.shape, tl.float32)
        total = _folded_row(
            y_ptr, total, 0, row, column, channel, mask, height, width, channels,
            row_stride, channel_stride, PAD, CHANNELS_LAST,
        )  # fmt: skip
        if near_edge:
            for row_copy in tl.static_range(1, 3):
                total = _folded_row(
                    y_ptr, total, row_copy, row, column, channel, mask, height, width, channels,
                    row_stride, channel_stride, PAD, CHANNELS_LAST,
                )  # fmt: skip
        return total


@triton.jit
def rows_near_edge(first_pixel, last_pixel, height, width, PAD: tl.constexpr):
    """Return whether a range of pixels reaches the rows that reflection copies; False where there is no pad."""
    if PAD == 0:
        return False
    else:
        return (first_pixel // width <= PAD) | (last_pixel // width >= height - 1 - PAD)


@triton.jit
def _store_row(
    y_ptr,
    value,
    row_copy: tl.constexpr,
    row,
    column,
    channel,
    mask,
    height,
    width,
    channels,
    PAD: tl.constexpr,
    COLUMN_COPIES: tl.constexpr,
):
    padded_width = width + 2 * PAD
    padded_row, row_is_there = mirror_images(row, height, PAD, row_copy)
    for column_copy in tl.static_range(COLUMN_COPIES):
        padded_column, column_is_there = mirror_images(column, width, PAD, column_copy)
        offsets = tile_offsets(padded_row * padded_width + padded_column, channel, channels, 0, True)
        tl.store(y_ptr + offsets, value, mask=mask & (row_is_there & column_is_there)[:, None])


@triton.jit
def store_padded(
    y_ptr,  # [H + 2 * PAD, W + 2 * PAD, C]
    value,  # [P, C]
    row,  # [P]
    column,  # [P]
    channel,  # [C]
    mask,  # [P, C]
    near_edge,
    height,
    width,
    channels,
    PAD: tl.constexpr,
    MIRROR_COLUMNS: tl.constexpr = True,
):
    """Write a tile of the interior to every place where reflection padding puts it.

    Rows are mirrored where `near_edge`, columns where MIRROR_COLUMNS. A kernel that calls `mirror_interior` afterwards
    asks for neither.
    """
    value = value.to(y_ptr.dtype.element_ty)
    COLUMN_COPIES: tl.constexpr = 3 if PAD > 0 and MIRROR_COLUMNS else 1
    _store_row(y_ptr, value, 0, row, column, channel, mask, height, width, channels, PAD, COLUMN_COPIES)
    # Without a pad, `near_edge` is False at compile time.
    if near_edge:
        for row_copy in tl.static_range(1, 3):
            _store_row(y_ptr, value, row_copy, row, column, channel, mask, height, width, channels, PAD, COLUMN_COPIES)


@triton.jit
def mirror_interior(
    y_ptr,  # [H + 2 * PAD, W + 2 * PAD, C], its interior written by this program
    channel,  # [C]
    channel_mask,  # [C]
    height,
    width,
    channels,
    PAD: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):
    """Fill the frame around the interior with copies from it.

    The frame is few pixels; storing every pixel of the interior to nine places would mask off most of the stores.
    """
    padded_width = width + 2 * PAD
    in_rows = 2 * PAD * padded_width  # pixels of the rows above and below; the others lie left and right
    in_frame = in_rows + 2 * PAD * height
    for start in range(0, in_frame, BLOCK_PIXELS):
        pixel = start + tl.arange(0, BLOCK_PIXELS)
        across, beside = pixel // padded_width, tl.maximum(pixel - in_rows, 0)
        left_to_right = beside % (2 * PAD)
        is_in_rows = pixel < in_rows
        row = tl.where(is_in_rows, tl.where(across < PAD, across, across + height), PAD + beside // (2 * PAD))
        beside = tl.where(left_to_right < PAD, left_to_right, left_to_right + width)
        column = tl.where(is_in_rows, pixel % padded_width, beside)
        source = (reflected(row - PAD, height) + PAD) * padded_width + reflected(column - PAD, width) + PAD
        mask = (pixel < in_frame)[:, None] & channel_mask[None, :]
        mirrored = tl.load(y_ptr + tile_offsets(source, channel, channels, 0, True), mask=mask)
        tl.store(y_ptr + tile_offsets(row * padded_width + column, channel, channels, 0, True), mirrored, mask=mask)


@triton.jit
def activated(x, slope, ACTIVATION: tl.constexpr):
    """Return act(x) of a float32 tile: ReLU, leaky ReLU with `slope`, or x itself."""
    if ACTIVATION == "relu":
        # This is not maximum(x, 0): a NaN must stay one.
        return tl.where(x < 0, 0.0, x)
    elif ACTIVATION == "leaky_relu":
        return tl.where(x < 0, x * slope, x)
    else:
        return x


@triton.jit
def activation_gradient(g, xhat, slope, ACTIVATION: tl.constexpr):
    """Return g * act'(xhat), float32.

    An xhat of at most TIE counts as 0, where the derivative is that of the negative side, as in PyTorch: rounding must
    not decide on which side a tie falls.
    """
    # A pixel that equals its plane's mean has xhat = 0, or what rounding of the mean leaves of it: a few 2^-24. A
    # constant outside of the function would be in the key of Triton's cache, or not: Triton 3.6 and 3.7 leave it out
    # where a kernel is the first one in a process to use the function.
    TIE: tl.constexpr = 2.0**-22
    if ACTIVATION == "relu":
        return tl.where(xhat > TIE, g, 0.0)
    elif ACTIVATION == "leaky_relu":
        return tl.where(xhat > TIE, g, g * slope)
    else:
        return g
