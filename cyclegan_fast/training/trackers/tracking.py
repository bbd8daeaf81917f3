"""Lets a tracker watch a training: turns what is told into its scalars and pictures, and its errors into one note."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from cyclegan_fast.runs import TRACKED
from cyclegan_fast.system.errors import UserError, in_brief_words
from cyclegan_fast.system.fault_points import fault_point
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.training.callbacks.callback import Callback, Report, TrainingStart
from cyclegan_fast.training.trackers.tracker import Tracker


class Tracking(Callback):
    """Tells a tracker of a training. One that fails is left out from then on, and the training goes on.

    The run's folder keeps what continues each tracker's run, in trackers.json. The first start, before the first step
    of a run, is the exception: where that fails, a UserError says so before anything is trained. A run that goes back
    starts it again.

    Args:
        name: the tracker's name, as --track has it.
        tracker: is started with the training, and finished with it.
        tell: prints a line.
    """

    def __init__(self, name: str, tracker: Tracker, tell: Callable[[str], None]) -> None:
        self.name, self.tracker, self.tell = name, tracker, tell
        self.is_lost = False
        self._has_started = False

    def on_start(self, start: TrainingStart) -> None:
        if self.is_lost:  # in an attempt before this one
            return
        identities = _identities(start.path)
        try:
            fault_point("tracker", "before_start")
            identity = self.tracker.start(start, identities.get(self.name))
        except Exception as error:  # a library with a network behind it: anything
            if start.step == 0 and not self._has_started:
                raise UserError(
                    f"--track {self.name} could not start: {_with_its_kind(error)}; mend that, or leave it out"
                ) from error
            self._lose(error)
            return
        self._has_started = True
        if identity is not None and identity != identities.get(self.name):
            content = json.dumps({**identities, self.name: identity}, indent=2)
            write_atomically(start.path / TRACKED, content.encode(), "trackers")

    def on_report(self, report: Report) -> None:
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {"learning_rate": report.learning_rate, "images_per_s": report.images_per_s}
        self._tolerate("before_values", lambda: self.tracker.scalars(report.step, values))

    def on_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        values = {f"evaluation/{name}": value for name, value in scores.items()}
        self._tolerate("before_values", lambda: self.tracker.scalars(step, values))

    def on_samples(self, step: int, pictures: Mapping[str, Path]) -> None:
        for domain, picture in pictures.items():
            self._tolerate("before_picture", partial(self.tracker.images, step, f"samples/{domain}", picture))

    def on_end(self, finished: bool) -> None:
        self._tolerate("before_finish", lambda: self.tracker.finish(finished))

    def _tolerate(self, moment: str, tell: Callable[[], None]) -> None:
        if self.is_lost:
            return
        try:
            fault_point("tracker", moment)
            tell()
        except Exception as error:  # a library with a network behind it: anything
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.is_lost = True
        self.tell(
            f"note: --track {self.name} failed and is left out from here on, the training goes on: "
            f"{_with_its_kind(error)}"
        )


def _identities(run: Path) -> dict[str, str]:
    """Return what continues the trackers' runs, by their names; a file that is damaged counts as none."""
    try:
        found = json.loads((run / TRACKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: identity for name, identity in found.items() if isinstance(identity, str)}


def _with_its_kind(error: Exception) -> str:
    kind, said = type(error).__name__, in_brief_words(error)
    return said if said == kind else f"{kind}: {said}"
