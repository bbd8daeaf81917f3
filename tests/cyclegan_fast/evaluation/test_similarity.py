"""Measures of similarity are scikit-image's, and the best lookup of colours is found."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cyclegan_fast.data import sample_photos
from cyclegan_fast.evaluation.colour_lookup import ColourLookup
from cyclegan_fast.evaluation.score_table import SCORE_COLUMNS, Score, is_better, scalars, table
from cyclegan_fast.evaluation.similarity import similarity
from cyclegan_fast.images.pixels import Pixels, as_tensor

TEST = sample_photos.make_test(64, count=3)


def best_colour_lookup(images: Pixels, truth: Pixels, levels: int = 32) -> Pixels:
    lookup = ColourLookup(levels)
    lookup.add(images, truth)
    return lookup(images)


def test_psnr_ssim_and_l1_agree_with_scikit_image() -> None:
    found = similarity(as_tensor(TEST.photographs), as_tensor(TEST.drawings))
    pairs = list(zip(TEST.photographs, TEST.drawings, strict=True))
    np.testing.assert_allclose(found.psnr_db, [peak_signal_noise_ratio(t, p) for p, t in pairs])
    options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    ssim = [structural_similarity(t, p, data_range=255, **options)[1].mean() for p, t in pairs]
    # Means over whole pictures: of scikit-image's map, whose own mean leaves out a border of 5 pixels. The two continue
    # a picture beyond its edge differently; within, the maps agree.
    np.testing.assert_allclose(found.ssim, ssim, atol=1e-3)
    difference = np.abs(TEST.photographs.astype(float) - TEST.drawings)
    np.testing.assert_allclose(found.l1, difference.mean(axis=(1, 2, 3)) / 255)
    same = similarity(as_tensor(TEST.drawings), as_tensor(TEST.drawings)).means()
    assert same == {"psnr_db": 100, "ssim": pytest.approx(1), "l1": 0}


def test_the_lookup_is_exact_for_a_transformation_of_colour_alone() -> None:
    toned = (255 - TEST.photographs // 16 * 16)[..., ::-1]
    np.testing.assert_array_equal(best_colour_lookup(TEST.photographs, np.ascontiguousarray(toned)), toned)


def test_no_other_lookup_is_nearer_to_the_truth() -> None:
    best = best_colour_lookup(TEST.photographs, TEST.drawings, levels=4)
    error = np.square(best.astype(float) - TEST.drawings).mean()
    for change in (-3, 3):
        worse = np.clip(best.astype(int) + change, 0, 255)
        assert np.square(worse.astype(float) - TEST.drawings).mean() > error


def test_the_table_has_a_row_for_each_score() -> None:
    scores = [
        Score("a2b.truth", "one", {"psnr_db": 12.345, "ssim": 0.5, "l1": 0.25}),
        Score("a2b.features", "another", {"kid": 0.01}),
    ]
    header, one, another = table(scores).splitlines()
    assert header.split() == ["PSNR,", "dB", "SSIM", "L1", "KID"]
    assert one.split() == ["one", "12.35", "0.500", "0.2500", "-"]
    assert another.split() == ["another", "-", "-", "-", "0.01"]
    assert scalars(scores)["a2b.features.kid"] == 0.01


def test_what_is_better_follows_the_metric() -> None:
    assert is_better("a2b.truth.ssim", 0.6, than=0.5)
    assert not is_better("a2b.features.kid", 0.6, than=0.5)
    assert {metric.better for metric in SCORE_COLUMNS.values()} == {"higher", "lower"}
