"""Translates images by a graph or an engine, whichever arrays it takes and gives; needs no PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.pixels import FloatImages
from cyclegan_fast.translation.translator import NotFinite, SignedTranslator
from export.graphs.interface import sample_dtype
from export.pixel_ends import PixelEnds


class GraphTranslator:
    """Translates samples [N, H, W, C] of `source` to those of `target`.

    `signed` translates values in [-1, 1] without rounding; it is None where the graph takes and gives samples.

    Args:
        run: computes the graph: float32 [N, C, H, W] in [-1, 1] -> the same, or with `takes_samples` samples as
            `export.graphs.pixel_io` has them -> the same.
        takes_samples: which of the two.
        ends: the types of the pixels.
    """

    def __init__(self, run: Callable[[Any], Any], takes_samples: bool, ends: PixelEnds) -> None:
        self.source, self.target = ends
        self._run = run
        self._through_signed = None if takes_samples else SignedTranslator(run, *ends)
        self.signed: Callable[[FloatImages], FloatImages] | None = (
            self._through_signed.signed if self._through_signed else None
        )

    def __call__(self, samples: SampleArray) -> SampleArray:
        if self._through_signed:
            return self._through_signed(samples)
        translated = self._run(samples.astype(sample_dtype(self.source), copy=False))
        for index, image in enumerate(translated):
            if not np.isfinite(image).all():
                raise NotFinite(index)
        result: SampleArray = translated.astype(self.target.as_numpy, copy=False)
        return result
