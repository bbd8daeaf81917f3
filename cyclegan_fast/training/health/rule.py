"""Defines when a training is in trouble: a rule on the mean losses that metrics.jsonl has, and on nothing else.

So a run that continues from the same lines hears the same alarms. Reports are gathered into blocks; what holds in each
of the last few blocks is trouble. The page docs/your-own-images.md states the rule with the figures that it was tested
by; `tests/cyclegan_fast/training/health/saved_runs.jsonl` holds the runs.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cyclegan_fast.config.options import Config, GanLoss
from cyclegan_fast.methods.base import DIRECTION_NETWORKS
from cyclegan_fast.methods.registry import method_of

TroubleKind = Literal["exploded", "lost", "won", "not finite"]


@dataclass(frozen=True)
class Windows:
    """Says over how many steps the rule looks.

    skipped_steps: the steps at a run's beginning that never count: losses are noisy there.
    block_steps: how many steps the reports of a block cover, at least.
    blocks: in how many blocks in a row something must hold, to begin or to end trouble.
    """

    skipped_steps: int = 100
    block_steps: int = 50
    blocks: int = 4

    def length(self, report_every: int) -> int:
        """Return how many steps a block of whole reports has."""
        return -(-self.block_steps // report_every) * report_every

    def longest(self, report_every: int) -> int:
        """Return how many steps an alarm looks back."""
        return self.blocks * self.length(report_every)


WINDOWS = Windows()


@dataclass(frozen=True)
class AdversarialLevels:
    """Holds the levels of an adversarial loss between which a game is open.

    exploded: a discriminator's loss above it is four times that of one that answers everything alike.
    won: the largest loss of a discriminator that is never wrong ...
    lost: ... and the smallest one of the generators against it.
    """

    exploded: float
    won: float
    lost: float


LEVELS: dict[GanLoss, AdversarialLevels] = {
    "lsgan": AdversarialLevels(exploded=1.0, won=0.01, lost=0.9),
    "vanilla": AdversarialLevels(exploded=2.8, won=0.03, lost=3.5),
    "hinge": AdversarialLevels(exploded=4.0, won=0.04, lost=1.0),
}
"""The losses that are watched. That of wgan-gp has no scale: a critic's scores may drift by any amount."""

LOST_FACTOR = 3.0
"""A loss between images that is so many times its lowest block is lost: see `HealthRule`."""
LOST_ERROR = 0.2
"""... where it is a mean absolute error that is also above this, of images in [-1, 1]."""
WORST_ERROR = 0.75
"""A mean absolute error above this is lost in any case: a generator that has saturated has about 1."""


@dataclass(frozen=True)
class Trouble:
    """Says what is wrong with a training.

    step: the step after which it was noticed.
    since: the last step before all that it was noticed by: checkpoints up to there are good. 0 where the first steps
        that count were bad already, so that none is known to be good.
    text: a sentence for the user, without its full stop.
    """

    kind: TroubleKind
    step: int
    since: int
    text: str


@dataclass(frozen=True)
class _Block:
    begin: int
    end: int
    means: dict[str, float]


