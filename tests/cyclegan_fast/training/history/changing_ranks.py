"""Run by test_other_ranks.py: trains a run by 4, 2, 1 and 4 ranks, and keeps what each of them continued with."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from cyclegan_fast import sample_photos, train
from cyclegan_fast.checkpoint import files
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.training import session
from cyclegan_fast.training.records import Records
from cyclegan_fast.training.state import TrainingState
from cyclegan_fast.training.step import TrainingStep
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


def train_on(root: Path, name: str, steps: int, flags: list[str], wide: bool) -> int:
    """Train up to a step; write what this rank continued with. `wide` computes everything in float64."""
    if wide:
        torch.set_default_dtype(torch.float64)
        session.working_dtype = lambda *_, **__: (torch.float64, None)
        files.check_content = lambda content: None  # which knows no weights in float64
        narrow = Batch.to
        Batch.to = lambda *given: tuple(images.double() for images in narrow(*given))  # type: ignore[method-assign]
    restore = TrainingState.restore

    def watched(self: TrainingState, *arguments: Any, **options: Any) -> str | None:
        said = restore(self, *arguments, **options)
        continued = {
            "model": dict(self.model.state_dict()),
            "step": self.step.state_dict(),
            "own": self._of_this_rank(),
        }
        torch.save(continued, root / f"{name}-{steps}-rank{self.ranks.index}.pt")
        return said

    TrainingState.restore = watched  # type: ignore[method-assign]
    # Pictures and scores are of no concern here, and those networks do not draw in float64.
    Records.draw_samples = lambda self: None  # type: ignore[method-assign]
    Records.conclude = lambda self, interruption: ""  # type: ignore[method-assign]
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    status = train.main(command(root, name, steps, *flags))
    last = root / "runs" / name / "checkpoints" / "last.pt"
    if os.environ["RANK"] == "0":
        (root / f"{name}-{steps}.pt").write_bytes(last.read_bytes())
    return status


def main(root: Path) -> None:
    sample_photos.main([str(root / "data"), "--side", "36", "--count", "8"])
    for ranks, steps in RANKS_AND_STEPS:
        flat = ["--pool-size", "0", "--learning-rate", SLOW]
        statuses = in_ranks(ranks, train_on, root, "exact", steps, flat, True)
        flags = ["--pool-size", str(PER_RANK), "--ema", "0.9", "--learning-rate-policy", "plateau"]
        statuses += in_ranks(ranks, train_on, root, "pooled", steps, flags, False)
        assert not any(statuses), statuses
    print("statuses of two machines:", in_ranks(2, stop_on_the_second, root, nodes=2))
    print("statuses of one machine:", in_ranks(2, stop_on_the_second, root, nodes=1))


def stop_on_the_second(root: Path) -> int:
    """Train as one of two ranks, of which the second one is told to stop in its third step; return the status."""
    step = TrainingStep.__call__

    def watched(self: TrainingStep, *images: Any) -> Any:
        if self.ranks.index == 1 and self.steps_taken == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *images)

    TrainingStep.__call__ = watched  # type: ignore[method-assign]
    Records.draw_samples = lambda self: None  # type: ignore[method-assign]
    return train.main(command(root, f"stopped-{os.environ['GROUP_WORLD_SIZE']}", 8))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
