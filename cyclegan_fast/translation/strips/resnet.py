"""Translates images that are too large for the memory by a ResNet, see passes.py.

Two convolutions are not stored but computed twice, once for their statistics and once for the layer behind them: the
stem and the last doubling, whose results are the largest and which cost little (1 % and 2 % of the operations of 9
blocks). Channels double where sides are halved, so that a row of any stored activation has as many numbers as any
other, and a row leaves its place in the file when it is read for the last time. That makes the peak what the first
halving stores, H/2 rows, which no later layer exceeds: 128 bytes a pixel at width 64 in float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cyclegan_fast.networks.resnet import GeneratorBlock, ResnetGenerator
from cyclegan_fast.translation.strips.passes import COPIES, StripPasses, StripTranslator
from cyclegan_fast.translation.strips.rows import (
    Rows,
    Statistics,
    convolved_rows,
    doubled_rows,
    new_statistics,
    normalised_rows,
    resized_rows,
    stored_rows,
)
from cyclegan_fast.translation.strips.scratch_file import StoredActivation


class TiledTranslator(StripTranslator):
    """Translates by a ResNet in bounded memory, see `StripTranslator`."""

    network: ResnetGenerator

    def __init__(self, network: ResnetGenerator, *arguments: Any, **options: Any) -> None:
        super().__init__(network, *arguments, **options)
        self.network = network

    @property
    def copies(self) -> int:
        """Return how many times a strip's rows in float32 are alive at once, at most."""
        # Repeated pixels have twice the numbers of what stands before and behind them.
        return COPIES if self.network.upsampling == "transposed" else 2 * COPIES

    def row_numbers(self, width: int) -> int:
        """Return how many numbers a row of any activation between two convolutions has: channels double downwards."""
        return width * self.network.stem.out_channels

    def rows_of_all_passes(self, height: int) -> int:
        """Return how many rows the passes over an image of that height make together."""
        full, half, quarter = 3, 2, 1 + 2 * len(self.network.blocks)
        return full * height + half * (height // 2) + quarter * (height // 4)

    def passes(self, image: Rows, height: int, strips: StripPasses) -> Iterator[Tensor]:
        """Yield what `ResnetGenerator.forward` gives for one image [1, C, H, W], strip by strip."""
        return _ResnetPasses(self.network, strips).translate(image, height)


@dataclass
class _ResnetPasses:
    """Makes a ResNet's passes over one image."""

    network: ResnetGenerator
    strips: StripPasses

    def translate(self, image: Rows, height: int) -> Iterator[Tensor]:
        """Yield what `ResnetGenerator.forward` gives for one image [1, C, H, W], strip by strip."""
        network, half, quarter = self.network, height // 2, height // 4

        def stem() -> Rows:
            return convolved_rows(image, height, network.stem.weight)

        x = normalised_rows(stem(), self._statistics(stem(), height, network.stem_norm))
        x = self._halve(x, height, 0)
        x = self._halve(x, half, 1)
        for block in network.blocks:
            x = self._residual_block(x, quarter, block)
        up, statistics = self._store(self._doubled(x, quarter, 0), half, network.up_norms[0])

        def last_doubling(rows: Rows) -> Rows:
            return self._doubled(normalised_rows(rows, statistics), half, 1)

        statistics_of_last = self._statistics(last_doubling(up.read), height, network.up_norms[1])
        x = normalised_rows(last_doubling(up.take), statistics_of_last)
        x = convolved_rows(x, height, network.head.weight, network.head.bias)
        yield from self.strips.image(x, height)

    def _doubled(self, rows: Rows, height: int, level: int) -> Rows:
        weight = _weight(self.network.up[level])
        if self.network.upsampling == "resize":
            return convolved_rows(resized_rows(rows, height), 2 * height, weight)
        return doubled_rows(rows, height, weight)

    def _halve(self, rows: Rows, height: int, level: int) -> Rows:
        """Stream a stride-2 convolution with its norm and ReLU."""
        convolution = convolved_rows(rows, height, _weight(self.network.down[level]), stride=2, edges="constant")
        norm = self.network.down_norms[level]
        stored, statistics = self._store(convolution, height // 2, norm, self.strips.strip_rows // 2)
        return normalised_rows(stored.take, statistics)

    def _residual_block(self, rows: Rows, height: int, block: nn.Module) -> Rows:
        """Stream a residual block; what goes around it is kept while its first convolution reads it."""
        assert isinstance(block, GeneratorBlock)  # torch types a ModuleList by nn.Module
        around = StoredActivation(self.strips.scratch)
        convolution = convolved_rows(stored_rows(rows, around), height, block.conv1.weight)
        first, statistics = self._store(convolution, height, block.norm1)
        middle = normalised_rows(first.take, statistics)
        second, statistics = self._store(convolved_rows(middle, height, block.conv2.weight), height, block.norm2)
        return normalised_rows(second.take, statistics, residual=around.take)

    def _store(
        self, rows: Rows, height: int, norm: nn.Module, strip_rows: int | None = None
    ) -> tuple[StoredActivation, Statistics]:
        statistics = new_statistics(norm)
        return self.strips.store(rows, height, statistics, strip_rows), statistics

    def _statistics(self, rows: Rows, height: int, norm: nn.Module) -> Statistics:
        statistics = new_statistics(norm)
        self.strips.measure(rows, height, statistics)
        return statistics


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight
