"""Defines what a tracker of runs is: something outside the run's folder that takes scalars and pictures by step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cyclegan_fast.config.values import to_dict
from cyclegan_fast.training.callbacks.callback import TrainingStart

PROJECT = "cyclegan-fast"
"""The project, or experiment, under which trackers file runs unless their own variables name another."""


class Tracker(ABC):
    """Takes the values and pictures of one run; its methods may raise anything, which `Tracking` turns into a note."""

    package: ClassVar[str]
    """the package that it needs, by the name of which it is imported and installed"""

    @abstractmethod
    def start(self, start: TrainingStart, identity: str | None) -> str | None:
        """Begin a run, or continue the one that an earlier start returned; return what continues this one."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take values by names such as "loss/G_A" and "evaluation/a2b.truth.ssim"."""

    @abstractmethod
    def images(self, step: int, name: str, picture: Path) -> None:
        """Take the picture of a file."""

    @abstractmethod
    def finish(self, finished: bool) -> None:
        """Bring everything to its place; `finished` tells that the training is complete."""


def settings_of(start: TrainingStart) -> dict[str, Any]:
    """Return the configuration of a run as plain values with one name each, such as "optimizer.learning_rate"."""
    return {
        f"{section}.{name}": list(value) if isinstance(value, tuple) else value
        for section, values in to_dict(start.config).items()
        for name, value in values.items()
    }
