"""Sends a run to Trackio: to its local database, or to the Space that TRACKIO_SPACE_ID names."""

import os
from collections.abc import Mapping
from pathlib import Path

from cyclegan_fast.training.callbacks.callback import TrainingStart
from cyclegan_fast.training.trackers.tracker import PROJECT, Tracker, settings_of


class OnTrackio(Tracker):
    """Sends to the project of TRACKIO_PROJECT; `trackio show` displays it."""

    package = "trackio"

    def start(self, start: TrainingStart, identity: str | None) -> str | None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=identity or start.path.name,
            resume="allow" if identity else "never",
            config=settings_of(start),
            embed=False,
        )
        return str(self._run.name)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def images(self, step: int, name: str, picture: Path) -> None:
        import trackio

        self._run.log({name: trackio.Image(str(picture))}, step=step)

    def finish(self, finished: bool) -> None:
        import trackio

        trackio.finish()
