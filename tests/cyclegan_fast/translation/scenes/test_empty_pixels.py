"""Empty pixels of a scene get one value with --mask, and all others are as without it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.images.formats.stored import FilePlace
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.scenes.scene import SceneLayout
from cyclegan_fast.translate import main
from cyclegan_fast.translation.scenes import pyramid
from cyclegan_fast.translation.scenes.empty_pixels import value_of_empty
from tests.cyclegan_fast.pictures import names
from tests.cyclegan_fast.translation.scenes.ended import ended_at, is_ended
from tests.cyclegan_fast.translations import make_generator, picture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def flags(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(pyramid, "TILE", 16)
    (tmp_path / "scratch").mkdir()
    places = ["--checkpoint", weights, "--out", tmp_path / "out", "--scratch", tmp_path / "scratch"]
    return [*map(str, places), "--tile", "--device", "cpu"]


def translated(tmp_path: Path, arguments: list[str]) -> SampleArray:
    """Run the command, and return the translation."""
    assert main([*arguments, "--overwrite"]) == 0
    found: SampleArray = tifffile.imread(tmp_path / "out" / "scene.tif")
    return found


def test_glass_becomes_white_and_tissue_stays(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    image = random.integers(236, 244, (120, 160, 3), dtype=np.uint8)
    down, across = np.mgrid[:120, :160]
    tissue = (down - 50) ** 2 + (across - 70) ** 2 < 40**2
    image[tissue] = random.integers([170, 90, 160], [180, 100, 170], (tissue.sum(), 3))
    tifffile.imwrite(tmp_path / "scene.tif", image, photometric="rgb", tile=(32, 32))
    command = [str(tmp_path / "scene.tif"), *flags]
    plain = translated(tmp_path, command)
    masked = translated(tmp_path, [*command, "--mask", "data"])
    distance = np.hypot(down - 50, across - 70)
    assert np.array_equal(masked[tissue], plain[tissue])
    assert (masked[distance > 43] == 255).all()
    assert (plain[distance > 43] != 255).any()
    share = 100 * (masked == 255).all(-1).mean()
    assert f"scene.tif: {share:.3g} % of its pixels are empty: 255 was written there" in capsys.readouterr().err


def test_a_value_for_no_data_is_kept_with_its_tag_and_the_place(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Takes uint16 of two bands; pixels where both are 0 are no data, also where the network gives 0 elsewhere."""
    torch.save(to_original(make_generator(0, blocks=1, channels=(2, 1)).state_dict()), flags[1])
    values = np.random.default_rng(0).integers(1, 5000, (60, 48, 2)).astype(np.uint16)
    values[:20] = values[30:32, 5:9] = 0
    values[40, 40, 0] = 0  # one band alone
    place = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True), (42113, "s", 0, "0", True)]
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16)}
    tifffile.imwrite(tmp_path / "scene.tif", values, extratags=place, **options)
    given = ["--dtype", "uint16", "--range", "0", "5000", "--target-dtype", "int16", "--target-range", "-50", "50"]
    command = [str(tmp_path / "scene.tif"), *flags, *given]
    plain = translated(tmp_path, command)
    capsys.readouterr()
    masked = translated(tmp_path, [*command, "--mask", "data"])
    empty = (values == 0).all(-1)
    assert (masked[empty] == 0).all()
    assert np.array_equal(masked[~empty], plain[~empty])
    said = capsys.readouterr().err
    assert f"{100 * empty.mean():.3g} % of its pixels are empty: 0 was written there" in said
    equal = int((plain[~empty] == 0).sum())
    assert equal > 1
    assert f"{equal} other pixels became 0, too, the file's value for no data" in said
    with tifffile.TiffFile(tmp_path / "out" / "scene.tif") as tiff:
        tags = tiff.pages.first.tags
        assert (tags[42113].value, tags[33550].value) == ("0", (10.0, 10.0, 0.0))
        smaller = tiff.series[0].levels[1].asarray()
    assert (smaller[:10] == 0).all()
    assert (smaller[15, 3:4] == 0).all(), "where one of four has no data"


