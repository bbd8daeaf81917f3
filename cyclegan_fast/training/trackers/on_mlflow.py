"""Sends a run to MLflow: to the store of MLFLOW_TRACKING_URI, by default files below the current folder."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from cyclegan_fast.training.callbacks.callback import TrainingStart
from cyclegan_fast.training.trackers.tracker import PROJECT, Tracker, settings_of

LONGEST_PARAMETER = 500
"""Characters of a parameter's value that every release of MLflow takes."""


class OnMlflow(Tracker):
    """Sends to the experiment of MLFLOW_EXPERIMENT_NAME, beside any run that the program itself has begun."""

    package = "mlflow"

    def start(self, start: TrainingStart, identity: str | None) -> str | None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        if identity is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self._client.get_experiment_by_name(name)
            place = experiment.experiment_id if experiment else self._client.create_experiment(name)
            self._id: str = self._client.create_run(place, run_name=start.path.name).info.run_id
            settings = settings_of(start).items()
            values = [Param(setting, str(value)[:LONGEST_PARAMETER]) for setting, value in settings]
            self._client.log_batch(self._id, params=values)
        else:
            self._id = identity
            self._client.update_run(self._id, status="RUNNING")
        return self._id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now_ms, step) for name, value in values.items()])

    def images(self, step: int, name: str, picture: Path) -> None:
        self._client.log_artifact(self._id, str(picture), "samples")

    def finish(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
