"""Tissue and data are told from glass and from borders without values."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from cyclegan_fast.images.scenes.data_mask import data_mask
from cyclegan_fast.images.scenes.opening import open_scene
from tests.cyclegan_fast.images.formats.made import noise


def test_stained_tissue_on_glass(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    samples = random.integers(236, 244, (120, 160, 3), dtype=np.uint8)
    down, across = np.mgrid[:120, :160]
    tissue = (down - 50) ** 2 + (across - 70) ** 2 < 40**2
    samples[tissue] = random.integers([170, 90, 160], [180, 100, 170], (tissue.sum(), 3))
    tifffile.imwrite(path := tmp_path / "slide.tif", samples, photometric="rgb", tile=(32, 32))
    with open_scene(path) as scene:
        found = data_mask(scene)
    assert np.array_equal(found.mask, tissue)
    assert found.fraction(slice(0, 120), slice(0, 160)) == tissue.mean()
    assert found.fraction(slice(110, 120), slice(0, 160)) == 0
    assert found.fraction(slice(40, 60), slice(60, 80)) == 1


def test_glass_alone_and_a_scene_without_a_small_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).integers(236, 244, (120, 160, 3), dtype=np.uint8)
    tifffile.imwrite(path := tmp_path / "glass.tif", samples, photometric="rgb", tile=(32, 32))
    monkeypatch.setattr("cyclegan_fast.images.scenes.data_mask.MASK_PIXELS", 1000)
    with open_scene(path) as scene:
        found = data_mask(scene)
    assert not found.mask.any()
    assert found.mask.size <= 1200
    assert found.fraction(slice(0, 7), slice(150, 160)) == 0


def test_values_that_are_missing(tmp_path: Path) -> None:
    heights = noise("float32", 60, 80)
    heights[:20] = np.nan
    heights[30, 40] = -9999
    tifffile.imwrite(path := tmp_path / "dem.tif", heights, extratags=[(42113, "s", 0, "-9999", True)])
    with open_scene(path) as scene:
        mask = data_mask(scene).mask
    assert not mask[:20].any()
    assert not mask[30, 40]
    assert mask[20:].sum() == 40 * 80 - 1
    bordered = noise("uint16", 60, 80, low=1, high=9)
    bordered[:5], bordered[-3:], bordered[:, :7], bordered[:, -2:] = 0, 0, 0, 0
    bordered[30, 30] = 0  # a value of the image, which does not touch the border
    tifffile.imwrite(path := tmp_path / "bordered.tif", bordered)
    with open_scene(path) as scene:
        mask = data_mask(scene).mask
    assert np.array_equal(np.argwhere(mask)[[0, -1]], [[5, 7], [56, 77]])
    assert mask.sum() == 52 * 71
