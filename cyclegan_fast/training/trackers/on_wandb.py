"""Sends a run to Weights & Biases, or into its files where WANDB_MODE=offline."""

import os
from collections.abc import Mapping
from pathlib import Path

from cyclegan_fast.training.callbacks.callback import TrainingStart
from cyclegan_fast.training.trackers.tracker import PROJECT, Tracker, settings_of


class OnWandb(Tracker):
    """Sends to the project of WANDB_PROJECT; its files lie in `wandb/` of the run's folder."""

    package = "wandb"

    def start(self, start: TrainingStart, identity: str | None) -> str | None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=start.path.name,
            id=identity,
            resume="allow" if identity else None,
            dir=start.path,
            config=settings_of(start),
            allow_val_change=True,  # a run that is continued may have another device, or end later
        )
        # The step is a value of its own: wandb's own counter takes no step a second time, and after a kill some are
        # sent again.
        self._run.define_metric("*", step_metric="step")
        return str(self._run.id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def images(self, step: int, name: str, picture: Path) -> None:
        import wandb

        self._run.log({"step": step, name: wandb.Image(str(picture))})

    def finish(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
