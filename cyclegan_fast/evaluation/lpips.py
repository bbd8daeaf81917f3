"""Measures perceptual distance by LPIPS (Zhang et al. 2018): the metric `lpips`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cyclegan_fast.conventions import Direction
from cyclegan_fast.evaluation.base_metric import Metric, MetricSetup, TranslatedBatch, pixels_in_words, with_formulas
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.images.pixel_type import PixelType, PixelTypes
from cyclegan_fast.images.pixels import signed
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import waiting


class Lpips(Metric):
    """Compares translations with the truth where it is known, and reconstructions with their sources elsewhere.

    Only images of three channels are compared; of other types than 8-bit RGB their range is what AlexNet sees.

    Args:
        network: a metric of torchmetrics that sums over images.
    """

    sees_reconstructions = True

    def __init__(self, network: Any) -> None:
        self.network = network
        self.sums: dict[str, tuple[float, int]] = {}
        self.left_out: dict[Direction, PixelType] = {}

    @classmethod
    def prepare(cls, setup: MetricSetup) -> Callable[[], Metric]:
        if all(kind.channels != 3 for kind in setup.kinds):
            raise UserError(
                f"the metric lpips is of images of 3 channels, and {pixels_in_words(setup.kinds)}: leave it out of "
                "--metrics"
            )
        with waiting("loading AlexNet"):
            network = lpips_network(setup.device)
        return partial(cls, network)

    def value_names(self, direction: Direction, *, truth_is_known: bool, kinds: PixelTypes) -> list[str]:
        source, target = kinds.of_direction(direction)
        if (target if truth_is_known else source).channels != 3:
            return []
        return ["truth.lpips" if truth_is_known else "reconstruction.lpips"]

    def add(self, batch: TranslatedBatch) -> None:
        if batch.truth is not None:
            key, images, against, kind = "truth", batch.translation, batch.truth, batch.target_kind
        elif batch.reconstruction is not None:
            key, images, against, kind = "reconstruction", batch.reconstruction, batch.source, batch.source_kind
        else:
            return
        if kind.channels != 3:
            self.left_out[batch.direction] = kind
            return
        self.network.reset()
        self.network.update(signed(images, kind), signed(against, kind))
        total, count = self.sums.get(f"{batch.direction}.{key}", (0.0, 0))
        self.sums[f"{batch.direction}.{key}"] = (total + float(self.network.compute()), count + len(images))

    def scores(self) -> list[Score]:
        texts = {
            "truth": "{translation} against the truth, AlexNet",
            "reconstruction": "{reconstruction} against {source}, AlexNet",
        }
        return [
            Score(key, with_formulas(key, texts[key.partition(".")[2]]), {"lpips": total / count})
            for key, (total, count) in self.sums.items()
        ]

    def notes(self) -> list[str]:
        return [
            f"LPIPS of {direction} is left out: it is of images of 3 channels, and these have {kind}"
            for direction, kind in self.left_out.items()
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
