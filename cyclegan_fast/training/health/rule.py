"""Defines when a training is in trouble: a rule on the mean losses that metrics.jsonl has, and on nothing else.

So a run that continues from the same lines hears the same alarms. Reports are gathered into blocks, and some blocks in
a row are a window. The page docs/your-own-images.md states the rule with the figures that it was tested by;
`tests/cyclegan_fast/training/health/saved_runs.jsonl` holds the runs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cyclegan_fast.config.options import Config, GanLoss, MethodName
from cyclegan_fast.methods.base import DIRECTION_NETWORKS
from cyclegan_fast.methods.registry import method_of

TroubleKind = Literal["exploded", "lost", "won", "not finite"]


@dataclass(frozen=True)
class Windows:
    """Says over how many steps the rule looks.

    skipped_steps: the steps at a run's beginning that never count: losses are noisy there.
    block_steps: how many steps the reports of a block cover, at least.
    blocks: how many blocks a window has, at least.
    short_steps: how many steps the window of losses that explode or are lost covers, at least.
    long_steps: the same for discriminators that have won: they may be ahead for a while in a healthy run.
    """

    skipped_steps: int = 100
    block_steps: int = 50
    blocks: int = 4
    short_steps: int = 200
    long_steps: int = 1000

    def length(self, report_every: int) -> int:
        """Return how many steps a block of whole reports has."""
        return -(-self.block_steps // report_every) * report_every

    def covered(self, least: int, report_every: int) -> int:
        """Return how many steps a window covers that covers `least` at least."""
        length = self.length(report_every)
        return max(self.blocks, -(-least // length)) * length


WINDOWS = Windows()


@dataclass(frozen=True)
class AdversarialLevels:
    """Holds the levels of an adversarial loss between which a game is open.

    chance: the loss of a discriminator that answers everything alike, as well as that can be done.
    lost: the loss of generators whose translations the discriminator knows: a score that is 0.05 away from what it
        should be for lsgan, a probability of 5 % to be taken for real for vanilla, the margin for hinge.
    """

    chance: float
    lost: float


LEVELS: dict[GanLoss, AdversarialLevels] = {
    "lsgan": AdversarialLevels(chance=0.25, lost=0.9),
    "vanilla": AdversarialLevels(chance=math.log(2), lost=3.0),
    "hinge": AdversarialLevels(chance=1.0, lost=1.0),
}
"""The losses that are watched. That of wgan-gp has no scale: a critic's scores may drift by any amount."""

