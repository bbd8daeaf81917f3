"""PSNR, SSIM and L1 of images against others, image by image; and what a colour lookup alone could reach."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cyclegan_fast.conventions import FORMULAS
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.evaluation.view import Quiet, View, label
from cyclegan_fast.images.pixels import Pixels, as_pixels, as_tensor

LOOKUP_BYTES = 2 << 30


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


class Comparison(Quiet):
    """PSNR, SSIM and L1 of images with others, by direction and kind, one image after another."""

    TEXTS: ClassVar[dict[str, str]]
    """what people read of each kind"""

    def __init__(self) -> None:
        self.parts: dict[str, list[Similarity]] = {}

    def compare(self, key: str, images: Tensor, others: Tensor) -> None:
        self.parts.setdefault(key, []).append(similarity(images, others))

    def of(self, key: str) -> Similarity | None:
        return concatenated(self.parts[key]) if key in self.parts else None

    def scores(self) -> list[Score]:
        return [
            Score(key, label(key, self.TEXTS[key.partition(".")[2]]), concatenated(parts).means())
            for key, parts in self.parts.items()
        ]


class Reconstruction(Comparison):
    sees_reconstructions = True
    TEXTS: ClassVar = {"reconstruction": "reconstructed, {reconstruction} against {source}"}

    def add(self, view: View) -> None:
        if view.reconstruction is not None:
            self.compare(f"{view.direction}.reconstruction", view.reconstruction, view.source)


class Truth(Comparison):
    TEXTS: ClassVar = {
        "truth": "translated, {translation} against the truth",
        "untranslated": "untranslated, {source} against the truth",
    }

    def add(self, view: View) -> None:
        if view.truth is not None:
            self.compare(f"{view.direction}.truth", view.translation, view.truth)
            self.compare(f"{view.direction}.untranslated", view.source, view.truth)


class Lookup(Quiet):
    """What a colour lookup reaches that was fitted with the truth: a translation must beat it to have seen more."""

    def __init__(self) -> None:
        self.pairs: dict[str, list[tuple[Pixels, Pixels]]] = {}
        self.lookups: dict[str, ColourLookup] = {}
        self.nbytes: dict[str, int] = {}
        self.cut: set[str] = set()

    def add(self, view: View) -> None:
        if view.truth is None:
            return
        way, used = view.direction, self.nbytes.get(view.direction, 0)
        if used > LOOKUP_BYTES:
            self.cut.add(way)
            return
        source, truth = as_pixels(view.source), as_pixels(view.truth)
        self.nbytes[way] = used + source.nbytes + truth.nbytes
        self.pairs.setdefault(way, []).append((source, truth))
        self.lookups.setdefault(way, ColourLookup()).add(source, truth)

    def scores(self) -> list[Score]:
        found = []
        for way, pairs in self.pairs.items():
            parts = [similarity(as_tensor(self.lookups[way](source)), as_tensor(truth)) for source, truth in pairs]
            text = f"best colour lookup of {FORMULAS[way]['source']} (32 levels), fitted with the truth"
            found.append(Score(f"{way}.lookup", text, concatenated(parts).means()))
        return found

    def notes(self) -> list[str]:
        return [
            f"{way}: the colour lookup is fitted to the first {LOOKUP_BYTES >> 30} GiB of images" for way in self.cut
        ]
