"""Scores how well labels are read: the three measures of Zhu et al. 2017, section 5.1.1, from one confusion matrix.

They are Cityscapes' own (Cordts et al. 2016, section 3.3 and its published scripts): void pixels are not counted, and a
class that is neither there nor predicted has no IoU and takes no part in the mean. The evaluation script of Isola et
al. 2017, which the paper used, counts such a class as 0 instead; `as_original` gives that mean too.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cyclegan_fast.images.labels import CLASSES, VOID, Labels

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

MEASURES = ("per_pixel", "per_class", "class_iou")
"""The paper's measures, in its order; the names are those of score_table.METRICS."""


def confusion_matrix(truth: Labels, predicted: Labels) -> Counts:
    """Count pixels by true class (row) and predicted class (column), [19, 19]; what is VOID in `truth` is left out.

    Both are train ids of one shape. Raises ValueError for a prediction that is no class.
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
    """Computes the measures of a confusion matrix.

    They are shares in [0, 1], and NaN where a class has no pixels to speak of.
    """

    matrix: Counts

    @property
    def per_pixel(self) -> float:
        """Return the share of pixels whose class was read rightly; NaN where no pixel counts."""
        total = self.matrix.sum()
        return float(np.trace(self.matrix) / total) if total else float("nan")

    @property
    def accuracies(self) -> Shares:
        """Return the share of each class's pixels that was read as it, [19]; NaN for a class that is not there."""
        return _ratio(np.diag(self.matrix), self.matrix.sum(axis=1))

    @property
    def ious(self) -> Shares:
        """Return the intersection over union of each class [19], TP / (TP + FP + FN).

        It is NaN for a class that is neither there nor predicted.
        """
        union = self.matrix.sum(axis=0) + self.matrix.sum(axis=1) - np.diag(self.matrix)
        return _ratio(np.diag(self.matrix), union)

    def means(self) -> dict[str, float]:
        """Return per-pixel accuracy, mean per-class accuracy and mean class IoU, under the names of MEASURES."""
        return {"per_pixel": self.per_pixel, "per_class": _mean(self.accuracies), "class_iou": _mean(self.ious)}

    def as_original(self) -> dict[str, float]:
        """Return what `means` does, but count a class without pixels as 0, as the paper's script does."""
        zeros = {"per_class": np.nan_to_num(self.accuracies), "class_iou": np.nan_to_num(self.ious)}
        return {"per_pixel": self.per_pixel, **{name: float(values.mean()) for name, values in zeros.items()}}

    def by_class(self) -> dict[str, dict[str, float]]:
        """Return, for each class that is there, its share of the pixels, its accuracy and its IoU."""
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
