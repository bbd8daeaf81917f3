"""Lists the metrics that a command line may name, and makes those that are asked for.

Of images that are not 8-bit RGB the first two have MAE in the images' own units, too; lookup and fcn are of 8-bit RGB,
fid, kid and lpips of three channels, and leave other directions out.

metric          compares                                             values
reconstruction  G_B(G_A(A)) with A, and G_A(G_B(B)) with B           PSNR, SSIM, L1
truth           a translation with the true one, where it is known   PSNR, SSIM, L1; the same of untranslated images
lookup          the best 3D colour table's result with the truth     PSNR, SSIM, L1
fid, kid        all translations with all real images of the domain  one distance for each direction
lpips           a translation with the truth, else a reconstruction  LPIPS
fcn             labels read out of translations with the true ones   accuracies, class IoU

base_metric.py says what every metric must do. To add one, write its class in a file of its own, and give it a line in
METRIC_CLASSES, under a name in `config.options.MetricName`; a value of a new kind gets a line in score_table.py.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from cyclegan_fast.config.options import MetricName
from cyclegan_fast.conventions import DIRECTIONS
from cyclegan_fast.data.test_sets import TestSets
from cyclegan_fast.evaluation.base_metric import Metric, MetricSetup
from cyclegan_fast.evaluation.colour_lookup import Lookup
from cyclegan_fast.evaluation.distance_networks import INCEPTION
from cyclegan_fast.evaluation.distances import FeatureDistance
from cyclegan_fast.evaluation.fcn.metric import FcnScore
from cyclegan_fast.evaluation.lpips import Lpips
from cyclegan_fast.evaluation.similarity import Reconstruction, Truth
from cyclegan_fast.images.pixel_type import BOTH_RGB, PixelTypes

METRIC_CLASSES: dict[MetricName, type[Metric]] = {
    "truth": Truth,
    "lookup": Lookup,
    "reconstruction": Reconstruction,
    "fid": FeatureDistance,
    "kid": FeatureDistance,
    "lpips": Lpips,
    "fcn": FcnScore,
}
"""The class of every metric, in the order of the table's rows; a class with two names is made once for both."""


class MetricMaker:
    """Prepares the metrics that are asked for, once, and makes them anew for every pass over the same test images.

    Args:
        names: the metrics, each given once.
        device: where translations lie, and where networks that look at them go.
        tests: the test images.
        size: side of the square that they are resized to.
        count: how many of each domain are used, the first ones; 0 for all.
        feature_source: the network of fid and kid; see `distance_networks.distance_network`.
        segmentation_file: the network of fcn.
        kinds: the types of the pixels of both domains.

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
        feature_source: str = INCEPTION,
        segmentation_file: Path | None = None,
        kinds: PixelTypes = BOTH_RGB,
    ) -> None:
        setup = MetricSetup(names, device, tests, size, count, feature_source, segmentation_file, kinds)
        classes = dict.fromkeys(kind for name, kind in METRIC_CLASSES.items() if name in names)
        self.tests, self.kinds = tests, kinds
        self._makers = [kind.prepare(setup) for kind in classes]

    def __call__(self) -> list[Metric]:
        """Return the metrics, none of which has seen anything yet."""
        return [make() for make in self._makers]

    def names_of_values(self) -> list[str]:
        """Return the names of the values that a pass with both generators gives, such as "a2b.truth.ssim"."""
        return [
            f"{direction}.{name}"
            for direction, held in zip(DIRECTIONS, (self.tests.A, self.tests.B), strict=True)
            if held is not None
            for metric in self()
            for name in metric.value_names(direction, truth_is_known=held.truth is not None, kinds=self.kinds)
        ]
