"""What can be measured of translated images, batch by batch: any number of metrics look at one pass over a test set.

metric          compares                                             values
reconstruction  G_B(G_A(A)) with A, and G_A(G_B(B)) with B           PSNR, SSIM, L1
truth           a translation with the true one, where it is known   PSNR, SSIM, L1; and what no translation gives
lookup          the best 3D colour table's result with the truth     PSNR, SSIM, L1
fid, kid        all translations with all real images of the domain  one distance for each direction
lpips           a translation with the truth, else a reconstruction  LPIPS
fcn             labels read out of translations with the true ones   accuracies, class IoU
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cyclegan_fast.config.options import MetricName
from cyclegan_fast.conventions import FORMULAS
from cyclegan_fast.data.test_sets import TestSets, label_maps
from cyclegan_fast.evaluation import distances as features
from cyclegan_fast.evaluation.distances import FeatureDistance, Lpips
from cyclegan_fast.evaluation.fcn import segmentation
from cyclegan_fast.evaluation.fcn.scores import FcnScore
from cyclegan_fast.evaluation.similarity import Lookup, Reconstruction, Truth
from cyclegan_fast.evaluation.view import Metric
from cyclegan_fast.images.labels import Labels
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import waiting


class MetricMaker:
    """Loads what metrics need, once, and makes them, anew for every pass over the same test images.

    Args:
        names: which; each may be given once.
        tests: the test images.
        size: side of the square that they are resized to.
        count: how many of each domain are used, the first ones; 0 for all.
        feature_source: see `features.feature_network`.
        segmentation_file: the network of the metric fcn.

    Raises UserError where a metric needs what is not there: a library, weights, images, labels.
    """

    def __init__(
        self,
        names: Sequence[MetricName],
        device: torch.device,
        tests: TestSets,
        *,
        size: int,
        count: int = 0,
        feature_source: str = features.INCEPTION,
        segmentation_file: Path | None = None,
    ) -> None:
        self.names, self.tests = names, tests
        self.distances = [name for name in ("fid", "kid") if name in names]
        self.network: nn.Module | None = None
        self.title = "Inception-v3" if feature_source == features.INCEPTION else Path(feature_source).name
        self.real_features: dict[str, Tensor] = {}
        if self.distances:
            with waiting(f"loading {self.title}"):
                self.network = features.distance_network(feature_source, device)
            self._check_enough(count)
        self.lpips: nn.Module | None = None
        if "lpips" in names:
            with waiting("loading AlexNet"):
                self.lpips = features.lpips_network(device)
        self.judge: segmentation.SegmentationNetwork | None = None
        self.labels: dict[str, Labels] = {}
        if "fcn" in names:
            if segmentation_file is None:
                raise UserError(
                    "the metric fcn needs a network that reads labels: give --segmentation FILE, which "
                    "`python -m cyclegan_fast.evaluate fcn` trains"
                )
            self.judge = segmentation.load_segmentation(segmentation_file)[0].to(device)
            self.labels = label_maps(tests, size)

    def _check_enough(self, count: int) -> None:
        sizes = [len(held.images) for held in (self.tests.A, self.tests.B) if held is not None]
        used = min(count, *sizes) if count and sizes else min(sizes, default=0)
        if len(sizes) < 2 or used < 2:
            raise UserError(
                f"{' and '.join(self.distances)} compare translations with real images and need at least 2 test images "
                f"of each domain; {f'there is {used}' if len(sizes) == 2 else 'one domain has none'}: add some, or use "
                "more of them"
            )

    def names_of_values(self) -> list[str]:
        """What a pass with both generators gives, such as "a2b.truth.ssim"."""
        compared, labels = ("psnr_db", "ssim", "l1"), ("per_pixel", "per_class", "class_iou")
        found: list[str] = []
        for way, held in (("a2b", self.tests.A), ("b2a", self.tests.B)):
            if held is None:
                continue
            known = held.truth is not None
            given = {
                "truth": compared if "truth" in self.names and known else (),
                "untranslated": compared if "truth" in self.names and known else (),
                "lookup": compared if "lookup" in self.names and known else (),
                "reconstruction": compared if "reconstruction" in self.names else (),
                "features": tuple(self.distances),
                "fcn": labels if FORMULAS[way]["source"] in self.labels else (),
            }
            found += [f"{way}.{kind}.{value}" for kind, values in given.items() for value in values]
            found += [f"{way}.{'truth' if known else 'reconstruction'}.lpips"] if self.lpips is not None else []
        return found

    def __call__(self) -> list[Metric]:
        simple: dict[str, type[Truth | Lookup | Reconstruction]] = {
            "truth": Truth,
            "lookup": Lookup,
            "reconstruction": Reconstruction,
        }
        made: list[Metric] = [kind() for name, kind in simple.items() if name in self.names]
        if self.network is not None:
            made.append(FeatureDistance(self.network, self.title, self.distances, self.real_features))
        if self.lpips is not None:
            made.append(Lpips(self.lpips))
        if self.judge is not None:
            made.append(FcnScore(self.judge, self.labels))
        return made
