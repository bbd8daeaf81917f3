"""Trains runs whose discriminator explodes at a step of their first attempts: `python -m` this module with flags.

The rule looks at shorter windows than it does otherwise. Environment variables say how many ATTEMPTS explode, and at
which attempt and step the process kills itself: KILL_AT="1:26".
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

EXPLODES_AT, STEPS = 29, 48
"""The steps at which a discriminator explodes, and after which a run ends."""
ALARM_AT, BACK_TO = 36, 24
"""The end of the second block of four steps that begins at the explosion, and the checkpoint before it."""
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


if __name__ == "__main__":
    sabotage(pytest.MonkeyPatch(), attempts=int(os.environ["ATTEMPTS"]), kill_at=os.environ.get("KILL_AT", ""))
    try:
        sys.exit(train.main())
    except Killed:
        os.kill(os.getpid(), signal.SIGKILL)
