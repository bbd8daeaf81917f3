"""Defines what a metric is: it looks at views of one pass over the test images, and gives scores in the end."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cyclegan_fast.conventions import FORMULAS, Direction
from cyclegan_fast.evaluation.score_table import Score


@dataclass(frozen=True)
class View:
    """One batch of the test images of a domain, and what became of them; all uint8 [N, 3, H, W] on the device."""

    direction: Direction
    first: int
    """place of the first image in its test set"""
    source: Tensor
    translation: Tensor
    reconstruction: Tensor | None
    truth: Tensor | None


class Metric(Protocol):
    """Sees every batch of a pass once, and then says what it found."""

    sees_reconstructions: bool

    def add(self, view: View) -> None: ...

    def add_real(self, direction: Direction, images: Tensor) -> None:
        """Real images of the domain that `direction` translates to."""

    def scores(self) -> list[Score]: ...

    def notes(self) -> list[str]:
        """What a reader of the scores must know."""


class Quiet:
    """A metric without real images and without notes."""

    sees_reconstructions = False

    def add_real(self, direction: Direction, images: Tensor) -> None:
        pass

    def notes(self) -> list[str]:
        return []


def label(key: str, text: str) -> str:
    return text.format(**FORMULAS[key.partition(".")[0]])