class HealthRule:
    """Decides after each report whether a training is in trouble.

    In each of the last blocks one of these holds, of some loss:

    - "exploded": a discriminator's loss is above four times that of one that answers everything alike;
    - "lost": a loss between images (cycle, identity, pixels, pairs) is at least three times the lowest block that it
      had before and above 0.2, or above 0.75, as mean absolute errors of images in [-1, 1]; a loss between features,
      which has no such scale, is at least three times its lowest block;
    - "won": a discriminator's loss is almost 0, and those of all generators against it are as of translations that it
      always knows. Adversarial losses count before their weight.

    Trouble lasts until as many blocks in a row have passed without any.
    """

    def __init__(self, config: Config, windows: Windows | None = None) -> None:
        self.windows = windows or WINDOWS
        self.standing: Trouble | None = None
        self._levels = LEVELS.get(config.loss.gan_loss)
        self._generators_of = _generators_of_judges(config)
        self._gan_weight = config.loss.lambda_gan if config.loss.method == "cyclegan" else 1.0
        self._weights = _image_losses(config)
        self._sums: dict[str, float] = {}
        self.last_step = 0
        self._begin = 0
        self._blocks: deque[_Block] = deque(maxlen=self.windows.blocks)
        self._lowest: dict[str, float] = {}
        self._calm_blocks = 0
        self._is_first = True

    def see(self, step: int, losses: Mapping[str, float]) -> Trouble | None:
        """Take in the report after `step`; returns trouble that begins with it, None otherwise."""
        begin, self.last_step = self.last_step, step
        if begin < self.windows.skipped_steps:
            self._begin = step
            return None
        for name, mean in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + mean * (step - begin)
        steps = step - self._begin
        if steps < self.windows.block_steps:
            return None
        means = {name: total / steps for name, total in self._sums.items()}
        block, self._sums, self._begin = _Block(self._begin, step, means), {}, step
        return self._judge(block)

    def _judge(self, block: _Block) -> Trouble | None:
        if len(self._blocks) == self._blocks.maxlen:
            leaving = self._blocks[0].means
            for name in self._weights:
                self._lowest[name] = min(leaving[name], self._lowest.get(name, leaving[name]))
        self._blocks.append(block)
        if len(self._blocks) < self.windows.blocks:
            return None
        found, is_first, self._is_first = self._found(), self._is_first, False
        if found is None:
            self._calm_blocks += 1
            if self._calm_blocks >= self.windows.blocks:
                self.standing = None
            return None
        self._calm_blocks = 0
        if self.standing:
            return None
        kind, text = found
        since = self._blocks[0].begin
        text = f"{text} from step {since + 1} to {block.end}"
        self.standing = Trouble(kind, block.end, 0 if is_first else since, text)
        return self.standing

    def _found(self) -> tuple[TroubleKind, str] | None:
        """Return what is wrong in all of the last blocks."""
        for name in self._generators_of:
            least = self._least(name)
            if self._levels and least > self._levels.exploded:
                return "exploded", f"the loss {name} has exploded: it was {_shown(least)} and more"
        for name in self._weights:
            least = self._least(name)
            if least > self._limit(name):
                early = f"; it had been {_shown(self._lowest[name])}" if name in self._lowest else ""
                return "lost", f"the loss {name} was {_shown(least)} and more{early},"
        for name, generators in self._generators_of.items():
            if self._levels and all(self._has_won(name, generator) for generator in generators):
                return "won", f"the discriminator {name} has won: its loss was {_shown(self._most(name))} and less"
        return None

    def _limit(self, name: str) -> float:
        """Return the level above which a loss between images is lost."""
        weight = self._weights[name]
        relative = LOST_FACTOR * self._lowest.get(name, float("inf"))
        return relative if weight is None else min(max(relative, LOST_ERROR * weight), WORST_ERROR * weight)

    def _has_won(self, judge: str, generator: str) -> bool:
        assert self._levels is not None
        return self._most(judge) < self._levels.won and self._least(generator) > self._levels.lost * self._gan_weight

    def _least(self, name: str) -> float:
        return min(block.means[name] for block in self._blocks)

    def _most(self, name: str) -> float:
        return max(block.means[name] for block in self._blocks)


def _generators_of_judges(config: Config) -> dict[str, list[str]]:
    """Return the generators' adversarial losses by the discriminator's loss that they play against."""
    method = method_of(config)
    every = [f"G_{direction.suffix}" for direction in DIRECTION_NETWORKS]
    own = {direction.judge: [f"G_{direction.suffix}"] for direction in DIRECTION_NETWORKS}
    return {judge: own.get(judge, every) for judge in method.judged}


def _image_losses(config: Config) -> dict[str, float | None]:
    """Return the losses between images, each with its weight; None for a loss between features."""
    loss = config.loss
    weights: dict[str, float | None] = {}
    for suffix, other in ("AB", "BA"):
        cycle = loss.cycle_weight(suffix)
        weights |= {f"cycle_{suffix}": cycle, f"idt_{suffix}": loss.lambda_identity * loss.cycle_weight(other)}
        weights |= {f"pixel_{suffix}": loss.lambda_pixel, f"paired_{suffix}": loss.lambda_paired}
        weights[f"feature_{suffix}"] = None
    names = method_of(config).losses
    return {name: weight for name, weight in weights.items() if name in names and weight != 0}


def _shown(value: float) -> str:
    return f"{value:.3g}"
