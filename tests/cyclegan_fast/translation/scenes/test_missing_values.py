"""Scenes with pixels without a value: NaN alone is refused, and what is missing is counted wherever it lies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.translate import main
from cyclegan_fast.translation.strips.resnet import TiledTranslator
from tests.cyclegan_fast.pictures import names
from tests.cyclegan_fast.translations import make_generator

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Returns the flags for a network from one channel of float32 to one."""
    (tmp_path / "scratch").mkdir()
    torch.save(to_original(make_generator(0, blocks=1, channels=(1, 1)).state_dict()), tmp_path / "latest_net_G.pth")
    places = ["--checkpoint", tmp_path / "latest_net_G.pth", "--out", tmp_path / "out"]
    kind = ["--dtype", "float32", "--range", "0", "4", "--target-dtype", "float32", "--target-range", "-1", "1"]
    more = ["--scratch", str(tmp_path / "scratch"), "--device", "cpu", "--no-contact-sheet"]
    return [*map(str, places), "--tile", "--pyramid", "all", *kind, *more]


def write(path: Path, values: SampleArray, **options: Any) -> str:
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    return str(path)


@pytest.mark.parametrize("empty", ["NaN", "no data"])
def test_a_scene_without_any_value_is_no_image(
    tmp_path: Path, flags: list[str], empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.full((300, 32), np.nan if empty == "NaN" else -7, np.float32)
    options = {} if empty == "NaN" else {"extratags": [(42113, "s", 0, "-7", True)]}
    nothing = write(tmp_path / "nothing.tif", values, tile=(16, 16), **options)
    values[299, 31] = 1
    something = write(tmp_path / "something.tif", values, tile=(16, 16), **options)
    assert main([nothing, something, *flags]) == 0
    said = capsys.readouterr()
    assert f"skipped {nothing}: all its values are NaN" in said.err
    assert "translated 1 image" in said.out
    assert names(tmp_path / "out") == {"something.tif"}
    for more in ([], ["--strict"], ["--mask", "data"]):
        assert main([nothing, *flags, *more]) == 2
        assert f"{nothing}: all its values are NaN" in capsys.readouterr().err
    assert names(tmp_path / "scratch") == set()


def test_rows_of_nan_alone_count(
    tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TiledTranslator, "strip_rows", lambda self, width: 8)
    values = np.random.default_rng(0).uniform(0, 4, (80, 32)).astype(np.float32)
    values[:40] = np.nan
    assert main([write(tmp_path / "scene.tif", values, tile=(16, 16)), *flags]) == 0
    assert "note: 1 of 1 image holds NaN, 50 % of all values" in capsys.readouterr().err
    assert np.array_equal(np.isnan(tifffile.imread(tmp_path / "out" / "scene.tif")), np.isnan(values))


def test_a_scene_that_is_refused_leaves_no_scratch_files(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.random.default_rng(0).uniform(0, 4, (80, 32)).astype(np.float32)
    values[70, 5] = np.inf
    scene = write(tmp_path / "scene.tif", values, tile=(16, 16))
    assert main([scene, *flags]) == 2
    assert "values are infinite: write NaN where nothing was measured" in capsys.readouterr().err
    assert names(tmp_path / "scratch") == set()
