"""Makes the images of a batch from samples: cuts a window out of each image, mirrors it or not, scales it to [-1, 1].

Samples are bytes, or numbers of 16 or 32 bits, of any number of channels.
"""

import torch
from torch import Tensor

from .. import plans
from ..arguments.options import checked_integer, checked_number
from ..arguments.tensors import check_shape_and_dtype, check_tensor
from ..dispatch import Impl, choose
from ..launching import run_kernel
from ..layout import empty_channels_last
from ..registration import define
from ..triton_language import tl, triton

SAMPLE_DTYPES = (torch.uint8, torch.uint16, torch.int16, torch.float32)
_MOST_ELEMENTS = 2**31 - 1
"""the elements of a window, which the kernel counts in 32 bits"""
_FLOAT32 = torch.finfo(torch.float32)


def _is_clamped(pixels: Tensor) -> bool:
    """Return whether values beyond the range become -1 and 1; bytes are taken to have their full range."""
    return pixels.dtype != torch.uint8


def signed_windows_reference(
    pixels: Tensor, crops: Tensor, height: int, width: int, low: float = 0.0, high: float = 255.0
) -> Tensor:
    """Compute `signed_windows` in plain PyTorch."""
    images, image_height, image_width, channels = pixels.shape
    top, left, mirrored = crops.unbind(1)
    columns = torch.arange(width, device=pixels.device)
    columns = left[:, None] + torch.where(mirrored[:, None] != 0, width - 1 - columns, columns)
    first_rows = top + torch.arange(images, device=pixels.device) * image_height
    rows = first_rows[:, None] + torch.arange(height, device=pixels.device)
    # PyTorch gathers no unsigned samples of 16 bits, but their bits as signed ones.
    samples = pixels.view(torch.int16) if pixels.dtype == torch.uint16 else pixels
    # It takes whole rows first, then columns of planes of samples. Of eight ways to write it this was the quickest on
    # one core, 0.5 ms for a window of 256x256 and 1.6 ms for four; single pixels by their index took 0.8 and 2.6.
    strips = samples.reshape(images * image_height, image_width * channels).index_select(0, rows.flatten())
    planes = strips.view(images, height, image_width, channels).permute(0, 3, 1, 2)
    windows = planes.gather(3, columns[:, None, None, :].expand(images, channels, height, width))
    values = windows.view(pixels.dtype).float()
    if low:
        values.sub_(low)
    values.div_((high - low) / 2).sub_(1.0)
    return (values.clamp_(-1.0, 1.0) if _is_clamped(pixels) else values).contiguous()


# --- kernel ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["image_height", "image_width", "height", "width"])
def signed_windows_cut(
    x_ptr,  # [N, IMAGE_HEIGHT, IMAGE_WIDTH, CHANNELS], uint8, uint16, int16 or float32
    crops_ptr,  # [N, 3], int64: top, left, mirrored
    y_ptr,  # [N, HEIGHT, WIDTH, CHANNELS], float32: written
    image_height,
    image_width,
    height,
    width,
    low,
    half_range,
    CHANNELS: tl.constexpr,
    CLAMPED: tl.constexpr,
    BLOCK_ELEMENTS: tl.constexpr,
):
    """Write a window of each image; the grid is (blocks of BLOCK_ELEMENTS elements of a window, 1, images)."""
    image = tl.program_id(2).to(tl.int64)
    element = tl.program_id(0) * BLOCK_ELEMENTS + tl.arange(0, BLOCK_ELEMENTS)
    mask = element < height * width * CHANNELS
    channel, pixel = element % CHANNELS, element // CHANNELS
    row, column = pixel // width, pixel % width
    # The crops have 64 bits, and so have all offsets that come of them.
    top, left = tl.load(crops_ptr + image * 3), tl.load(crops_ptr + image * 3 + 1)
    is_mirrored = tl.load(crops_ptr + image * 3 + 2) != 0
    column = left + tl.where(is_mirrored, width - 1 - column, column)
    source = ((image * image_height + top + row) * image_width + column) * CHANNELS + channel
    level = tl.load(x_ptr + source, mask=mask, other=0).to(tl.float32)
    # The plain division is an approximate one on a GPU.
    y = tl.div_rn(level - low, tl.zeros((BLOCK_ELEMENTS,), tl.float32) + half_range) - 1.0
    if CLAMPED:
        y = tl.where(y < -1.0, -1.0, tl.where(y > 1.0, 1.0, y))  # what is not a number stays
    tl.store(y_ptr + image * (height * width * CHANNELS) + element, y, mask=mask)


