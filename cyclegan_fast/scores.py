"""PSNR, SSIM and L1 of images against others, image by image; and what a colour lookup alone could reach."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cyclegan_fast.pixels import Pixels

Values = npt.NDArray[np.float64]


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


def as_tensor(pixels: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [N, H, W, 3] -> [N, 3, H, W] on a device."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)


def best_colour_lookup(images: Pixels, truth: Pixels, levels: int = 32) -> Pixels:
    """Map each colour of `images` to the mean of what it should become: the best that a table of that size can do.

    An oracle: it is fitted with the truth itself. A table of 32 levels a channel, the usual size of a 3D lookup table,
    here without interpolation, cannot see where in the picture a pixel stands.
    """
    bins = images.astype(np.int64) * levels // 256  # [N, H, W, 3]
    colour = ((bins[..., 0] * levels + bins[..., 1]) * levels + bins[..., 2]).ravel()
    count = np.bincount(colour, minlength=levels**3)
    mapped = np.empty(images.shape, dtype=np.uint8)
    for channel in range(3):
        total = np.bincount(colour, truth[..., channel].ravel().astype(np.float64), minlength=levels**3)
        mean: npt.NDArray[np.float64] = total[colour] / count[colour]
        mapped[..., channel] = np.rint(mean).reshape(images.shape[:3])
    return mapped
