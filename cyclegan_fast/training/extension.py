"""Lets a run end later than it was made to, where the steps that it has taken would have been the same.

`run_folder.py` asks which settings may grow, `session.py` whether the past of a run agrees with them. The learning rate
is all that the later end can have changed in it: `schedule.py` computes it from the same settings.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cyclegan_fast.checkpoint.content import RunCheckpoint
from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted
from cyclegan_fast.training.history.epochs import Epochs
from cyclegan_fast.training.schedule import rate_of_epoch

_ENDS = {"epochs": "optimizer", "decay_epochs": "optimizer", "max_steps": "run", "patience": "evaluation"}
"""The fields that say where a run ends, with their sections of the configuration."""


def with_end_of(config: Config, other: Config) -> Config:
    """Return a configuration that ends where `other` does, and is `config` otherwise."""
    return replace(
        config,
        optimizer=replace(config.optimizer, epochs=other.optimizer.epochs, decay_epochs=other.optimizer.decay_epochs),
        run=replace(config.run, max_steps=other.run.max_steps),
        evaluation=replace(config.evaluation, patience=other.evaluation.patience),
    )


def ends_no_earlier(config: Config, saved: Config) -> bool:
    """Tell whether `config` has at least the epochs of `saved`, both phases together, and at least its steps."""
    steps, before = config.run.max_steps, saved.run.max_steps
    return config.total_epochs >= saved.total_epochs and (steps is None or (before is not None and steps >= before))


def ends_alike(config: Config, saved: RunCheckpoint) -> bool:
    """Tell whether a checkpoint was written by a run with the same end."""
    return _end(values.to_dict(config)) == _end(saved["config"])


def _end(config: Mapping[str, Any]) -> dict[str, Any]:
    # Older checkpoints have no patience.
    return {name: config[section].get(name, 0) for name, section in _ENDS.items()}


def check_past(config: Config, saved: RunCheckpoint, epochs: Epochs, run: Path) -> str | None:
    """Raise UserError where a step of a checkpoint of `run` would have had another learning rate under `config`.

    `epochs` are those that the run goes on with.

    Returns what to tell the user instead where `config` says to go on all the same; None where nothing is to be told.
    """
    step = int(saved["log"]["step"])
    end, now = _end(saved["config"]), config.optimizer
    before = replace(now, epochs=end["epochs"], decay_epochs=end["decay_epochs"])
    begun = range(1, (Epochs.saved_in(saved) or epochs).begun_by(step) + 1)
    other = next((epoch for epoch in begun if rate_of_epoch(before, epoch) != rate_of_epoch(now, epoch)), None)
    if other is None:
        return None
    following = epochs.at(step)[0] + 1
    goes_on = f"goes on with {rate_of_epoch(now, following):.4g} in epoch {following}"
    if config.run.extend_from_here:
        return f"the steps so far keep their learning rates, and the run {goes_on} (--extend-from-here)"
    raise UserError(
        f"{run} has taken {counted(step, 'step')}, and with --epochs {now.epochs} --decay-epochs {now.decay_epochs} "
        f"some would have had another learning rate ({rate_of_epoch(now, other):.4g} instead of "
        f"{rate_of_epoch(before, other):.4g} in epoch {other}): --extend-from-here keeps them as they are and "
        f"{goes_on}; or give --name NEW for another run"
    )
