"""Scores of translated images: PSNR, SSIM and L1, and what a colour lookup alone could reach."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cyclegan_fast.pixels import Pixels


@dataclass(frozen=True)
class Score:
    """Means over images; PSNR in dB and L1 in [0, 1], both of 8-bit levels."""

    label: str
    psnr_db: float
    ssim: float
    l1: float


def score(label: str, images: Pixels, truth: Pixels) -> Score:
    """Compare [N, H, W, 3] uint8 with as many true images; PSNR is computed per image and then averaged."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = _unit(images), _unit(truth)
    error = (one - other).square().mean(dim=(1, 2, 3))
    similarity = structural_similarity_index_measure(one, other, data_range=1.0)
    assert isinstance(similarity, Tensor)  # a pair only where the full image is asked for
    return Score(
        label=label,
        psnr_db=float((-10 * torch.log10(error.clamp_min(1e-10))).mean()),
        ssim=float(similarity),
        l1=float((one - other).abs().mean()),
    )


def _unit(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255


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


def table(scores: list[Score]) -> str:
    """The scores as aligned text, a row each."""
    width = max(len(row.label) for row in scores)
    lines = [f"{'':{width}}  PSNR (dB)   SSIM     L1"]
    lines += [f"{row.label:{width}}  {row.psnr_db:9.2f}  {row.ssim:5.3f}  {row.l1:5.3f}" for row in scores]
    return "\n".join(lines)
