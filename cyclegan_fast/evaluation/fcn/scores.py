"""How well labels are read: the three measures of Zhu et al. 2017, section 5.1.1, from one confusion matrix.

They are Cityscapes' own (Cordts et al. 2016, section 3.3 and its published scripts): void pixels are not counted, and a
class that is neither there nor predicted has no IoU and takes no part in the mean. The evaluation script of Isola et
al. 2017, which the paper used, counts such a class as 0 instead; `as_original` gives that mean too.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cyclegan_fast.conventions import FORMULAS, Direction
from cyclegan_fast.evaluation.fcn import segmentation
from cyclegan_fast.evaluation.score_table import Score
from cyclegan_fast.evaluation.view import Quiet, View
from cyclegan_fast.images.labels import CLASSES, VOID, Labels, nearest_labels
from cyclegan_fast.images.pixels import as_pixels

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


def confusion_matrix(truth: Labels, predicted: Labels) -> Counts:
    """[19, 19] pixels by true class (row) and predicted class (column); what is VOID in `truth` is left out.

    Both of one shape and of train ids. Raises ValueError for a prediction that is no class.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"{list(truth.shape)} true labels and {list(predicted.shape)} predicted ones")
    count = len(CLASSES)
    counted = truth != VOID
    rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    if rows.size and max(rows.max(), columns.max()) >= count:
        raise ValueError(f"labels must be train ids below {count}, got {max(rows.max(), columns.max())}")
    return np.bincount(rows * count + columns, minlength=count * count).reshape(count, count)


@dataclass(frozen=True)
class SegmentationScores:
    """Of a confusion matrix: shares in [0, 1], NaN where a class has no pixels to speak of."""

    matrix: Counts

    @property
    def per_pixel(self) -> float:
        """Share of pixels whose class was read rightly; NaN where no pixel counts."""
        total = self.matrix.sum()
        return float(np.trace(self.matrix) / total) if total else float("nan")

    @property
    def accuracies(self) -> Shares:
        """[19] of each class's pixels the share that was read as that class; NaN for a class that is not there."""
        return _ratio(np.diag(self.matrix), self.matrix.sum(axis=1))

    @property
    def ious(self) -> Shares:
        """[19] intersection over union, TP / (TP + FP + FN); NaN for a class neither there nor predicted."""
        union = self.matrix.sum(axis=0) + self.matrix.sum(axis=1) - np.diag(self.matrix)
        return _ratio(np.diag(self.matrix), union)

    def means(self) -> dict[str, float]:
        """Per-pixel accuracy, mean per-class accuracy, mean class IoU, under the names of score_table.METRICS."""
        return {"per_pixel": self.per_pixel, "per_class": _mean(self.accuracies), "class_iou": _mean(self.ious)}

    def as_original(self) -> dict[str, float]:
        """The same where a class without pixels counts as 0, as the paper's script does."""
        zeros = {"per_class": np.nan_to_num(self.accuracies), "class_iou": np.nan_to_num(self.ious)}
        return {"per_pixel": self.per_pixel, **{name: float(values.mean()) for name, values in zeros.items()}}

    def by_class(self) -> dict[str, dict[str, float]]:
        """Of each class that is there: share of the pixels, accuracy and IoU."""
        shares = _ratio(self.matrix.sum(axis=1), np.full(len(CLASSES), self.matrix.sum()))
        return {
            row.name: {
                "share": float(shares[row.train_id]),
                "accuracy": float(self.accuracies[row.train_id]),
                "iou": float(self.ious[row.train_id]),
            }
            for row in CLASSES
            if shares[row.train_id] > 0
        }


def _ratio(part: Counts, whole: Counts) -> Shares:
    shares: Shares = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return shares


def _mean(shares: Shares) -> float:
    known = shares[np.isfinite(shares)]
    return float(known.mean()) if known.size else float("nan")


class FcnScore(Quiet):
    """Section 5.1.1 of the paper, for photographs A and label maps B.

    G_B(B), photographs made from label maps, are read by a segmentation network; G_A(A), label maps made from
    photographs, by the nearest colour of the palette. Both are compared with the true labels of that view.

    Args:
        labels: [N, H, W] train ids of the test images by domain: of "B", and of "A" where its views' labels are known.
    """

    def __init__(self, network: segmentation.SegmentationNetwork, labels: dict[str, Labels]) -> None:
        self.network, self.labels = network, labels
        self.matrices: dict[str, Counts] = {}

    def add(self, view: View) -> None:
        source = FORMULAS[view.direction]["source"]
        if source not in self.labels:
            return
        truth = self.labels[source][view.first : view.first + len(view.source)]
        if view.direction == "b2a":
            found = segmentation.read_out(self.network, view.translation).cpu().numpy()
        else:
            found = nearest_labels(as_pixels(view.translation))
        matrix = confusion_matrix(truth, found)
        self.matrices[view.direction] = self.matrices.get(view.direction, 0) + matrix

    def scores(self) -> list[Score]:
        texts = {
            "b2a.fcn": "labels -> photo, read by the segmentation network",
            "a2b.fcn": "photo -> labels, read by the nearest colour",
        }
        return [
            Score(f"{direction}.fcn", texts[f"{direction}.fcn"], SegmentationScores(matrix).means())
            for direction, matrix in self.matrices.items()
        ]


class RealPhotographs:
    """What the network of the FCN score reads in the real photographs: "real" against their own labels, and "shuffled"
    against those of other views.

    Args:
        labels: [N, H, W] train ids of the photographs that a pass shows.
    """

    sees_reconstructions = False

    def __init__(self, network: segmentation.SegmentationNetwork, labels: Labels) -> None:
        self.network = network
        self.labels = {"real": labels} | ({"shuffled": np.roll(labels, 1, axis=0)} if len(labels) > 1 else {})
        self.matrices: dict[str, Counts] = {}
        self.seen = 0

    def add(self, view: View) -> None:
        pass

    def add_real(self, direction: Direction, images: Tensor) -> None:
        if direction != "b2a":  # which makes photographs
            return
        found = segmentation.read_out(self.network, images).cpu().numpy()
        for key, labels in self.labels.items():
            matrix = confusion_matrix(labels[self.seen : self.seen + len(images)], found)
            self.matrices[key] = self.matrices.get(key, 0) + matrix
        self.seen += len(images)

    def scores(self) -> list[Score]:
        return []

    def notes(self) -> list[str]:
        return []
