"""Defines what watches a training, `Callback`, what it is told, and how it ends a training early.

Importing it needs no PyTorch. `dispatch.py` calls the callbacks of a training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclegan_fast.config.options import Config


class StopTraining(Exception):
    """Ends a training early, as Ctrl-C does: raise it, with a reason, in a method of a `Callback`.

    The step is finished and saved, nothing is scored, and the same call or command continues the run.
    """


@dataclass(frozen=True)
class TrainingStart:
    """Says what begins: the run's folder, its configuration, the steps that it has taken, and those of the whole run.

    `step` is 0 for a new run, and the step of the checkpoint for one that is continued.
    """

    path: Path
    config: "Config"
    step: int
    total_steps: int


@dataclass(frozen=True)
class Report:
    """Holds one report of a training, every `report_every` steps; a line of metrics.jsonl has the same values.

    `losses` are means over the steps since the last report, by the names of the paper: "G_A", "D_A", "cycle_A".
    """

    step: int
    total_steps: int
    epoch: int
    elapsed_s: float
    """training time so far, without samples, evaluations, checkpoints and callbacks"""
    step_ms: float
    images_per_s: float
    learning_rate: float
    peak_gib: float
    losses: Mapping[str, float]


class Callback:
    """Watches a training: make a subclass with the methods that are of interest, which do nothing here.

        class Print(Callback):
            def on_report(self, report):
                print(report.step, report.losses["cycle_A"])

        cyclegan_fast.train(callbacks=[Print()])

    All steps and epochs are counted from the start of the run, through every time that it was continued. The time that
    a callback takes does not count as training time. With several ranks, those of the first one are called.

    A method that raises `StopTraining` ends the training after the step. One that raises another exception does so too,
    and once the step is saved, `train` raises that exception, with a note that says where it came from; the callbacks
    behind it are called as usual.

    A run that goes back (--rollback) ends, and starts again from an earlier step: `on_end` and `on_start` are called
    once an attempt.
    """

    def on_start(self, start: TrainingStart) -> None:
        """Hear of the training before its first step."""

    def on_report(self, report: Report) -> None:
        """Hear the mean losses since the last report."""

    def on_samples(self, step: int, pictures: Mapping[str, Path]) -> None:
        """Hear that sample grids were drawn; `pictures` are their files, by domain, "A" and "B"."""

    def on_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Hear the scores on the test images after a step, by names such as "a2b.truth.ssim"; also at the end."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Hear that a checkpoint was saved; `path` is its file, which `load` takes, until the next one replaces it."""

    def on_epoch_end(self, epoch: int) -> None:
        """Hear that an epoch, counted from 1, is over."""

    def on_end(self, finished: bool) -> None:
        """Hear that the training ends, for whatever reason; `finished` tells that every step is done and scored."""