def test_floating_point_values_with_and_without_one_for_no_data(tmp_path: Path, flags: list[str]) -> None:
    torch.save(to_original(make_generator(0, blocks=1, channels=(2, 1)).state_dict()), flags[1])
    heights = np.random.default_rng(0).uniform(0, 4, (40, 48, 2)).astype(np.float32)
    heights[:12], heights[20, 5, 1], heights[20, 6, 0] = np.nan, np.nan, -9999
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16)}
    given = ["--dtype", "float32", "--range", "0", "4", "--target-dtype", "float32", "--target-range", "-1", "1"]
    command = [str(tmp_path / "scene.tif"), *flags, *given]
    for tags, value in (([], np.nan), ([(42113, "s", 0, "-9999", True)], -9999)):
        tifffile.imwrite(tmp_path / "scene.tif", heights, extratags=tags, **options)
        plain = translated(tmp_path, command)
        masked = translated(tmp_path, [*command, "--mask", "data"])
        empty = np.isnan(heights).any(-1) | ((heights == value).any(-1) if tags else False)
        assert np.array_equal(masked, np.where(empty, np.float32(value), plain), equal_nan=True)
        assert empty[20, 5]
        assert np.isnan(plain[empty]).all(), "without the flag NaN stands there"


def test_what_is_written_where_there_is_nothing() -> None:
    def value(no_data: float | None, kind: PixelType) -> tuple[float, bool]:
        layout = SceneLayout(((8, 8),), 1, np.dtype("uint8"), 8, place=FilePlace(no_data=no_data))
        return value_of_empty(layout, kind)

    assert value(None, PixelType()) == (255, False)
    assert value(0.0, PixelType()) == (0, True)
    assert value(-9999.0, PixelType()) == (255, False), "8 bits do not hold it"
    assert value(None, PixelType(1)) == (0, False)
    assert value(0.5, PixelType(1, "int16", -1000.5, 3000)) == (-1000, False)
    assert value(-32768.0, PixelType(1, "int16", -1000, 3000)) == (-32768, True)
    assert value(-9999.1, PixelType(1, "float32", 0, 1)) == (-9999.1, True)
    assert np.isnan(value(None, PixelType(1, "float32", 0, 1))[0])
    assert np.isnan(value(1e300, PixelType(1, "float32", 0, 1))[0])


def test_half_a_level_of_values_for_no_data() -> None:
    values = np.array([[[-9999.0], [1], [2], [4]], [[3], [1], [2], [4]]], np.float32)
    assert pyramid.half_sized(values, -9999.0).ravel().tolist() == [-9999, 3]


def test_a_masked_translation_continues_with_the_same_bytes_after_kill_9(tmp_path: Path, flags: list[str]) -> None:
    image = picture(76, 52)
    image[:30] = 0
    tags = [(42113, "s", 0, "0", True)]
    tifffile.imwrite(tmp_path / "scene.tif", image, photometric="rgb", tile=(16, 16), extratags=tags)
    command, translation = [str(tmp_path / "scene.tif"), *flags, "--mask", "data"], tmp_path / "out" / "scene.tif"
    assert main(command) == 0
    expected = translation.read_bytes()
    translation.unlink()
    assert is_ended(ended_at(300, command))
    assert not translation.exists()
    assert main(command) == 0
    assert translation.read_bytes() == expected
    assert names(tmp_path / "scratch") == set()


def test_what_is_no_scene_is_refused(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", picture(32, 32), photometric="rgb")
    command = [str(tmp_path / "plain.tif"), *flags, "--mask", "data"]
    assert main(command) == 2
    assert "plain.tif is translated as a whole: leave it out, or give --tile --pyramid all" in capsys.readouterr().err
    assert main([*command, "--pyramid", "all"]) == 0
