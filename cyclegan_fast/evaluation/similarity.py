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
from cyclegan_fast.images.pixel_type import RGB, PixelType, PixelTypes

ValuePerImage = npt.NDArray[np.float64]

SIMILARITY_VALUES = ("psnr_db", "ssim", "l1")
"""the fields of `Similarity` that every image has, which are keys of score_table.SCORE_COLUMNS"""
IMAGES_AT_ONCE = 1


@dataclass(frozen=True)
class Similarity:
    """Holds how alike images are, one number [N] for each: PSNR in dB and L1, both of the range of their pixels.

    mae: the mean absolute error in the images' own units; None for 8-bit RGB, which has 255 times its L1.
    """

    psnr_db: ValuePerImage
    ssim: ValuePerImage
    l1: ValuePerImage
    mae: ValuePerImage | None = None

    def means(self) -> dict[str, float]:
        """Return the mean of each value over the images."""
        return {name: float(values.mean()) for name, values in vars(self).items() if values is not None}


def similarity_values(kind: PixelType) -> tuple[str, ...]:
    """Return the names of the values that compare images of a type."""
    return SIMILARITY_VALUES if kind.is_rgb else (*SIMILARITY_VALUES, "mae")


def similarity(images: Tensor, truth: Tensor, kind: PixelType = RGB) -> Similarity:
    """Compare samples [N, C, H, W] of one type with as many others, on their device and in float64.

    The range of the type is the full scale of PSNR and L1, and what SSIM sees as 0 to 1; values beyond it count as they
    are. SSIM is that of Wang et al. 2004 with their Gaussian window of 11 pixels, averaged over the whole picture,
    which is continued by reflection (scikit-image leaves out a border of 5 pixels). Identical images have 100 dB.

    Values that are not finite in one of two images are left out of all means; the windows of SSIM that reach them see
    them alike in both. Two images that have no value in common have a similarity of NaN.
    """
    # In parts: the filters of SSIM keep fifteen float64 planes of each image.
    parts = zip(torch.split(images, IMAGES_AT_ONCE), torch.split(truth, IMAGES_AT_ONCE), strict=True)
    return concatenated([_similarity(*part, kind) for part in parts])


def _similarity(images: Tensor, truth: Tensor, kind: PixelType) -> Similarity:
    from torchmetrics.functional.image import structural_similarity_index_measure

    span = kind.high - kind.low
    one, other = ((samples.double() - kind.low) / span for samples in (images, truth))
    known = _known_in_both(one, other) if kind.dtype == "float32" else None
    if known is not None:
        one, other = one.where(known, 0.0), other.where(known, 0.0)
    ssim, ssim_map = structural_similarity_index_measure(
        one, other, data_range=1.0, reduction="none", return_full_image=True
    )
    if known is not None:
        ssim = _mean_of_known(ssim_map, known)
    l1 = _mean_of_known((one - other).abs(), known)
    error = _mean_of_known((one - other).square(), known)
    return Similarity(
        psnr_db=(-10 * torch.log10(error.clamp_min(1e-10))).cpu().numpy(),
        ssim=ssim.reshape(-1).cpu().numpy(),
        l1=l1.cpu().numpy(),
        mae=None if kind.is_rgb else (l1 * span).cpu().numpy(),
    )


def _known_in_both(one: Tensor, other: Tensor) -> Tensor | None:
    """Return which values [N, C, H, W] are finite in both; None where all are."""
    known = one.isfinite() & other.isfinite()
    return None if bool(known.all()) else known


def _mean_of_known(values: Tensor, known: Tensor | None) -> Tensor:
    """Return the mean [N] of the known values of each image, or of all; NaN where none is known."""
    if known is None:
        return values.mean(dim=(1, 2, 3))
    return values.where(known, 0.0).sum(dim=(1, 2, 3)) / known.sum(dim=(1, 2, 3))


def concatenated(parts: list[Similarity]) -> Similarity:
    """Join the similarities of consecutive batches."""
    names = [name for name, values in vars(parts[0]).items() if values is not None]
    return Similarity(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


class _ComparedImages(Metric):
    """Compares images with others by PSNR, SSIM and L1, for each direction and each kind of comparison."""

    LABELS: ClassVar[dict[str, str]]
    """what people read of each kind, with formulas in braces"""

    def __init__(self) -> None:
        self.parts: dict[str, list[Similarity]] = {}

    def _compare(self, direction: Direction, key: str, images: Tensor, others: Tensor, kind: PixelType) -> None:
        self.parts.setdefault(f"{direction}.{key}", []).append(similarity(images, others, kind))

    def of_every_image(self, direction: Direction, key: str) -> Similarity | None:
        """Return the similarities of a direction's images, in their order; None where nothing was compared."""
        parts = self.parts.get(f"{direction}.{key}")
        return concatenated(parts) if parts else None

    def scores(self) -> list[Score]:
        return [
            Score(key, with_formulas(key, self.LABELS[key.partition(".")[2]]), concatenated(parts).means())
            for key, parts in self.parts.items()
        ]


class Reconstruction(_ComparedImages):
    """Compares images that went through both generators with themselves: G_B(G_A(A)) with A, G_A(G_B(B)) with B."""

    sees_reconstructions = True
    LABELS: ClassVar = {"reconstruction": "reconstructed, {reconstruction} against {source}"}

    def value_names(self, direction: Direction, *, truth_is_known: bool, kinds: PixelTypes) -> list[str]:
        source, _ = kinds.of_direction(direction)
        return [f"reconstruction.{value}" for value in similarity_values(source)]

    def add(self, batch: TranslatedBatch) -> None:
        if batch.reconstruction is not None:
            kind = batch.source_kind
            self._compare(batch.direction, "reconstruction", batch.reconstruction, batch.source, kind)


class Truth(_ComparedImages):
    """Compares translations, and beside them the untranslated images, with true translations where they are known.

    Images that were not translated are left out where the two domains have pixels of different types.
    """

    LABELS: ClassVar = {
        "truth": "translated, {translation} against the truth",
        "untranslated": "untranslated, {source} against the truth",
    }

    def value_names(self, direction: Direction, *, truth_is_known: bool, kinds: PixelTypes) -> list[str]:
        if not truth_is_known:
            return []
        source, target = kinds.of_direction(direction)
        keys = ["truth", "untranslated"] if source == target else ["truth"]
        return [f"{key}.{value}" for key in keys for value in similarity_values(target)]

    def add(self, batch: TranslatedBatch) -> None:
        if batch.truth is not None:
            self._compare(batch.direction, "truth", batch.translation, batch.truth, batch.target_kind)
            if batch.source_kind == batch.target_kind:
                self._compare(batch.direction, "untranslated", batch.source, batch.truth, batch.target_kind)