EXPLODED_FACTOR = 2.0
"""A discriminator's loss that is so many times the one by chance has exploded ..."""
WON_FACTOR = 0.2
"""... and one with so little of it has won, where its generators have lost."""
CAN_BE_WON: tuple[MethodName, ...] = ("cyclegan", "bigan", "cogan")
"""The methods whose generators learn what to make from the discriminators alone. Those of the others have a loss on the
translation itself besides, and a discriminator that is always right is common there."""
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

    One of these holds, of some loss:

    - "exploded", in each block of a window: a discriminator's loss is above twice that of one that answers
      everything alike;
    - "lost", in each block: a loss between images (cycle, identity, pixels, pairs) is above three times the lowest
      block that it had before and above 0.2, or above 0.75, as mean absolute errors of images in [-1, 1]; a loss
      between features, which has no such scale, is above three times its lowest block;
    - "won", as means over a longer window: a discriminator's loss is below a fifth of that of one that answers
      everything alike, and those of all generators against it are as of translations that it knows (`CAN_BE_WON` has
      the methods).

    All losses count before their weights. Trouble lasts until a short window has passed without any.
    """

    def __init__(self, config: Config, windows: Windows | None = None) -> None:
        self.windows = windows or WINDOWS
        self.standing: Trouble | None = None
        self.last_step = 0
        self._levels = LEVELS.get(config.loss.gan_loss)
        self._generators_of = _generators_of_judges(config)
        self._can_be_won = config.loss.method in CAN_BE_WON
        self._gan_weight = config.loss.lambda_gan if config.loss.method == "cyclegan" else 1.0
        self._weights = _image_losses(config)
        self._sums: dict[str, float] = {}
        self._begin = 0
        self._blocks: list[_Block] = []
        self._lowest: dict[str, float] = {}
        self._first_step = 0
        self._troubled_at = 0

    def see(self, step: int, losses: Mapping[str, float]) -> Trouble | None:
        """Take in the report after `step`; returns trouble that begins with it, None otherwise."""
        begin, self.last_step = self.last_step, step
        if begin < self.windows.skipped_steps:
            self._begin = self._first_step = step
            return None
        for name, mean in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + mean * (step - begin)
        steps = step - self._begin
        if steps < self.windows.block_steps:
            return None
        means = {name: total / steps for name, total in self._sums.items()}
        self._blocks.append(_Block(self._begin, step, means))
        self._sums, self._begin = {}, step
        return self._judge()

    def _judge(self) -> Trouble | None:
        short, long = (self._window(least) for least in (self.windows.short_steps, self.windows.long_steps))
        if short:
            self._take_leave(short[0].begin, long[0].begin if long else 0)
        found = self._found(short, long)
        if found is None:
            if self.last_step - self._troubled_at >= self.windows.short_steps:
                self.standing = None
            return None
        self._troubled_at = self.last_step
        if self.standing:
            return None
        kind, text, window = found
        since = window[0].begin
        text = f"{text} from step {since + 1} to {self.last_step}"
        self.standing = Trouble(kind, self.last_step, since if since > self._first_step else 0, text)
        return self.standing

    def _window(self, least_steps: int) -> list[_Block]:
        """Return the newest blocks, the fewest that are a window of that many steps; none where there are too few."""
        for count in range(self.windows.blocks, len(self._blocks) + 1):
            if self.last_step - self._blocks[-count].begin >= least_steps:
                return self._blocks[-count:]
        return []

    def _take_leave(self, short_begin: int, long_begin: int) -> None:
        """Learn the lowest losses from blocks before the short window, and forget those before the long one."""
        for block in self._blocks:
            if block.end <= short_begin:
                for name in self._weights:
                    self._lowest[name] = min(block.means[name], self._lowest.get(name, math.inf))
        self._blocks = [block for block in self._blocks if block.end > long_begin]

    def _found(self, short: list[_Block], long: list[_Block]) -> tuple[TroubleKind, str, list[_Block]] | None:
        """Return what is wrong in a window, and the window."""
        if not short:
            return None
        for name in self._generators_of:
            least = _least(short, name)
            if self._levels and least > EXPLODED_FACTOR * self._levels.chance:
                return "exploded", f"the loss {name} has exploded: it was {_shown(least)} and more", short
        for name in self._weights:
            least = _least(short, name)
            if least > self._limit(name):
                before = f"; it had been {_shown(self._lowest[name])}" if name in self._lowest else ""
                return "lost", f"the loss {name} was {_shown(least)} and more{before},", short
        for name, generators in self._generators_of.items():
            if long and self._has_won(long, name, generators):
                mean = _shown(_mean(long, name))
                return "won", f"the discriminator {name} has won: its loss was {mean} in the mean", long
        return None

    def _limit(self, name: str) -> float:
        """Return the level above which a loss between images is lost."""
        weight = self._weights[name]
        relative = LOST_FACTOR * self._lowest.get(name, math.inf)
        return relative if weight is None else min(max(relative, LOST_ERROR * weight), WORST_ERROR * weight)

    def _has_won(self, window: list[_Block], judge: str, generators: list[str]) -> bool:
        if self._levels is None or not self._can_be_won:
            return False
        least = min(_mean(window, generator) for generator in generators) / self._gan_weight
        return _mean(window, judge) < WON_FACTOR * self._levels.chance and least > self._levels.lost


def _least(window: list[_Block], name: str) -> float:
    return min(block.means[name] for block in window)


def _mean(window: list[_Block], name: str) -> float:
    steps = window[-1].end - window[0].begin
    return sum(block.means[name] * (block.end - block.begin) for block in window) / steps


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
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
