import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cyclegan_fast import sample_photos
from cyclegan_fast.scores import best_colour_lookup, score, table

TEST = sample_photos.make_test(64, count=3)


def test_psnr_ssim_and_l1_agree_with_scikit_image() -> None:
    found = score("x", TEST.photographs, TEST.drawings)
    pairs = list(zip(TEST.photographs, TEST.drawings, strict=True))
    assert found.psnr_db == pytest.approx(np.mean([peak_signal_noise_ratio(t, p) for p, t in pairs]))
    ssim = [
        structural_similarity(
            t, p, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        for p, t in pairs
    ]
    assert found.ssim == pytest.approx(np.mean(ssim), abs=5e-3)  # the two treat the border differently
    difference = np.abs(TEST.photographs.astype(float) - TEST.drawings)
    assert found.l1 == pytest.approx(difference.mean() / 255)
    assert score("same", TEST.drawings, TEST.drawings).ssim == pytest.approx(1)


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
    lines = table([score("one", TEST.photographs, TEST.drawings), score("another", TEST.drawings, TEST.drawings)])
    header, one, another = lines.splitlines()
    assert header.split() == ["PSNR", "(dB)", "SSIM", "L1"]
    assert one.startswith("one ")
    assert another.split()[1:] == ["100.00", "1.000", "0.000"]
