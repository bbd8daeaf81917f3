"""Compares images one by one by PSNR, SSIM and L1: the metrics `reconstruction` and `truth`.

colour_lookup.py has the metric `lookup`, which is measured by the same three values.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cyclegan_fast.conventions import Direction
from cyclegan_fast.evaluation.base_metric import Metric, TranslatedBatch, with_formulas
from cyclegan_fast.evaluation.score_table import Score

ValuePerImage = npt.NDArray[np.float64]

SIMILARITY_VALUES = ("psnr_db", "ssim", "l1")
"""the fields of `Similarity`, which are keys of score_table.METRICS"""
IMAGES_AT_ONCE = 1


@dataclass(frozen=True)
class Similarity:
    """Holds how alike images are, one number [N] for each: PSNR in dB and L1 in [0, 1], both of 8-bit levels."""

    psnr_db: ValuePerImage
    ssim: ValuePerImage
    l1: ValuePerImage

    def means(self) -> dict[str, float]:
        """Return the mean of each value over the images."""
        return {name: float(values.mean()) for name, values in vars(self).items()}


def similarity(images: Tensor, truth: Tensor) -> Similarity:
    """Compare uint8 [N, 3, H, W] with as many others, on their device and in float64.

    SSIM is that of Wang et al. 2004 with their Gaussian window of 11 pixels, averaged over the whole picture, which is
    continued by reflection (scikit-image leaves out a border of 5 pixels). Identical images have 100 dB.
    """
    # In parts: the filters of SSIM keep fifteen float64 planes of each image.
    parts = zip(torch.split(images, IMAGES_AT_ONCE), torch.split(truth, IMAGES_AT_ONCE), strict=True)
    return concatenated([_similarity(*part) for part in parts])


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
    """Join the similarities of consecutive batches."""
    return Similarity(*(np.concatenate([getattr(part, name) for part in parts]) for name in SIMILARITY_VALUES))


class _ComparedImages(Metric):
    """Compares images with others by PSNR, SSIM and L1, for each direction and each kind of comparison."""

    LABELS: ClassVar[dict[str, str]]
    """what people read of each kind, with formulas in braces"""

    def __init__(self) -> None:
        self.parts: dict[str, list[Similarity]] = {}

    def _compare(self, direction: Direction, kind: str, images: Tensor, others: Tensor) -> None:
        self.parts.setdefault(f"{direction}.{kind}", []).append(similarity(images, others))

    def of_every_image(self, direction: Direction, kind: str) -> Similarity | None:
        """Return the similarities of a direction's images, in their order; None where nothing was compared."""
        parts = self.parts.get(f"{direction}.{kind}")
        return concatenated(parts) if parts else None

    def scores(self) -> list[Score]:
        return [
            Score(key, with_formulas(key, self.LABELS[key.partition(".")[2]]), concatenated(parts).means())
            for key, parts in self.parts.items()
        ]

    def _all_values(self) -> list[str]:
        return [f"{kind}.{value}" for kind in self.LABELS for value in SIMILARITY_VALUES]


class Reconstruction(_ComparedImages):
    """Compares images that went through both generators with themselves: G_B(G_A(A)) with A, G_A(G_B(B)) with B."""

    sees_reconstructions = True
    LABELS: ClassVar = {"reconstruction": "reconstructed, {reconstruction} against {source}"}

    def value_names(self, direction: Direction, *, truth_is_known: bool) -> list[str]:
        return self._all_values()

    def add(self, batch: TranslatedBatch) -> None:
        if batch.reconstruction is not None:
            self._compare(batch.direction, "reconstruction", batch.reconstruction, batch.source)


class Truth(_ComparedImages):
    """Compares translations, and beside them the untranslated images, with true translations where they are known."""

    LABELS: ClassVar = {
        "truth": "translated, {translation} against the truth",
        "untranslated": "untranslated, {source} against the truth",
    }

    def value_names(self, direction: Direction, *, truth_is_known: bool) -> list[str]:
        return self._all_values() if truth_is_known else []

    def add(self, batch: TranslatedBatch) -> None:
        if batch.truth is not None:
            self._compare(batch.direction, "truth", batch.translation, batch.truth)
            self._compare(batch.direction, "untranslated", batch.source, batch.truth)