_BLOCK = 1024


def _cut(pixels: Tensor, crops: Tensor, height: int, width: int, low: float, high: float) -> Tensor:
    """Launch the cut; return float32 [N, C, height, width], channels last."""
    windows = _fake_cut(pixels, crops, height, width, low, high)
    if windows.numel():
        images, channels = windows.shape[:2]
        arguments = {
            "x_ptr": pixels.contiguous(),
            "crops_ptr": crops.contiguous(),
            "y_ptr": windows,
            "image_height": pixels.size(1),
            "image_width": pixels.size(2),
            "height": height,
            "width": width,
            "low": low,
            "half_range": (high - low) / 2,
            "CHANNELS": channels,
            "CLAMPED": _is_clamped(pixels),
            "BLOCK_ELEMENTS": _BLOCK,
        }
        run_kernel(signed_windows_cut, (plans.ceil_div(windows[0].numel(), _BLOCK), 1, images), arguments, num_warps=4)
    return windows


# --- the operator ----------------------------------------------------------------------------------------------------


def _fake_cut(pixels: Tensor, crops: Tensor, height: int, width: int, low: float, high: float) -> Tensor:
    shape = pixels.size(0), pixels.size(3), height, width
    return empty_channels_last(shape, like=pixels, dtype=torch.float32)


SIGNED_WINDOWS = define(
    "signed_windows(Tensor pixels, Tensor crops, int height, int width, float low, float high) -> Tensor",
    _cut,
    _fake_cut,
)


def signed_windows(
    pixels: Tensor,
    crops: Tensor,
    height: int,
    width: int,
    low: float = 0.0,
    high: float = 255.0,
    *,
    impl: Impl = "auto",
) -> Tensor:
    """Cut a window of [height, width] out of each image, mirror it or not, and scale it to [-1, 1].

    Nothing here waits for the device or depends on a value, so that a CUDA graph can hold it.

    Args:
        pixels: uint8, uint16, int16 or float32 [N, H, W, C].
        crops: int64 [N, 3] on the same device: top, left, and 1 to mirror the window or 0; inside the image.
        height, width: the window's sides, in pixels.
        low, high: the values that become -1 and 1. Those beyond become the nearer of the two, but for uint8; what is
            not a number stays so.
        impl: the implementation, see `kernels.dispatch.choose`, which raises where it cannot run. On a CPU both
            give one result; on a GPU PyTorch multiplies by an inverse, which is off by a rounding.

    Returns float32 [N, C, height, width], which Triton writes channels last. Raises ValueError or TypeError where the
    operands do not fit, or the window is larger than an image.
    """
    check_tensor("pixels", pixels)
    check_shape_and_dtype("pixels", pixels, SAMPLE_DTYPES, (None, None, None, None), pixels)
    check_shape_and_dtype("crops", crops, torch.int64, (pixels.size(0), 3), pixels)
    height, width = (
        checked_integer(name, size, 1, most)
        for name, size, most in (("height", height, pixels.size(1)), ("width", width, pixels.size(2)))
    )
    if height * width * pixels.size(3) > _MOST_ELEMENTS:
        raise ValueError(f"a window must have less than 2^31 elements, got {height}x{width} of {pixels.size(3)}")
    low, high = _checked_range(low, high)
    if choose("signed_windows", impl, pixels, SAMPLE_DTYPES) == "reference":
        return signed_windows_reference(pixels, crops, height, width, low, high)
    windows: Tensor = SIGNED_WINDOWS(pixels, crops, height, width, low, high)
    return windows


def _checked_range(low: object, high: object) -> tuple[float, float]:
    """Return both ends of a range that float32 can scale by; raises ValueError or TypeError for others."""
    ends = checked_number("low", low), checked_number("high", high)
    for name, end in zip(("low", "high"), ends, strict=True):
        if abs(end) > _FLOAT32.max:
            raise ValueError(f"{name} must be a number that float32 can hold, got {end:g}")
    if not _FLOAT32.tiny <= (ends[1] - ends[0]) / 2 <= _FLOAT32.max:
        raise ValueError(f"high must be greater than low, by what float32 can hold, got {ends[0]:g} and {ends[1]:g}")
    return ends
