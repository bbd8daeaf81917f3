"""Trains runs whose discriminator explodes at a step of their first attempts: `python -m` this module.

The rule looks at shorter windows than it does otherwise. As a module it takes a number of ranks, KILLS,
and flags: it trains the run again and again, in ranks that kill themselves at each of them in turn and at last not at
all, and prints their statuses.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cyclegan_fast import train
from cyclegan_fast.methods.base import LossesByName
from cyclegan_fast.training.health import rule
from cyclegan_fast.training.health.rollback import SEEDS_APART
from cyclegan_fast.training.step import TrainingStep
from tests.cyclegan_fast.conftest import TINY
from tests.cyclegan_fast.forked_ranks import in_ranks

EXPLODES_AT, STEPS = 29, 48
"""The steps at which a discriminator explodes, and after which a run ends."""
ALARM_AT, BACK_TO = 36, 24
"""The end of the second block of four steps that begins at the explosion, and the checkpoint before it."""
KILLS = ("0:34", "1:26", "1:43")
"""The attempts and steps before which a run is killed: before it goes back, right behind that, and later on."""
WINDOWS = rule.Windows(skipped_steps=16, block_steps=4, blocks=2, short_steps=8, long_steps=16)
FLAGS = [
    *TINY,
    *("--workers", "0", "--lambda-identity", "0", "--dropout", "--pool-size", "5", "--ema", "0.9"),
    *("--report-every", "2", "--checkpoint-every", "4", "--sample-every", "20", "--max-steps", str(STEPS)),
    *("--metrics", "reconstruction", "--evaluate-images", "1"),
]


class Killed(BaseException):
    """Ends a training where it stands, as a kill does: nothing catches it, and nothing is saved."""


def flags_of(folder: Path, runs: Path, name: str, *flags: str) -> list[str]:
    """Return the command line of a run."""
    return ["--data", str(folder), "--runs", str(runs), "--name", name, *FLAGS, *flags]


def sabotage(
    patch: pytest.MonkeyPatch, *, attempts: int = 1, harm: Callable[[Any], None] | None = None, kill_at: str = ""
) -> None:
    """Let the first `attempts` explode, or what `harm` does to the networks happen; kill at "attempt:step"."""
    patch.setattr(rule, "WINDOWS", WINDOWS)
    update = TrainingStep.__call__

    def sabotaged(self: TrainingStep, *images: Tensor) -> LossesByName:
        attempt, step = self.config.run.seed // SEEDS_APART, self.steps_taken + 1
        if step == EXPLODES_AT and attempt < attempts:
            with torch.no_grad():
                (harm or explode)(self.model)
        if f"{attempt}:{step}" == kill_at:
            raise Killed
        return update(self, *images)

    patch.setattr(TrainingStep, "__call__", sabotaged)


def explode(model: Any) -> None:
    """Make the scores of a discriminator a thousand times what they were."""
    model.D_A.layers[-1].weight.mul_(1000)


def train_and_die(arguments: list[str], kill_at: str) -> int:
    """Train as one rank, or as a process of its own where it is the only one; return the status, or be killed."""
    if os.environ["WORLD_SIZE"] == "1":
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
            del os.environ[name]
    sabotage(pytest.MonkeyPatch(), kill_at=kill_at)
    try:
        return train.main(arguments)
    except Killed:
        os.kill(os.getpid(), signal.SIGKILL)
        raise


if __name__ == "__main__":
    ranks, kills, *flags = sys.argv[1:]
    for kill in [*filter(None, kills.split(",")), ""]:
        print("statuses:", in_ranks(int(ranks), train_and_die, flags, kill), flush=True)
