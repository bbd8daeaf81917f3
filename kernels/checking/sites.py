"""Lists the sites of the fused norm, which are its places in CycleGAN's networks, and launches any one alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dispatch import Activation
from ..norm.backward import NormGradients, norm_backward
from ..norm.forward import norm_forward


@dataclass(frozen=True)
class NormSite:
    """Describes one norm between two convolutions: a site."""

    name: str
    channels: int
    side: int
    activation: Activation
    pad: int = 0
    residual: bool = False
    feeds_block: bool = False
    """whether y is a block's input, whose gradient comes in two parts"""
    remade: bool = False
    """whether backward writes the result once more, as a residual block does with its middle activation"""
    times: int = 1
    thin_convolution: str = ""
    """the operator of `thin_convolution` that stands in front of the norm, or behind it; empty for none"""

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        return batch, self.channels, self.side, self.side

    def operands(self, batch: int, dtype: torch.dtype, device: str) -> "Operands":
        """Make random operands, channels last; a residual is the interior of a padded buffer, as in the network."""
        shape, padded = self.shape(batch), self.side + 2 * self.pad
        x = _random(shape, dtype, device)
        return Operands(
            x=x if self.activation == "none" else _kept_from_the_mean(x),
            residual=_random((*shape[:2], self.side + 2, self.side + 2), dtype, device)[:, :, 1:-1, 1:-1]
            if self.residual
            else None,
            dy=_random((*shape[:2], padded, padded), dtype, device),
            skip=_random(shape, dtype, device) if self.feeds_block else None,
        )


@dataclass(frozen=True)
class Operands:
    """Holds what a site's kernels read: x, and as the site has them a residual, dY and a second gradient of y."""

    x: Tensor
    residual: Tensor | None
    dy: Tensor
    skip: Tensor | None


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)


def _kept_from_the_mean(x: Tensor) -> Tensor:
    """Move those values of x that lie within a thousandth of their plane's mean away from it.

    The activation's kink is at the mean: rounding would decide on which side such a value lies, and one gradient of the
    other side outweighs the rounding of a million others.
    """
    wide = x.float()
    mean = wide.mean((2, 3), keepdim=True)
    return torch.where((wide - mean).abs() < 1e-3, mean + 0.01, wide).to(x.dtype)


def run_forward(site: NormSite, operands: Operands) -> tuple[Tensor, Tensor]:
    """Launch the site's forward kernels as the network does, and return y and the statistics."""
    return norm_forward(
        operands.x,
        activation=site.activation,
        negative_slope=0.2,
        residual=operands.residual,
        pad=site.pad,
        eps=1e-5,
    )


def run_backward(site: NormSite, operands: Operands, statistics: Tensor) -> NormGradients:
    """Launch the site's backward kernels as the network does, and return the gradients."""
    return norm_backward(
        operands.dy,
        operands.x,
        statistics,
        activation=site.activation,
        negative_slope=0.2,
        pad=site.pad,
        skip=operands.skip,
        wants_residual=site.residual,
        remake=site.remade,
    )


def generator_sites(*, width: int = 64, blocks: int = 9, side: int = 256) -> list[NormSite]:
    """Return the norms of `ResnetGenerator` in the order in which they run, at `side` x `side` pixels."""
    half, quarter = side // 2, side // 4
    return [
        NormSite("after the stem", width, side, "relu", thin_convolution="conv2d_from_thin"),
        NormSite("after down 1", 2 * width, half, "relu"),
        NormSite("after down 2", 4 * width, quarter, "relu", pad=1, feeds_block=True),
        NormSite("blocks, first half", 4 * width, quarter, "relu", pad=1, remade=True, times=blocks),
        NormSite(
            "blocks, second half", 4 * width, quarter, "none", 1, residual=True, feeds_block=True, times=blocks - 1
        ),
        NormSite("last block, second half", 4 * width, quarter, "none", residual=True),
        NormSite("after up 1", 2 * width, half, "relu"),
        NormSite("after up 2", width, side, "relu", pad=3, thin_convolution="conv2d_to_thin"),
    ]


def discriminator_sites(*, width: int = 64, side: int = 256) -> list[NormSite]:
    """Return the norms of `PatchDiscriminator` in the order in which they run, at `side` x `side` pixels."""
    return [
        NormSite("discriminator 2", 2 * width, side // 4, "leaky_relu"),
        NormSite("discriminator 3", 4 * width, side // 8, "leaky_relu"),
        NormSite("discriminator 4", 8 * width, side // 8 - 1, "leaky_relu"),
    ]


def all_sites(side: int = 256) -> Iterator[NormSite]:
    yield from generator_sites(side=side)
    yield from discriminator_sites(side=side)
