"""Translates images that are too large for the memory, exactly: layer by layer, in strips of rows.

A norm's statistics are those of the whole image, so that tiles translated one by one would differ from it and from each
other, and show seams. Here each layer passes over the whole image before the next begins: the results of a
convolution go to the disk while their statistics are gathered, and the next pass reads, normalises and convolves them.
Without a norm the passes are the same, and the statistics change nothing.

What stays in memory is the decoded image and its translation (3 bytes a pixel each, of 8-bit RGB), and the working
buffers of one strip, whose number of rows follows from a budget. Pillow takes more than that while it decodes and
encodes them, but TIFF is decoded strip by strip.

resnet.py and unet.py have the passes of the two generators.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import to_pixels
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.shortage import is_out_of_memory
from cyclegan_fast.translation.strips.repeated_strips import ROWS_THAT_REPEAT
from cyclegan_fast.translation.strips.rows import (
    Rows,
    RowSource,
    Statistics,
    image_rows,
    measured_rows,
    stored_rows,
)
from cyclegan_fast.translation.strips.scratch_file import ScratchFile, StoredActivation, check_free_space
from cyclegan_fast.translation.translator import BatchDoesNotFit, NotFinite

BUDGET_BYTES = 128 * 2**20
# A strip's rows in float32, so many times, are alive at once in the worst pass. Measured at width 64 and 10 rows, where
# the 6 rows around them weigh most: 4.2 as tensors, the rest inside the convolutions. The C library's heap keeps more:
# at a budget of 64 MiB the process grew by 74 to 156 MiB, and by 52 and 68 where the heap gave everything back.
COPIES = 6


class StripTranslator(ABC):
    """Translates in bounded memory, as `TorchTranslator` does but for the order in which numbers are added up.

    Args:
        network: the generator, which is taken to `device` and `dtype`.
        scratch: folder for the file that activations are kept in.
        budget_bytes: the memory that the buffers of a strip may take. A strip has at least one row, and a convolution
            the rows around it, whatever the budget.
        source: the type of the pixels that it takes.
        target: the type of those that it gives.
    """

    network: nn.Module

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        scratch: Path,
        budget_bytes: int = BUDGET_BYTES,
        source: PixelType = RGB,
        target: PixelType = RGB,
    ) -> None:
        self.network = network.to(device, dtype).eval()
        self.device = device
        self.dtype = dtype
        self.scratch = scratch
        self.budget_bytes = budget_bytes
        self.source = source
        self.target = target
        self._announced = ""

    @property
    @abstractmethod
    def copies(self) -> int:
        """Return how many times a strip's rows in float32 are alive at once, at most."""

    @abstractmethod
    def row_numbers(self, width: int) -> int:
        """Return how many numbers a row of any stored activation has, at most, of an image of that width."""

    @abstractmethod
    def rows_of_all_passes(self, height: int) -> int:
        """Return how many rows the passes over an image of that height make together."""

    @abstractmethod
    def passes(self, image: Rows, height: int, strips: "StripPasses") -> Iterator[Tensor]:
        """Yield what the network gives for one image [1, C, H, W], strip by strip."""

    def __call__(self, samples: SampleArray) -> SampleArray:
        """Translate samples [N, H, W, C]; raises NotFinite, and BatchDoesNotFit where disk or memory do not suffice."""
        count, height, width, _ = samples.shape
        needed_bytes = self.scratch_bytes(height, width)
        self._announce(check_free_space(self.scratch, needed_bytes, f"translating {width}x{height} in strips"))
        with self.fitting(height, width):
            translated = np.empty((count, height, width, self.target.channels), self.target.as_numpy)
            for index, image in enumerate(samples):
                first = 0
                with closing(self.strips(image, index)) as strips:
                    for strip in strips:
                        last = first + strip.size(2)
                        translated[index, first:last] = to_pixels(strip, self.target)[0]
                        first = last
        return translated

    @contextmanager
    def fitting(self, height: int, width: int) -> Iterator[None]:
        """Turn the error of a memory that is too small for a strip of such an image into BatchDoesNotFit."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BatchDoesNotFit(
                f"{self.strip_rows(width)} rows of {width}x{height} at once do not fit the memory of {self.device}: "
                "give a smaller --size, or --device cpu"
            ) from error

    @torch.inference_mode()
    def strips(self, image: RowSource, index: int = 0, scratch: ScratchFile | None = None) -> Generator[Tensor]:
        """Yield the translation of samples [H, W, C] from top to bottom: [1, C, rows, W] in [-1, 1], in `dtype`.

        Args:
            image: an array, or what gives its rows when they are needed.
            index: its place in the batch.
            scratch: the file for rows of `row_bytes`, which is closed at the end; by default one of its own.

        Raises NotFinite(index).
        """
        height, width, _ = image.shape
        total = self.rows_of_all_passes(height)
        with (
            scratch or ScratchFile(self.scratch, self.row_bytes(width)) as opened,
            progress_bar(total=total, desc=f"{width}x{height}", unit=" rows", leave=False) as progress,
        ):
            rows = image_rows(image, self.device, self.dtype, self.source)
            yield from self.passes(rows, height, StripPasses(self.strip_rows(width), progress, opened, index))

    def scratch_bytes(self, height: int, width: int) -> int:
        """Return the most that the scratch file of one image ever holds."""
        return height // 2 * self.row_bytes(width)

    def row_bytes(self, width: int) -> int:
        """Return the bytes of a row of a scratch file, for an image of that width."""
        return self.row_numbers(width) * self.dtype.itemsize

    def strip_rows(self, width: int) -> int:
        """Return how many rows a strip of an image of that width has by the budget."""
        rows = max(1, self.budget_bytes // self.strip_row_bytes(width))
        # Strips of a few rows stay as large as they can be.
        return rows - rows % ROWS_THAT_REPEAT if rows >= 4 * ROWS_THAT_REPEAT else rows

    def strip_row_bytes(self, width: int) -> int:
        """Return the most bytes of memory that a row of a strip takes, of an image of that width."""
        return self.copies * self.row_numbers(width) * torch.float32.itemsize

    def _announce(self, sentence: str) -> None:
        if sentence != self._announced:  # once for images of one size
            tqdm.write(f"note: {sentence}")
        self._announced = sentence


@dataclass
class StripPasses:
    """Makes passes over image number `index` of its batch, in strips of `strip_rows` rows."""

    strip_rows: int
    progress: "tqdm[Any]"
    scratch: ScratchFile
    index: int

    def store(self, rows: Rows, height: int, statistics: Statistics, strip_rows: int | None = None) -> StoredActivation:
        """Make one pass, whose rows are kept, and counted in `statistics`."""
        stored = StoredActivation(self.scratch)
        self.measure(stored_rows(rows, stored), height, statistics, strip_rows)
        return stored

    def measure(self, rows: Rows, height: int, statistics: Statistics, strip_rows: int | None = None) -> None:
        """Make one pass, in which everything from the last stored activation on is computed, and let go."""
        if self.scratch.was_passed(statistics):
            self.progress.update(height)
            return
        gathering = measured_rows(rows, statistics)
        for first, last in self.strips(height, strip_rows):
            gathering(first, last)
        if not statistics.is_finite():  # the translation would not be finite either, hours from now
            raise NotFinite(self.index)
        self.scratch.passed(statistics)

    def image(self, rows: Rows, height: int) -> Iterator[Tensor]:
        """Make the last pass, and yield its strips under tanh."""
        for first, last in self.strips(height):
            strip = rows(first, last).tanh_()
            if not bool(strip.isfinite().all()):
                raise NotFinite(self.index)
            yield strip

    def strips(self, height: int, strip_rows: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield the first row of each strip and that of the next."""
        step = max(1, self.strip_rows if strip_rows is None else strip_rows)
        for first in range(0, height, step):
            last = min(first + step, height)
            yield first, last
            self.progress.update(last - first)
