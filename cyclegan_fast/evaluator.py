"""A run's evaluations while it trains and at its end: what is measured, and which of its checkpoints was the best."""

from typing import Any

import torch
from torch import nn

from cyclegan_fast.config import Config
from cyclegan_fast.data import Data
from cyclegan_fast.domains import label_maps
from cyclegan_fast.errors import UserError
from cyclegan_fast.evaluation import DIRECTIONS, Evaluation, deciding, evaluate
from cyclegan_fast.metrics import MetricMaker
from cyclegan_fast.model import CycleGAN
from cyclegan_fast.score_table import is_better, scalars


class Evaluator:
    """Measures `config.evaluation.metrics` on the test images of a run, and remembers the best step.

    Raises UserError where a metric lacks what it needs, before anything is trained.

    Args:
        best: `state_dict()` of the run's checkpoint.
    """

    def __init__(self, config: Config, data: Data, device: torch.device, best: dict[str, Any] | None) -> None:
        self.options, self.data, self.device = config.evaluation, data, device
        labels = label_maps(data.tests, config.data.crop_size) if "fcn" in self.options.metrics else None
        self.make_metrics = MetricMaker(
            self.options.metrics,
            device,
            feature_source=self.options.features,
            segmentation_file=self.options.segmentation,
            labels=labels,
        )
        if self.options.evaluate_every and data.tests.A is None and data.tests.B is None:
            raise UserError("--evaluate-every needs images in testA or testB of --data: there are none")
        self.best: dict[str, Any] | None = best

    def evaluate(self, model: CycleGAN) -> Evaluation:
        """Of the generators that draw the samples: the moving averages where there are any."""
        generators: dict[Any, nn.Module] = {direction: model.translator(direction) for direction in DIRECTIONS}
        metrics = self.make_metrics()
        return evaluate(
            generators, self.data.tests, metrics, device=self.device, count=self.options.evaluate_images, progress=False
        )

    def is_best(self, step: int, evaluation: Evaluation) -> bool:
        """Whether no earlier step was better; remembers this one if so."""
        values = scalars(evaluation.scores)
        name = deciding(values, self.options.best_by)
        if name is None:
            return False
        found = {"step": step, "name": name, "value": values[name]}
        if self.best is not None and not is_better(name, values[name], self.best["value"]):
            return False
        self.best = found
        return True
