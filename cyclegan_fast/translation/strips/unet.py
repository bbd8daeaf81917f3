"""Translates images that are too large for the memory by a U-Net, exactly, as resnet.py does by a ResNet.

Layer by layer, the results of a convolution go to the disk while their statistics are gathered. On the way down they
stay there, because a skip connection brings them to the way up, whose doublings read them for the last time. The first
halving, whose result is the largest, is computed twice and not stored: for the second one, and for the last doubling.

A slot of the scratch file holds a row of any activation: channels double where widths are halved, and deeper down,
where there are 8 times as many at most, rows are shorter. On the way down the file gets H/4 + H/8 + ... rows. On the
way up a doubling writes a row for each that it has read for the last time, of the skip connection and of the layer
below it. So the file never holds more than H/2 rows: 64 bytes a pixel at width 64 in float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.networks.layers import NormalisedConv2d, NormalisedConvTranspose2d
from cyclegan_fast.networks.norms import SLOPE
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.translation.strips.passes import COPIES, StripPasses, StripTranslator
from cyclegan_fast.translation.strips.rows import (
    Rows,
    Statistics,
    Window,
    convolved_rows,
    new_statistics,
    normalised_rows,
)
from cyclegan_fast.translation.strips.scratch_file import StoredActivation


class TiledUnetTranslator(StripTranslator):
    """Translates by a U-Net in bounded memory, see `StripTranslator`."""

    network: UnetGenerator

    def __init__(self, network: UnetGenerator, *arguments: Any, **options: Any) -> None:
        super().__init__(network, *arguments, **options)
        self.network = network

    @property
    def copies(self) -> int:
        """Return how many times a strip's rows in float32 are alive at once, at most."""
        return COPIES

    def row_numbers(self, width: int) -> int:
        """Return how many numbers a row of any stored activation has, at most, of an image of that width."""
        return width // 2 * self.network.width

    def rows_of_all_passes(self, height: int) -> int:
        """Return how many rows the passes over an image of that height make together."""
        levels = range(1, self.network.halvings)
        return sum(height >> level for level in levels) + sum(height >> level for level in levels[1:]) + height

    def passes(self, image: Rows, height: int, strips: StripPasses) -> Iterator[Tensor]:
        """Yield what `UnetGenerator.forward` gives for one image [1, C, H, W], strip by strip."""
        return _UnetPasses(self.network, strips).translate(image, height)


@dataclass
class _UnetPasses:
    """Makes a U-Net's passes over one image."""

    network: UnetGenerator
    strips: StripPasses

    def translate(self, image: Rows, height: int) -> Iterator[Tensor]:
        """Yield the translation of an image of `height` rows, strip by strip."""
        first, *middle, innermost = self.network.down
        # `height >> level` rows are those of level 1 behind the first halving, of level 2 behind the second one, ...
        x = _activated(_halved(image, height, first), SLOPE)
        skips: list[tuple[StoredActivation, Statistics]] = []
        for level, (convolution, norm) in enumerate(zip(middle, self.network.down_norms, strict=True), 2):
            halved = _halved(x, height >> (level - 1), convolution)
            stored, statistics = self._store(halved, height >> level, norm, self.strips.strip_rows // 2)
            skips.append((stored, statistics))
            x = normalised_rows(stored.read, statistics, slope=SLOPE)
        halvings = self.network.halvings
        x = _activated(_halved(x, height >> (halvings - 1), innermost), 0.0)
        *doublings, last = self.network.up
        levels = range(halvings, 1, -1)
        for level, convolution, norm in zip(levels, doublings, self.network.up_norms, strict=True):
            stored, statistics = self._store(_doubled(x, height >> level, convolution), height >> (level - 1), norm)
            # The upper end of a skip connection has a ReLU, which makes the same of what a leaky one has made.
            if skips:
                skip, its_statistics = skips.pop()
                above = normalised_rows(skip.take, its_statistics)
            else:
                above = _activated(_halved(image, height, first), 0.0)
            x = _joined(above, normalised_rows(stored.take, statistics))
        yield from self.strips.image(_doubled(x, height >> 1, last), height)

    def _store(
        self, rows: Rows, height: int, norm: nn.Module, strip_rows: int | None = None
    ) -> tuple[StoredActivation, Statistics]:
        statistics = new_statistics(norm)
        return self.strips.store(rows, height, statistics, strip_rows), statistics


def _halved(rows: Rows, height: int, convolution: nn.Module) -> Rows:
    """Stream a convolution that halves both sides; a bias in front of an instance norm is never added."""
    assert isinstance(convolution, nn.Conv2d)
    return convolved_rows(rows, height, convolution.weight, _bias(convolution), stride=2, edges="constant")


def _doubled(rows: Rows, height: int, convolution: nn.Module) -> Rows:
    """Stream a transposed 4x4 convolution of an activation of `height` rows, which doubles both sides.

    Its row 2i is made from rows i - 1 and i, its row 2i + 1 from rows i and i + 1.
    """
    assert isinstance(convolution, nn.ConvTranspose2d)
    weight, bias = convolution.weight, _bias(convolution)
    window = Window(rows, height, overlap=3, pad=0, edges="constant")  # 3 where a strip ends on an odd row

    def double(first: int, last: int) -> Tensor:
        above, below = first // 2 - 1, (last - 1) // 2 + 2
        # The first and the last row lack their share of what lies above and below.
        strip = F.conv_transpose2d(window(above, below), weight, bias, stride=2, padding=1)
        return strip[:, :, first - 2 * above : last - 2 * above]

    return double


def _bias(convolution: nn.Conv2d | nn.ConvTranspose2d) -> Tensor | None:
    return None if isinstance(convolution, NormalisedConv2d | NormalisedConvTranspose2d) else convolution.bias


def _activated(rows: Rows, slope: float) -> Rows:
    """Stream a leaky ReLU, whose slope below zero may be 0."""
    return lambda first, last: F.leaky_relu_(rows(first, last), slope)


def _joined(above: Rows, below: Rows) -> Rows:
    """Stream the channels of two activations, one behind the other."""

    def join(first: int, last: int) -> Tensor:
        return torch.cat((above(first, last), below(first, last)), 1)

    return join
