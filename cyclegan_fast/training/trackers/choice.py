"""Finds the trackers that `--track` names, and says before anything is written which packages they lack."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence

from cyclegan_fast.config.options import TrackerName
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.trackers.tracker import Tracker
from cyclegan_fast.training.trackers.tracking import Tracking

_PLACES = {
    "tensorboard": ("on_tensorboard", "OnTensorboard"),
    "wandb": ("on_wandb", "OnWandb"),
    "mlflow": ("on_mlflow", "OnMlflow"),
    "trackio": ("on_trackio", "OnTrackio"),
}
"""The module and the class of each tracker; its library is imported when a training starts with it."""


def open_trackers(names: Sequence[TrackerName], tell: Callable[[str], None]) -> list[Tracking]:
    """Return what tells the trackers of these names of a training; none for "none".

    Raises UserError, with the command that installs it, where the package of one is missing.
    """
    return [Tracking(name, _tracker(name), tell) for name in names if name != "none"]


def _tracker(name: str) -> Tracker:
    module, class_name = _PLACES[name]
    found: type[Tracker] = getattr(importlib.import_module(f"{__package__}.{module}"), class_name)
    spec = importlib.util.find_spec(found.package)
    # A folder of that name, such as the wandb/ of earlier runs, is importable and has no file of its own.
    if spec is None or spec.origin is None:
        raise UserError(f"--track {name} needs the package {found.package}: pip install {found.package}")
    return found()
