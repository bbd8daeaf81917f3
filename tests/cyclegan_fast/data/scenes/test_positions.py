"""Positions of crops are those where the mask has enough data, all of them, and no others."""

import numpy as np
import pytest

from cyclegan_fast.data.scenes.positions import CropPositions
from cyclegan_fast.images.scenes.data_mask import DataMask
from tests.cyclegan_fast.data.scenes.made import disc, share_of


@pytest.mark.parametrize(("scale", "least"), [(1, 0.5), (1, 1.0), (1, 0.0), (4, 0.5), (3.7, 0.8)])
def test_every_position_has_its_share_of_data(scale: float, least: float) -> None:
    side, mask = 24, disc(40, 50, radius=19)
    scene = DataMask(mask, int(40 * scale), int(50 * scale))
    positions = CropPositions(scene, side, least)
    random = np.random.default_rng(0)
    drawn = [positions.drawn(random) for _ in range(1500)]
    shares = [share_of(scene, top, left, side) for top, left in drawn]
    assert min(shares) >= least
    assert [positions.share(*place) for place in drawn] == shares
    assert all(0 <= top <= scene.height - side and 0 <= left <= scene.width - side for top, left in drawn)
    assert positions.data_pixels == pytest.approx(mask.mean() * scene.height * scene.width)
    expected = [
        (top, left)
        for top in range(0, scene.height - side + 1, side)
        for left in range(0, scene.width - side + 1, side)
        if share_of(scene, top, left, side) >= least
    ]
    assert positions.grid() == expected


def test_every_allowed_position_is_drawn_alike() -> None:
    side, mask = 8, np.zeros((14, 15), bool)
    mask[3:12, 2:9] = True
    mask[5, 5] = False
    scene = DataMask(mask, 14, 15)
    allowed = {(top, left) for top in range(7) for left in range(8) if share_of(scene, top, left, side) >= 0.6}
    positions, random = CropPositions(scene, side, 0.6), np.random.default_rng(1)
    assert len(positions) == len(allowed) > 10
    drawn = [positions.drawn(random) for _ in range(200 * len(allowed))]
    counts = {place: drawn.count(place) for place in allowed}
    assert sum(counts.values()) == len(drawn), "no others"
    assert 130 < min(counts.values()) <= max(counts.values()) < 280, "200 of each, give or take"


def test_positions_of_a_coarse_mask_lie_between_its_pixels_too() -> None:
    positions, random = CropPositions(DataMask(np.ones((10, 10), bool), 160, 160), 32, 1.0), np.random.default_rng(0)
    drawn = np.array([positions.drawn(random) for _ in range(3000)])
    assert [set(drawn[:, axis]) for axis in (0, 1)] == [set(range(129))] * 2


def test_a_mask_without_data_has_no_positions() -> None:
    assert len(CropPositions(DataMask(np.zeros((10, 10), bool), 40, 40), 16, 0.01)) == 0
