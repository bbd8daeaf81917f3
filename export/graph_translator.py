"""Translates images by a graph or an engine, whichever arrays it takes and gives; needs no PyTorch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.pixels import FloatImages
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.translator import NotFinite, SignedTranslator
from export.engines.file_frames import DEFAULT_FRAMES, FileFrames
from export.graphs.interface import sample_dtype
from export.pixel_ends import PixelEnds


class GraphTranslator:
    """Translates samples [N, H, W, C] of one type to those of another.

    `signed` translates values in [-1, 1] without rounding; it is None where the graph takes and gives samples.

    Args:
        run: computes the graph: float32 [N, C, H, W] in [-1, 1] -> the same, or with `takes_samples` samples as
            `export.graphs.pixel_io` has them -> the same.
        takes_samples: which of the two.
        ends: the types of the pixels.
        frames: what pages and slices of a file were in the training.
    """

    def __init__(
        self, run: Callable[[Any], Any], takes_samples: bool, ends: PixelEnds, frames: FileFrames = DEFAULT_FRAMES
    ) -> None:
        self.ends = ends
        self.frames = frames
        self._run = run
        self._through_signed = None if takes_samples else SignedTranslator(run, *ends)
        self.signed: Callable[[FloatImages], FloatImages] | None = (
            self._through_signed.signed if self._through_signed else None
        )

    @property
    def source(self) -> PixelType:
        """Describe the pixels that are translated."""
        return self.ends.source

    @property
    def target(self) -> PixelType:
        """Describe the pixels of the translations."""
        return self.ends.target

    def __call__(self, samples: SampleArray) -> SampleArray:
        """Translate samples of `source` to those of `target`. Raises NotFinite."""
        if self._through_signed:
            return self._through_signed(samples)
        translated = self._run(samples.astype(sample_dtype(self.source), copy=False))
        for index, image in enumerate(translated):
            if not np.isfinite(image).all():
                raise NotFinite(index)
        result: SampleArray = translated.astype(self.target.as_numpy, copy=False)
        return result

    def with_range(self, values: Sequence[float]) -> "GraphTranslator":
        """Return a translator of images whose range is another, a low and a high value; of none it is this one.

        That of 8-bit images is always the same. Raises UserError where the graph itself holds the range.
        """
        if not values or self.source.dtype == "uint8":
            return self
        low, high = values
        ends = self.ends._replace(source=replace(self.source, low=low, high=high))
        if self._through_signed is None and ends != self.ends:
            raise UserError(
                f"the range of {self.source} is in the exported file itself: leave --range out, or export it without "
                "--uint8-io"
            )
        return GraphTranslator(self._run, self._through_signed is None, ends, self.frames)
