"""Scenes that somebody replaces while a training reads them are named, whatever their new size."""

from pathlib import Path

import numpy as np
import pytest

from cyclegan_fast.config.data_options import DataConfig
from cyclegan_fast.data.layouts import Place
from cyclegan_fast.data.scenes.finding import find_scenes_in
from cyclegan_fast.data.scenes.scene_folder import SceneDomain, SceneFolder
from cyclegan_fast.images.pixel_type import RGB
from cyclegan_fast.images.scenes.scene import TileCache
from cyclegan_fast.images.unreadable import UnreadableImage
from tests.cyclegan_fast.data.scenes.made import places, write_scene


@pytest.mark.parametrize("size", [(40, 120), (200, 240)])
def test_a_replaced_scene_is_named(tmp_path: Path, size: tuple[int, int]) -> None:
    write_scene(path := tmp_path / "0.tif", whole := places(100, 120, dtype="uint8"))
    config = DataConfig(scenes="yes", least_data=0.0)
    found = find_scenes_in(Place(tmp_path), config)
    assert found is not None
    scenes = SceneFolder(tmp_path, found, SceneDomain(config, "A", RGB, 32), TileCache(2**20))
    write_scene(path, places(*size, dtype="uint8", number=1))
    with pytest.raises(UnreadableImage, match=r"0\.tif: its level 0 has another size than when the training began"):
        scenes.crop(0, 60, 80)
    write_scene(path, whole)
    assert np.array_equal(scenes.crop(0, 60, 80), whole[60:92, 80:112])
