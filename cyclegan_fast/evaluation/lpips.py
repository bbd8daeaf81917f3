"""Measures perceptual distance by LPIPS (Zhang et al. 2018): the metric `lpips`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cyclegan_fast.conventions import Direction
from cyclegan_fast.evaluation.base_metric import Metric, MetricSetup, TranslatedBatch, with_formulas
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import waiting


class Lpips(Metric):
    """Compares translations with the truth where it is known, and reconstructions with their sources elsewhere.

    Args:
        network: a metric of torchmetrics that sums over images.
    """

    sees_reconstructions = True

    def __init__(self, network: Any) -> None:
        self.network = network
        self.sums: dict[str, tuple[float, int]] = {}

    @classmethod
    def prepare(cls, setup: MetricSetup) -> Callable[[], Metric]:
        with waiting("loading AlexNet"):
            network = lpips_network(setup.device)
        return partial(cls, network)

    def value_names(self, direction: Direction, *, truth_is_known: bool) -> list[str]:
        return ["truth.lpips" if truth_is_known else "reconstruction.lpips"]

    def add(self, batch: TranslatedBatch) -> None:
        if batch.truth is not None:
            kind, images, against = "truth", batch.translation, batch.truth
        elif batch.reconstruction is not None:
            kind, images, against = "reconstruction", batch.reconstruction, batch.source
        else:
            return
        self.network.reset()
        self.network.update(images.float() / 127.5 - 1, against.float() / 127.5 - 1)
        total, count = self.sums.get(f"{batch.direction}.{kind}", (0.0, 0))
        self.sums[f"{batch.direction}.{kind}"] = (total + float(self.network.compute()), count + len(images))

    def scores(self) -> list[Score]:
        texts = {
            "truth": "{translation} against the truth, AlexNet",
            "reconstruction": "{reconstruction} against {source}, AlexNet",
        }
        return [
            Score(key, with_formulas(key, texts[key.partition(".")[2]]), {"lpips": total / count})
            for key, (total, count) in self.sums.items()
        ]


def lpips_network(device: torch.device) -> nn.Module:
    """Load LPIPS with AlexNet by torchmetrics, summed over images; raises UserError where it cannot be had."""
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network: nn.Module = LearnedPerceptualImagePatchSimilarity(net_type="alex", reduction="sum")
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"LPIPS cannot be had here ({error}): pip install torchvision for this build of torch, see that "
            "AlexNet's weights are whole, or leave lpips out"
        ) from error
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"the weights of LPIPS's AlexNet could not be fetched ({error}): put torchvision's "
            f"alexnet-owt-7be5be79.pth into {folder}, or leave lpips out"
        ) from error
    return network.to(device)
