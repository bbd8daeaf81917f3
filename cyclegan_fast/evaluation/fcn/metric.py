"""Reads labels out of the images of a pass and compares them with the true ones: the metric `fcn`.

scores.py has the three measures that are made from such a comparison.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor

from cyclegan_fast.conventions import FORMULAS, Direction
from cyclegan_fast.data.test_sets import label_maps
from cyclegan_fast.evaluation.base_metric import Metric, MetricSetup, TranslatedBatch, pixels_in_words
from cyclegan_fast.evaluation.fcn import segmentation
from cyclegan_fast.evaluation.fcn.scores import MEASURES, Counts, SegmentationScores, confusion_matrix
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.images.labels import Labels, nearest_labels
from cyclegan_fast.images.pixel_type import BOTH_RGB, RGB, PixelType, PixelTypes
from cyclegan_fast.images.pixels import as_pixels
from cyclegan_fast.system.errors import UserError


def refuse_other_pixels(kinds: PixelTypes) -> None:
    """Raise UserError unless the pixels of both domains are 8-bit RGB, as photographs and label maps are here."""
    if kinds != BOTH_RGB:
        raise UserError(f"labels are read out of 8-bit RGB, and {pixels_in_words(kinds)}: these have no FCN score")


class FcnScore(Metric):
    """Computes the FCN score of Zhu et al. 2017, section 5.1.1, for photographs A and label maps B.

    G_B(B), photographs made from label maps, are read by a segmentation network; G_A(A), label maps made from
    photographs, by the nearest colour of the palette. Both are compared with the true labels of that view.

    Args:
        labels: [N, H, W] train ids of the test images by domain: of "B", and of "A" where its views' labels are known.
    """

    def __init__(self, network: segmentation.SegmentationNetwork, labels: dict[str, Labels]) -> None:
        self.network, self.labels = network, labels
        self.matrices: dict[str, Counts] = {}

    @classmethod
    def prepare(cls, setup: MetricSetup) -> Callable[[], Metric]:
        if setup.segmentation_file is None:
            raise UserError(
                "the metric fcn needs a network that reads labels: give --segmentation FILE, which "
                "`python -m cyclegan_fast.evaluate fcn` trains"
            )
        refuse_other_pixels(setup.kinds)
        network = segmentation.load_segmentation(setup.segmentation_file)[0].to(setup.device)
        return partial(cls, network, label_maps(setup.tests, setup.size))

    def value_names(self, direction: Direction, *, truth_is_known: bool, kinds: PixelTypes) -> list[str]:
        return [f"fcn.{value}" for value in MEASURES] if FORMULAS[direction]["source"] in self.labels else []

    def add(self, batch: TranslatedBatch) -> None:
        source = FORMULAS[batch.direction]["source"]
        if source not in self.labels:
            return
        truth = self.labels[source][batch.first : batch.first + len(batch.source)]
        if batch.direction == "b2a":
            found = segmentation.read_out(self.network, batch.translation).cpu().numpy()
        else:
            found = nearest_labels(as_pixels(batch.translation))
        matrix = confusion_matrix(truth, found)
        self.matrices[batch.direction] = self.matrices.get(batch.direction, 0) + matrix

    def scores(self) -> list[Score]:
        texts = {
            "b2a.fcn": "labels -> photo, read by the segmentation network",
            "a2b.fcn": "photo -> labels, read by the nearest colour",
        }
        return [
            Score(f"{direction}.fcn", texts[f"{direction}.fcn"], SegmentationScores(matrix).means())
            for direction, matrix in self.matrices.items()
        ]


class RealPhotographs(Metric):
    """Reads labels out of the real photographs, to compare the FCN score with.

    Two confusion matrices come of it: "real" against the photographs' own labels, and "shuffled" against those of other
    views. `evaluate fcn` makes rows of its own of them.

    Args:
        labels: [N, H, W] train ids of the photographs that a pass shows.
    """

    def __init__(self, network: segmentation.SegmentationNetwork, labels: Labels) -> None:
        self.network = network
        self.labels = {"real": labels} | ({"shuffled": np.roll(labels, 1, axis=0)} if len(labels) > 1 else {})
        self.matrices: dict[str, Counts] = {}
        self.seen = 0

    def add(self, batch: TranslatedBatch) -> None:
        pass

    def add_real(self, direction: Direction, images: Tensor, kind: PixelType = RGB) -> None:
        if direction != "b2a":  # the direction that makes photographs
            return
        found = segmentation.read_out(self.network, images).cpu().numpy()
        for key, labels in self.labels.items():
            matrix = confusion_matrix(labels[self.seen : self.seen + len(images)], found)
            self.matrices[key] = self.matrices.get(key, 0) + matrix
        self.seen += len(images)

    def scores(self) -> list[Score]:
        return []
