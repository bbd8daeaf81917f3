"""Trains one run of the experiments, as usual but for its steps, which the progress bar of all runs counts."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch

from cyclegan_fast.config.options import Config
from cyclegan_fast.data.training_images import Data, check_data
from cyclegan_fast.system.distributed import ALONE, Ranks
from cyclegan_fast.system.errors import NonFiniteLoss, UserError
from cyclegan_fast.system.interruption import Interruption
from cyclegan_fast.training.loop import Training
from cyclegan_fast.training.run_folder import FinishedRun, RunFolder, open_run
from cyclegan_fast.training.session import check_device, needs_pairs, train_in


class Diverged(UserError):
    """Says that the losses of a run are not finite any more; the other runs go on."""


class CountedTraining(Training):
    """Tells of every step, and first of the steps that an earlier start did."""

    tell: Callable[[int], None]

    def train(self, interruption: Interruption) -> bool:
        self.tell(self.log.step)
        return super().train(interruption)

    def keep_records(self, epoch: int, learning_rate: float) -> None:
        super().keep_records(epoch, learning_rate)
        self.tell(1)


def train_run(config: Config, device: torch.device, console: Path, tell: Callable[[int], None]) -> None:
    """Train or continue a run; raises Stopped after Ctrl-C or SIGTERM, with everything saved.

    Args:
        console: the file to whose end goes what the run prints.
        tell: called with the number of steps that were done since the last call.

    Raises Diverged, and UserError for what stops all runs.
    """
    check_device(config, device)
    check_data(config.data, paired=needs_pairs(config))
    try:
        run = open_run(config)
    except FinishedRun:
        assert config.run.max_steps is not None
        tell(config.run.max_steps)
        return
    made: list[CountedTraining] = []

    def make(config: Config, data: Data, run: RunFolder, device: torch.device, ranks: Ranks) -> CountedTraining:
        training = CountedTraining(config, data, run, device, ranks)
        training.tell = tell
        made.append(training)
        return training

    with run, _quietly(console):
        try:
            train_in(run, config, device, ALONE, make)
        except UserError as error:
            if isinstance(error.__cause__, NonFiniteLoss):
                raise Diverged(f"{run.path.name} diverged: {error.__cause__}") from error
            raise
    if made[0].interruption.request:
        raise made[0].interruption.request


@contextlib.contextmanager
def _quietly(console: Path) -> Iterator[None]:
    """Send what is printed to a file, without progress bars: the one of all runs stays alone on the terminal."""
    console.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(console, "a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(_WithoutBars(file)),
    ):
        yield


class _WithoutBars:
    """Stands for standard error, and writes what is no progress bar to a text file."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, text: str) -> int:
        if text.strip() and not re.match(r"\s*[\r\x1b]", text):
            self.file.write(text)
        return len(text)

    def flush(self) -> None:
        self.file.flush()

    def isatty(self) -> bool:
        return False
