"""PSNR, SSIM and L1 of images against others, image by image; and what a colour lookup alone could reach."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cyclegan_fast.pixels import Pixels

Values = npt.NDArray[np.float64]

AT_ONCE = 1  # images


@dataclass(frozen=True)
class Similarity:
    """How alike images are, [N] each: PSNR in dB and L1 in [0, 1], both of 8-bit levels."""

    psnr_db: Values
    ssim: Values
    l1: Values

    def means(self) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in vars(self).items()}


def similarity(images: Tensor, truth: Tensor) -> Similarity:
    """Compare uint8 [N, 3, H, W] with as many others, on their device and in float64.

    SSIM is that of Wang et al. 2004 with their Gaussian window of 11 pixels, averaged over the whole picture, which is
    continued by reflection (scikit-image leaves out a border of 5 pixels). Identical images have 100 dB.
    """
    # In parts: the filters of SSIM keep fifteen float64 planes of each image.
    return concatenated(
        [_similarity(*part) for part in zip(torch.split(images, AT_ONCE), torch.split(truth, AT_ONCE), strict=True)]
    )


def _similarity(images: Tensor, truth: Tensor) -> Similarity:
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = images.double() / 255, truth.double() / 255
    error = (one - other).square().mean(dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(one, other, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)  # a pair only where the full image is asked for
    return Similarity(
        psnr_db=(-10 * torch.log10(error.clamp_min(1e-10))).cpu().numpy(),
        ssim=ssim.reshape(-1).cpu().numpy(),
        l1=(one - other).abs().mean(dim=(1, 2, 3)).cpu().numpy(),
    )


def concatenated(parts: list[Similarity]) -> Similarity:
    return Similarity(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("psnr_db", "ssim", "l1")))


class ColourLookup:
    """Maps each colour to the mean of what it should become: the best that a table of that size can do.

    An oracle: it is fitted with the truth itself. A table of 32 levels a channel, the usual size of a 3D lookup table,
    here without interpolation, cannot see where in the picture a pixel stands.
    """

    def __init__(self, levels: int = 32) -> None:
        self.levels = levels
        self.count = np.zeros(levels**3)
        self.total = np.zeros((3, levels**3))

    def add(self, images: Pixels, truth: Pixels) -> None:
        """Learn from [N, H, W, 3] and as many true images."""
        colour = self._bins(images)
        self.count += np.bincount(colour, minlength=self.levels**3)
        for channel in range(3):
            self.total[channel] += np.bincount(colour, truth[..., channel].ravel(), minlength=self.levels**3)

    def __call__(self, images: Pixels) -> Pixels:
        """[N, H, W, 3] through the table; of colours that were never seen, black."""
        mean = np.rint(self.total / np.maximum(self.count, 1)).astype(np.uint8)  # [3, levels^3]
        mapped: Pixels = np.ascontiguousarray(mean.T)[self._bins(images)].reshape(images.shape)
        return mapped

    def _bins(self, images: Pixels) -> npt.NDArray[np.int32]:
        level = images.reshape(-1, 3).astype(np.int32) * self.levels // 256
        bins: npt.NDArray[np.int32] = (level[:, 0] * self.levels + level[:, 1]) * self.levels + level[:, 2]
        return bins
