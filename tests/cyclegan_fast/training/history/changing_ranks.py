"""Run by test_other_ranks.py: trains a run by 4, 2, 1 and 4 ranks, and keeps what each of them continued with."""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from cyclegan_fast import sample_photos, train
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.training import session
from cyclegan_fast.training.records import Records
from cyclegan_fast.training.state import TrainingState
from tests.cyclegan_fast.conftest import TINY
from tests.cyclegan_fast.forked_ranks import in_ranks

RANKS_AND_STEPS = ((4, 5), (2, 7), (1, 9), (4, 11))
"""By how many ranks the run is trained up to which step; an epoch has two steps, so that all change within one."""
PER_RANK = 3
"""Places of each of the first four ranks' pools."""
SLOW = "2e-5"
"""A learning rate at which rounding is not amplified as much as at the usual one: 30 times in 6 steps."""
FLAGS = [*TINY, "--epochs", "4", "--decay-epochs", "30", "--report-every", "4", "--workers", "0", "--impl", "reference"]


def command(root: Path, name: str, steps: int, *flags: str) -> list[str]:
    folders = ["--data", str(root / "data"), "--runs", str(root / "runs"), "--name", name]
    return [*folders, *FLAGS, "--max-steps", str(steps), *flags]


def train_on(root: Path, name: str, steps: int, flags: list[str], wide: bool) -> None:
    """Train up to a step; write what this rank continued with. `wide` computes everything in float64."""
    if wide:
        torch.set_default_dtype(torch.float64)
        session.working_dtype = lambda *_, **__: (torch.float64, None)
        narrow = Batch.to
        Batch.to = lambda *given: tuple(images.double() for images in narrow(*given))  # type: ignore[method-assign]
    restore = TrainingState.restore

    def watched(self: TrainingState, *arguments: Any, **options: Any) -> str | None:
        said = restore(self, *arguments, **options)
        continued = {"model": dict(self.model.state_dict()), "step": self.step.state_dict(), "own": self._of_this_rank()}
        torch.save(continued, root / f"{name}-{steps}-rank{self.ranks.index}.pt")
        return said

    TrainingState.restore = watched  # type: ignore[method-assign]
    # Pictures and scores are of no concern here, and those networks do not draw in float64.
    Records.draw_samples = lambda self: None  # type: ignore[method-assign]
    Records.conclude = lambda self, interruption: ""  # type: ignore[method-assign]
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    assert train.main(command(root, name, steps, *flags)) == 0
    last = root / "runs" / name / "checkpoints" / "last.pt"
    if os.environ["RANK"] == "0":
        (root / f"{name}-{steps}.pt").write_bytes(last.read_bytes())


def main(root: Path) -> None:
    sample_photos.main([str(root / "data"), "--side", "36", "--count", "8"])
    for ranks, steps in RANKS_AND_STEPS:
        in_ranks(ranks, train_on, root, "exact", steps, ["--pool-size", "0", "--learning-rate", SLOW], True)
        flags = ["--pool-size", str(PER_RANK), "--ema", "0.9", "--learning-rate-policy", "plateau"]
        in_ranks(ranks, train_on, root, "pooled", steps, flags, False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
