"""Trains one run of the experiments, as usual but for its steps, which the progress bar of all runs counts."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch

from cyclegan_fast.config.options import Config
from cyclegan_fast.data.training_images import check_data
from cyclegan_fast.system.distributed import ALONE
from cyclegan_fast.system.errors import NonFiniteLoss, UserError
from cyclegan_fast.training.run_folder import FinishedRun, open_run
from cyclegan_fast.training.session import check_device, needs_pairs, train_in, watching_callbacks


class Diverged(UserError):
    """Says that the losses of a run are not finite any more; the other runs go on."""


def train_run(config: Config, device: torch.device, console: Path, tell: Callable[[int], None]) -> None:
    """Train or continue a run; raises Stopped after Ctrl-C or SIGTERM, with everything saved.

    Args:
        console: the file to whose end goes what the run prints.
        tell: called with the number of steps that were done since the last call.

    Raises Diverged, and UserError for what stops all runs.
    """
    check_device(config, device)
    check_data(config.data, paired=needs_pairs(config))
    callbacks = watching_callbacks(config, ALONE)
    try:
        with open_run(config) as run, _quietly(console):
            ending = train_in(run, config, device, ALONE, callbacks, tell)
    except FinishedRun:
        assert config.run.max_steps is not None
        tell(config.run.max_steps)
        return
    except UserError as error:
        if isinstance(error.__cause__, NonFiniteLoss):
            raise Diverged(f"{config.run.name} diverged: {error.__cause__}") from error
        raise
    if ending.request:
        raise ending.request


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
