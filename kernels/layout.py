"""Describes tensors by the strides that kernels address them with, and makes the channels-last tensors they write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Addressed:
    """Holds a tensor [N, C, H, W] and the strides by which kernels find its elements; `kernels.tiles` has the formula.

    Strides are in pixels where channels come last and in elements where they do not.
    """

    tensor: Tensor
    channels_last: bool
    image_stride: int
    row_stride: int
    channel_stride: int

    def arguments(self, name: str, images: slice) -> dict[str, Any]:
        """Return the kernel arguments `name`_ptr, `name`_image_stride and so on, for some of the images."""
        return {
            f"{name}_ptr": part(self.tensor, images),
            f"{name}_image_stride": self.image_stride,
            f"{name}_row_stride": self.row_stride,
            f"{name}_channel_stride": self.channel_stride,
            f"{name.upper()}_CHANNELS_LAST": self.channels_last,
        }


def addressable(x: Tensor, *, adjacent_rows: bool = False) -> Addressed:
    """Describe x where it lies if its channels come last or its columns are adjacent, else a copy of it.

    Slices of rows and columns, such as the interior of a padded buffer, are described where they lie, unless
    `adjacent_rows` asks for a tensor without gaps between rows. Anything else is copied to channels last: transposed or
    expanded tensors, slices of channels, and with `adjacent_rows` slices of rows and columns.
    """
    height, width = x.shape[2:]
    for channels_last in (True, False):
        described = _describe(x, channels_last)
        if described and (not adjacent_rows or height == 1 or described.row_stride == width):
            return described
    described = _describe(x.contiguous(memory_format=torch.channels_last), channels_last=True)
    assert described is not None
    return described


def _describe(x: Tensor, channels_last: bool) -> Addressed | None:
    _, channels, height, width = x.shape
    image, channel, row, column = x.stride()
    # The stride along a side of 1 is arbitrary and never used.
    if x.size(0) == 1:
        image = 0
    if height == 1:
        row = width * (channels if channels_last else 1)
    elif row == 0:
        return None
    if image == 0 and x.size(0) > 1:
        return None
    if channels_last:
        if (channels > 1 and channel != 1) or (width > 1 and column != channels) or image % channels or row % channels:
            return None
        return Addressed(x, True, image // channels, row // channels, 0)
    if (width > 1 and column != 1) or (channels > 1 and channel == 0):
        return None
    return Addressed(x, False, image, row, channel)


def part(x: Tensor, images: slice) -> Tensor:
    """Return some images of a batch, or x itself for all of them, because slicing costs as much as a small launch."""
    return x if images.stop - images.start == x.size(0) else x[images]


def empty_channels_last(shape: Sequence[int], *, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised tensor [N, C, H, W] that lies in the order N, H, W, C; `like` gives device and dtype."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)


def needs_wide_offsets(*tensors: Tensor) -> bool:
    """Return whether an image of one of the tensors has an element 2^31 elements or more behind its first."""
    for x in tensors:
        _, channels, height, width = x.shape
        _, channel, row, column = x.stride()
        if (channels - 1) * channel + (height - 1) * row + (width - 1) * column >= 2**31:
            return True
    return False
