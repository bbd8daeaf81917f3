"""Says how much `bench.gpu` computes: the paper's networks, or tiny ones that rehearse the command itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cases.plain_cyclegan import PAPER_SIZE, PlainNetworkSize
from bench.cases.scaling import SCALING_BATCHES, SCALING_SIDES
from bench.cases.training import Setting
from bench.cases.training_step import AGREEMENT
from bench.tuning.tuner import EVERYTHING, Visit
from cyclegan_fast.kernels.checking.sites import NormSite, discriminator_sites, generator_sites


@dataclass(frozen=True)
class RunExtent:
    """Holds the sizes of images, batches and networks, and how much is measured of each."""

    side: int
    """the side of the square images, pixels"""
    size: PlainNetworkSize
    agreement: float
    """how far a step's losses may be from plain PyTorch's, see `bench.cases.training_step.AGREEMENT`"""
    batches: tuple[int, ...]
    """images of each domain in a step, the most important first"""
    scaling_batches: Sequence[int]
    scaling_sides: Sequence[int]
    probe: Setting
    """the training run that tells how long a step takes"""
    most_steps: int
    """the most steps of the training run that is compared"""
    rounds: int
    """the most rounds of a comparison"""
    profiled_steps: int
    most_tuning_s: float
    """the most seconds for the tuner, whatever the phases before it have left over"""
    visits: tuple[Visit, ...]
    """the tuner's visits: each key with its most promising plans, then with all, as far as the time goes"""

    def sites_at(self, side: int) -> list[NormSite]:
        """Return where the networks run the fused norm, for images of `side` pixels."""
        return [
            *generator_sites(width=self.size.width, blocks=self.size.blocks, side=side),
            *discriminator_sites(width=self.size.width, side=side),
        ]

    @property
    def sites(self) -> list[NormSite]:
        """Return the sites for images of `self.side` pixels."""
        return self.sites_at(self.side)


PAPER_EXTENT = RunExtent(
    side=256,
    size=PAPER_SIZE,
    agreement=AGREEMENT,
    batches=(1, 16),
    scaling_batches=SCALING_BATCHES,
    scaling_sides=SCALING_SIDES,
    probe=Setting(side=128, steps=30),
    most_steps=2000,
    rounds=25,
    profiled_steps=10,
    most_tuning_s=math.inf,
    visits=(Visit(first=6, again=3, rounds_each=5, rounds=9), EVERYTHING, EVERYTHING),
)
TINY_EXTENT = RunExtent(
    side=32,
    size=PlainNetworkSize(width=4, blocks=6),
    agreement=0.5,  # norms of nine pixels: rounding alone moves a loss by a tenth
    batches=(1, 2),
    scaling_batches=(2,),
    scaling_sides=(40,),
    probe=Setting(side=32, steps=5, width=4, blocks=6),
    most_steps=5,
    rounds=1,
    profiled_steps=1,
    most_tuning_s=60,
    visits=(Visit(first=1, again=1, rounds_each=1, rounds=1),),
)
"""An extent that is small enough for a machine that takes seconds for a step."""
