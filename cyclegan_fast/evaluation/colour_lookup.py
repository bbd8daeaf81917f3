"""Measures what a table of colours alone could reach: the metric `lookup`, which a translation must beat."""

import numpy as np
import numpy.typing as npt

from cyclegan_fast.conventions import FORMULAS, Direction
from cyclegan_fast.evaluation.base_metric import Metric, TranslatedBatch
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.evaluation.similarity import SIMILARITY_VALUES, concatenated, similarity
from cyclegan_fast.images.pixel_type import BOTH_RGB, PixelType, PixelTypes
from cyclegan_fast.images.pixels import Pixels, as_pixels, as_tensor

LOOKUP_BYTES = 2 << 30  # images of a direction that are kept until the table is fitted


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
        """Map the colours of [N, H, W, 3]; a colour that was never seen becomes black."""
        mean = np.rint(self.total / np.maximum(self.count, 1)).astype(np.uint8)  # [3, levels^3]
        mapped: Pixels = np.ascontiguousarray(mean.T)[self._bins(images)].reshape(images.shape)
        return mapped

    def _bins(self, images: Pixels) -> npt.NDArray[np.int32]:
        level = images.reshape(-1, 3).astype(np.int32) * self.levels // 256
        bins: npt.NDArray[np.int32] = (level[:, 0] * self.levels + level[:, 1]) * self.levels + level[:, 2]
        return bins


class Lookup(Metric):
    """Compares the result of a colour lookup, which is fitted with the truth, with that truth.

    A translation that is no better has seen nothing but colours.
    """

    def __init__(self) -> None:
        self.pairs: dict[Direction, list[tuple[Pixels, Pixels]]] = {}
        self.lookups: dict[Direction, ColourLookup] = {}
        self.nbytes: dict[Direction, int] = {}
        self.cut: set[Direction] = set()
        self.left_out: dict[Direction, PixelType] = {}

    def value_names(self, direction: Direction, *, truth_is_known: bool, kinds: PixelTypes) -> list[str]:
        is_measured = truth_is_known and kinds == BOTH_RGB
        return [f"lookup.{value}" for value in SIMILARITY_VALUES] if is_measured else []

    def add(self, batch: TranslatedBatch) -> None:
        if batch.truth is None:
            return
        other = next((kind for kind in (batch.source_kind, batch.target_kind) if not kind.is_rgb), None)
        if other is not None:
            self.left_out[batch.direction] = other
            return
        way, used = batch.direction, self.nbytes.get(batch.direction, 0)
        if used > LOOKUP_BYTES:
            self.cut.add(way)
            return
        source, truth = as_pixels(batch.source), as_pixels(batch.truth)
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
        if self.left_out:
            kind = next(iter(self.left_out.values()))
            return [f"the colour lookup is left out: it is a table of 8-bit RGB, and these are images of {kind}"]
        return [
            f"{way}: the colour lookup is fitted to the first {LOOKUP_BYTES >> 30} GiB of images" for way in self.cut
        ]
