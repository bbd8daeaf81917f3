"""Defines `Metric`, the base class of everything that looks at a pass over the test images, and what it looks at.

`passes.py` makes the pass; `metrics.py` lists the metrics that a command line may name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from cyclegan_fast.config.options import MetricName
from cyclegan_fast.conventions import FORMULAS, Direction
from cyclegan_fast.data.test_sets import TestSets
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.images.pixel_type import BOTH_RGB, RGB, PixelType, PixelTypes


@dataclass(frozen=True)
class TranslatedBatch:
    """Holds one batch of a domain's test images and what became of them, as samples [N, C, H, W] on the device.

    Sources and reconstructions are of the type `source_kind`, translations and truths of `target_kind`.
    """

    direction: Direction
    first: int
    """place of the first image in its test set"""
    source: Tensor
    translation: Tensor
    reconstruction: Tensor | None
    truth: Tensor | None
    source_kind: PixelType = RGB
    target_kind: PixelType = RGB


@dataclass(frozen=True)
class MetricSetup:
    """Says what the metrics of an evaluation are prepared for; see `metrics.MetricMaker` for each field."""

    names: Sequence[MetricName]
    device: torch.device
    tests: TestSets
    size: int
    count: int
    feature_source: str
    segmentation_file: Path | None
    kinds: PixelTypes = BOTH_RGB


class Metric(ABC):
    """Sees every batch of one pass once, and then says what it found.

    To add a metric, write a class like this in a file of its own, and give it a line in `metrics.METRIC_CLASSES`:

    - `add` looks at a batch of translations, and `scores` gives the rows of the table when all were seen. Every metric
      must have both.
    - `value_names` says beforehand which values `scores` will have, so that a training can choose the best by one.
    - `prepare` loads what all passes share: a network, label maps. Without one of its own, the class is called with no
      arguments for every pass.
    - `add_real` looks at real images, for a metric that compares sets; `notes` tells what a reader must know.
    - `sees_reconstructions` must be True for `TranslatedBatch.reconstruction` to be computed.
    """

    sees_reconstructions: ClassVar[bool] = False

    @classmethod
    def prepare(cls, setup: MetricSetup) -> Callable[[], "Metric"]:
        """Load what every pass needs, once; return a function that makes this metric anew for each pass.

        Raises UserError where a library, weights, images or labels are missing.
        """
        return cls

    def value_names(self, direction: Direction, *, truth_is_known: bool, kinds: PixelTypes) -> list[str]:
        """Return the names of the values that a pass with both generators gives in a direction.

        They are named as in `score_table.scalars` but without the direction, such as "truth.ssim". `kinds` are the
        types of the domains' pixels.
        """
        return []

    @abstractmethod
    def add(self, batch: TranslatedBatch) -> None:
        """Look at one batch of translations."""

    def add_real(self, direction: Direction, images: Tensor, kind: PixelType = RGB) -> None:  # noqa: B027  # most metrics need none
        """Look at real images, samples [N, C, H, W] of type `kind`, of the domain that `direction` translates to."""

    @abstractmethod
    def scores(self) -> list[Score]:
        """Return the rows that this metric adds to the table, once all batches have been seen."""

    def notes(self) -> list[str]:
        """Return sentences that a reader of the scores must know."""
        return []


def pixels_in_words(kinds: PixelTypes) -> str:
    """Say what the pixels of both domains are, for a sentence on what a metric does not take."""
    A, B = kinds
    return f"A and B have {A}" if A == B else f"A has {A}, and B has {B}"


def with_formulas(key: str, text: str) -> str:
    """Fill the formulas of a direction into a label.

    Args:
        key: a score's name, such as "a2b.truth", which begins with the direction.
        text: a label with the keys of `conventions.FORMULAS` in braces, such as "{translation} against the truth".
    """
    return text.format(**FORMULAS[key.partition(".")[0]])
