"""Evaluates a run while it trains and at its end, and remembers which step was the best."""

from typing import Any

import torch
from torch import nn

from cyclegan_fast.checkpoint.content import BestEvaluation
from cyclegan_fast.config.options import Config
from cyclegan_fast.conventions import DIRECTIONS
from cyclegan_fast.data.training_images import Data
from cyclegan_fast.evaluation.metrics import MetricMaker
from cyclegan_fast.evaluation.passes import Evaluation, deciding, evaluate
from cyclegan_fast.evaluation.score_table import is_better, scalars
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted


class Evaluator:
    """Measures `config.evaluation.metrics` on the test images of a run, and remembers the best step.

    Raises UserError where a metric lacks what it needs, before anything is trained.

    Args:
        best: the best evaluation so far, from the run's checkpoint; None where there is none.
    """

    def __init__(self, config: Config, data: Data, device: torch.device, best: BestEvaluation | None) -> None:
        self.options, self.data, self.device = config.evaluation, data, device
        self.kinds = config.data.pixel_types
        self.make_metrics = MetricMaker(
            self.options.metrics,
            device,
            data.tests,
            size=config.data.crop_size,
            count=self.options.evaluate_images,
            feature_source=self.options.features,
            segmentation_file=self.options.segmentation,
            kinds=self.kinds,
        )
        if self.options.evaluate_every and data.tests.A is None and data.tests.B is None:
            raise UserError("--evaluate-every needs images in testA or testB of --data: there are none")
        self.best_by = deciding(self.make_metrics.names_of_values(), self.options.best_by)
        if self.options.patience and self.best_by is None:
            raise UserError(
                f"--patience {self.options.patience} needs a metric that says which evaluation is the best: none of "
                f"{', '.join(self.options.metrics)} does here; give another of --metrics"
            )
        self.best: BestEvaluation | None = best
        self.last: tuple[int, Evaluation] | None = None  # the step and the newest evaluation

    def evaluate(self, model: Model, step: int) -> Evaluation:
        """Measure the generators, or their moving averages where there are any; a step is measured only once."""
        if self.last is not None and self.last[0] == step:
            return self.last[1]
        generators: dict[Any, nn.Module] = {direction: model.translator(direction) for direction in DIRECTIONS}
        metrics = self.make_metrics()
        found = evaluate(
            generators,
            self.data.tests,
            metrics,
            device=self.device,
            count=self.options.evaluate_images,
            kinds=self.kinds,
        )
        self.last = step, found
        return found

    def is_best(self, step: int, evaluation: Evaluation) -> bool:
        """Tell whether no earlier step was better, and remember this one if so; NaN and infinity are never the best."""
        if self.best_by is None:
            return False
        value = scalars(evaluation.scores).get(self.best_by)
        if value is None:
            return False
        if self.best is not None and not is_better(self.best_by, value, self.best["value"]):
            return False
        self.best = {"step": step, "name": self.best_by, "value": value}
        return True

    def why_it_ends(self, evaluated: list[int]) -> str | None:
        """Return why the run ends, where its best score has stood for `patience` evaluations; None where it goes on.

        Args:
            evaluated: the steps of all evaluations so far.
        """
        if self.best is None:
            return None
        since = sum(step > self.best["step"] for step in evaluated)
        if since < self.options.patience:
            return None
        return (
            f"the best {self.best['name']} was {self.best['value']:.4g} at step {self.best['step']}, and "
            f"{counted(since, 'evaluation')} since {'was' if since == 1 else 'were'} no better "
            f"(--patience {self.options.patience})"
        )
