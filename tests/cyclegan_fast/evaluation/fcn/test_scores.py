"""Scores of section 5.1.1 are those of a 4x4 map that was counted by hand."""

import math

import numpy as np
import pytest

from cyclegan_fast.evaluation.fcn.scores import SegmentationScores, confusion_matrix
from cyclegan_fast.images.labels import TRAIN_ID, VOID, Labels

ROAD, SKY, CAR, TREE = (TRAIN_ID[name] for name in ("road", "sky", "car", "vegetation"))

TRUTH: Labels = np.array(
    [[SKY, SKY, SKY, SKY], [SKY, SKY, TREE, TREE], [ROAD, CAR, CAR, VOID], [ROAD, ROAD, ROAD, VOID]], np.uint8
)
READ: Labels = np.array(
    [[SKY, SKY, SKY, TREE], [SKY, TREE, TREE, TREE], [ROAD, CAR, ROAD, ROAD], [ROAD, ROAD, ROAD, CAR]], np.uint8
)
# 14 pixels count. Sky: 4 of 6 right; vegetation: 2 of 2, and 2 of the sky are taken for it; road: 4 of 4, and 1 of the
# cars is taken for it; car: 1 of 2.


def test_a_4x4_map_by_hand() -> None:
    found = SegmentationScores(confusion_matrix(TRUTH, READ))
    assert found.matrix.sum() == 14
    assert found.matrix[SKY, TREE] == 2
    assert found.matrix[CAR, ROAD] == 1
    means = found.means()
    assert means["per_pixel"] == pytest.approx(11 / 14)
    assert means["per_class"] == pytest.approx((4 / 6 + 2 / 2 + 4 / 4 + 1 / 2) / 4)
    assert means["class_iou"] == pytest.approx((4 / 6 + 2 / 4 + 4 / 5 + 1 / 2) / 4)
    by_class = found.by_class()
    assert by_class.keys() == {"road", "sky", "car", "vegetation"}
    assert by_class["sky"] == {
        "share": pytest.approx(6 / 14),
        "accuracy": pytest.approx(4 / 6),
        "iou": pytest.approx(4 / 6),
    }
    assert by_class["car"]["iou"] == pytest.approx(1 / 2)


def test_the_original_counts_absent_classes_as_zero() -> None:
    zeros = SegmentationScores(confusion_matrix(TRUTH, READ)).as_original()
    assert zeros["per_class"] == pytest.approx((4 / 6 + 1 + 1 + 1 / 2) / 19)
    assert zeros["class_iou"] == pytest.approx((4 / 6 + 1 / 2 + 4 / 5 + 1 / 2) / 19)


def test_a_class_that_is_predicted_but_not_there_has_an_iou_of_zero_and_no_accuracy() -> None:
    found = SegmentationScores(
        confusion_matrix(np.full((1, 4), ROAD, np.uint8), np.array([[ROAD, ROAD, ROAD, CAR]], np.uint8))
    )
    assert math.isnan(found.accuracies[CAR])
    assert found.ious[CAR] == 0
    assert found.means()["per_class"] == pytest.approx(3 / 4)
    assert found.means()["class_iou"] == pytest.approx((3 / 4 + 0) / 2)


def test_void_is_not_counted_whatever_is_read_there() -> None:
    changed = READ.copy()
    changed[TRUTH == VOID] = SKY
    np.testing.assert_array_equal(confusion_matrix(TRUTH, READ), confusion_matrix(TRUTH, changed))
    nothing = SegmentationScores(confusion_matrix(np.full((2, 2), VOID, np.uint8), np.zeros((2, 2), np.uint8)))
    assert all(math.isnan(value) for value in nothing.means().values())


def test_matrices_add_up_and_agree_with_counting_pixel_by_pixel() -> None:
    random = np.random.default_rng(0)
    truth, read = (random.integers(0, 19, (6, 9, 7)).astype(np.uint8) for _ in range(2))
    truth[random.random(truth.shape) < 0.1] = VOID
    counted = np.zeros((19, 19), int)
    for t, r in zip(truth.ravel().tolist(), read.ravel().tolist(), strict=True):
        if t != VOID:
            counted[t, r] += 1
    np.testing.assert_array_equal(confusion_matrix(truth, read), counted)
    parts = sum(confusion_matrix(truth[i], read[i]) for i in range(6))
    np.testing.assert_array_equal(parts, counted)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[4, 4\] true labels and \[2, 4\]"):
        confusion_matrix(TRUTH, READ[:2])
    with pytest.raises(ValueError, match="below 19, got 255"):
        confusion_matrix(READ, np.full((4, 4), VOID, np.uint8))
