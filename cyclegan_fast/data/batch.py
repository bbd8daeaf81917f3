"""Gathers batches of images on the host; `signed_windows` cuts and scales them on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cyclegan_fast.images.pixel_type import BOTH_RGB, PixelType, PixelTypes, SampleArray
from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.elementwise.signed_windows import signed_windows


@dataclass(frozen=True)
class Cut:
    """Describes a window of [height, width] in an image [H, W, C], and whether it is mirrored."""

    pixels: SampleArray
    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def alone(self) -> "Cut":
        """Return the cut with the pixels of the window alone, without the image around it."""
        window = self.pixels[self.top : self.top + self.height, self.left : self.left + self.width]
        return Cut(window, 0, 0, self.height, self.width, self.mirrored)


@dataclass(frozen=True)
class Batch:
    """Holds one step's images on the host; for each domain, its three fields are the arguments of `signed_windows`."""

    pixels_A: Tensor  # [N, H, W, C], samples of the domain's type
    pixels_B: Tensor
    crops_A: Tensor  # int64 [N, 3]
    crops_B: Tensor
    size_A: tuple[int, int]  # height, width of the windows
    size_B: tuple[int, int]

    @staticmethod
    def of(cuts_A: Sequence[Cut], cuts_B: Sequence[Cut], *, pin: bool) -> "Batch":
        """Gather the images of both domains, each of one size; in pinned memory with `pin`, which needs CUDA."""
        return Batch(
            pixels_A=_pixels(cuts_A, pin),
            pixels_B=_pixels(cuts_B, pin),
            crops_A=_crops(cuts_A, pin),
            crops_B=_crops(cuts_B, pin),
            size_A=(cuts_A[0].height, cuts_A[0].width),
            size_B=(cuts_B[0].height, cuts_B[0].width),
        )

    def to(self, device: torch.device, impl: Impl = "auto", kinds: PixelTypes = BOTH_RGB) -> tuple[Tensor, Tensor]:
        """Copy the batch to `device`; returns the images of A and of B, float32 [N, C, height, width] in [-1, 1].

        `impl` chooses who cuts the windows out, see `kernels.dispatch.choose`. `kinds` has the ranges of the samples.
        """
        pixels_A, pixels_B, crops_A, crops_B = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.pixels_A, self.pixels_B, self.crops_A, self.crops_B)
        )
        return (
            windows_of(pixels_A, crops_A, self.size_A, kinds.A, impl),
            windows_of(pixels_B, crops_B, self.size_B, kinds.B, impl),
        )


def windows_of(pixels: Tensor, crops: Tensor, size: tuple[int, int], kind: PixelType, impl: Impl) -> Tensor:
    """Cut windows of a size out of samples of a kind, scaled by its range: see `signed_windows`."""
    return signed_windows(pixels, crops, *size, kind.low, kind.high, impl=impl)


def _pixels(cuts: Sequence[Cut], pin: bool) -> Tensor:
    first = cuts[0].pixels
    dtype: torch.dtype = getattr(torch, first.dtype.name)
    pixels = torch.empty((len(cuts), *first.shape), dtype=dtype, pin_memory=pin)
    np.stack([cut.pixels for cut in cuts], out=pixels.numpy())
    return pixels


def _crops(cuts: Sequence[Cut], pin: bool) -> Tensor:
    return torch.tensor([(cut.top, cut.left, int(cut.mirrored)) for cut in cuts], pin_memory=pin)
