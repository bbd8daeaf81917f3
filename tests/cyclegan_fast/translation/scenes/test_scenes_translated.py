"""Scenes are translated from file to file with the bits of one pass, and continue wherever they were ended."""

import random
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.images.formats.stored import FilePlace
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.pixels import to_pixels
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.translate import main
from cyclegan_fast.translation.scenes import pyramid
from cyclegan_fast.translation.scenes.kept_scratch import PEAK_OF_KEPT, KeptScratchFile, paths_of_kept
from cyclegan_fast.translation.strips.resnet import TiledTranslator
from cyclegan_fast.translation.strips.rows import Statistics
from tests.cyclegan_fast.images.scenes.made import make_pyramid, make_zarr
from tests.cyclegan_fast.pictures import draw_all, names, pixels_of
from tests.cyclegan_fast.translation.scenes.ended import ended_at, is_ended
from tests.cyclegan_fast.translations import CPU, make_generator, picture

pytestmark = pytest.mark.usefixtures("one_thread")


def levels_of(path: Path) -> list[SampleArray]:
    """Return the levels of a translation, as tifffile reads them."""
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        assert all(level.keyframe.is_tiled for level in tiff.series[0].levels)
        return [level.asarray() for level in tiff.series[0].levels]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes translations of several tiles of small scenes."""
    monkeypatch.setattr(pyramid, "TILE", 16)


@pytest.fixture
def flags(tmp_path: Path, weights: Path) -> list[str]:
    (tmp_path / "scratch").mkdir()
    places = ["--checkpoint", weights, "--out", tmp_path / "out", "--scratch", tmp_path / "scratch"]
    return [*map(str, places), "--tile", "--device", "cpu"]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("rows", [26, 50])
def test_a_scene_has_the_bits_of_one_pass(
    tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    image = picture(75, 50)
    make_pyramid(scene := tmp_path / "scene.tif", image, photometric="rgb", tile=(16, 32), compression="zlib")
    tifffile.imwrite(whole := tmp_path / "whole.tif", image, photometric="rgb")
    monkeypatch.setattr(TiledTranslator, "strip_rows", lambda self, width: rows)
    assert main([str(scene), str(whole), *flags]) == 0
    translated = levels_of(tmp_path / "out" / "scene.tif")
    assert np.array_equal(translated[0], pixels_of(tmp_path / "out" / "whole.png"))
    assert translated[0].std() > 10
    assert [level.shape for level in translated] == [(75, 50, 3), (37, 25, 3), (18, 12, 3), (9, 6, 3)]
    for larger, smaller in pairwise(translated):
        height, width = smaller.shape[:2]
        four = larger[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).astype(float).mean((1, 3))
        assert np.array_equal(smaller, np.floor(four + 0.5))
    assert names(tmp_path / "scratch") == set()


@pytest.mark.usefixtures("small_tiles")
def test_samples_of_other_types_and_their_place(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Takes floating-point heights with NaN and a place on the Earth, in two channels; three come out."""
    network = make_generator(0, blocks=1, channels=(2, 3))
    torch.save(to_original(network.state_dict()), tmp_path / "latest_net_G.pth")
    heights = np.random.default_rng(0).uniform(-1, 5, (40, 36, 2)).astype(np.float32)
    heights[3:5, 7:9] = np.nan
    place = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)]
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "extratags": place}
    tifffile.imwrite(tmp_path / "scene.tif", heights, tile=(16, 16), **options)
    tifffile.imwrite(tmp_path / "whole.tif", heights, **options)
    given = ["--dtype", "float32", "--range", "0", "4", "--target-dtype", "float32", "--target-range", "-1", "1"]
    flags[flags.index("--checkpoint") + 1] = str(tmp_path / "latest_net_G.pth")
    for name in ("scene", "whole"):
        assert main([str(tmp_path / f"{name}.tif"), *flags, *given, "--no-contact-sheet"]) == 0
    scene, whole = (tifffile.TiffFile(tmp_path / "out" / f"{name}.tif") for name in ("scene", "whole"))
    with scene, whole:
        actual, expected = scene.series[0].levels[0].asarray(), whole.asarray()
        assert np.array_equal(actual, expected, equal_nan=True)
        assert np.isnan(actual).any(-1).sum() == 4
        assert scene.pages.first.tags[33550].value == (10.0, 10.0, 0.0)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: 1 of 1")]
    assert len(notes) == 4
    assert notes[:2] == notes[2:]


def test_zarr_is_a_scene(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("zarr")
    make_zarr(scene := tmp_path / "scene.zarr", picture(75, 50), 3)
    tifffile.imwrite(whole := tmp_path / "whole.tif", picture(75, 50), photometric="rgb")
    assert main([str(scene), str(whole), *flags]) == 0
    assert np.array_equal(levels_of(tmp_path / "out" / "scene.tif")[0], pixels_of(tmp_path / "out" / "whole.png"))
    assert main([str(scene), *[flag for flag in flags if flag not in ("--tile",)][:4]]) == 2
    assert "scene.zarr is a scene, which is translated at its own size, into a TIFF: give --tile" in (
        capsys.readouterr().err
    )


def test_what_is_a_scene_is_said_by_a_flag(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(plain := tmp_path / "plain.tif", picture(75, 50), photometric="rgb")
    tifffile.imwrite(tiled := tmp_path / "tiled.tif", picture(300, 16), photometric="rgb", tile=(16, 16))
    assert main([str(plain), *flags, "--pyramid", "all"]) == 0
    assert len(levels_of(tmp_path / "out" / "plain.tif")) == 1, "it is no larger than a tile"
    assert main([str(tiled), *flags, "--pyramid", "none"]) == 0
    assert len(levels_of(tmp_path / "out" / "tiled.tif")) == 1
    assert main([str(tiled), *flags, "--overwrite"]) == 0
    assert len(levels_of(tmp_path / "out" / "tiled.tif")) == 2
    assert main([str(tiled), *flags, "--format", "png"]) == 0
    assert pixels_of(tmp_path / "out" / "tiled.png").shape == (300, 16, 3)
    capsys.readouterr()
    assert main([str(tiled), *flags[:-3], "--device", "cpu", "--pyramid", "all"]) == 2
    assert "give both or neither" in capsys.readouterr().err


def test_further_pages_and_damage_are_told(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with tifffile.TiffWriter(pages := tmp_path / "pages.tif") as tiff:
        for seed in range(3):
            tiff.write(picture(48, 32, seed), photometric="rgb", tile=(16, 16))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(pages.read_bytes()[:4000])
    assert main([str(pages), str(cut), *flags]) == 0
    said = capsys.readouterr()
    assert f"note: {pages}: the first of 3 pages is read" in said.err
    assert f"skipped {cut}: " in said.err
    assert "translated 1 image" in said.out
    assert main([str(pages), *flags, "--strict", "--overwrite"]) == 2
    assert "the first of 3 pages is read (leave --strict out to take that)" in capsys.readouterr().err


# --- a translation that is ended -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("count", [1, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("architecture", "most"), [("resnet", 500), ("unet", 90)])
def test_a_translation_continues_with_the_same_bytes_after_kill_9(
    tmp_path: Path, flags: list[str], architecture: str, most: int, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    if architecture == "unet":
        torch.manual_seed(0)
        torch.save(to_original(UnetGenerator(halvings=5, width=4).state_dict()), flags[1])
    tifffile.imwrite(scene := tmp_path / "scene.tif", picture(76, 52), photometric="rgb", tile=(16, 16))
    scratch, translation = tmp_path / "scratch", tmp_path / "out" / "scene.tif"
    command = [str(scene), *flags]
    assert main(command) == 0
    expected = translation.read_bytes()
    translation.unlink()
    draws = random.Random(7)
    skipped = []
    for write in [draws.randrange(20, most) for _ in range(count)]:
        ends = 0
        while is_ended(ended_at(write, command)) and ends < 2:
            ends += 1
            assert not translation.exists()
            assert len(names(scratch)) <= 2
        capfd.readouterr()
        if not translation.exists():
            assert main(command) == 0
            said = capfd.readouterr().out
            skipped += [int(line.split()[-6]) for line in said.splitlines() if "passes are there from before" in line]
        assert translation.read_bytes() == expected, f"ended {ends} times at write {write}"
        assert names(scratch) == set()
        translation.unlink()
    assert count == 1 or max(skipped) > 2, "some passes were not made again"


@pytest.mark.usefixtures("small_tiles")
def test_another_scene_or_other_weights_begin_anew(tmp_path: Path, flags: list[str]) -> None:
    tifffile.imwrite(scene := tmp_path / "scene.tif", picture(76, 52), photometric="rgb", tile=(16, 16))
    assert is_ended(ended_at(150, [str(scene), *flags]))
    tifffile.imwrite(scene, picture(76, 52, seed=1), photometric="rgb", tile=(16, 16))
    assert main([str(scene), *flags]) == 0
    first = levels_of(tmp_path / "out" / "scene.tif")[0]
    assert len(names(tmp_path / "scratch")) == 2, "those of the other scene, which may come back"
    network = make_generator(0)
    expected = to_pixels(
        torch.cat([*TiledTranslator(network, CPU, torch.float32, tmp_path).strips(picture(76, 52, seed=1))], 2)
    )
    assert np.abs(first.astype(int) - expected[0]).max() <= 1  # the command's convolutions add up in another order


def test_two_processes_do_not_share_a_scratch_file(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    tifffile.imwrite(scene := tmp_path / "scene.tif", picture(76, 52), photometric="rgb", tile=(16, 16))
    assert is_ended(ended_at(150, [str(scene), *flags]))
    (kept,) = (tmp_path / "scratch").glob("*.activations")
    with open(kept, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main([str(scene), *flags]) == 2
        assert f"another process is at this translation, with {kept}" in capsys.readouterr().err
    kept.with_suffix(".json").write_text("{")
    assert main([str(scene), *flags]) == 2
    assert "is damaged: remove it, and the translation begins anew" in capsys.readouterr().err


def test_a_journal_whose_rows_are_gone_goes_too(tmp_path: Path) -> None:
    # Rows that a killed process wrote after that would be taken for those of the journal.
    file, journal = paths_of_kept(tmp_path, "name")
    with KeptScratchFile(tmp_path, 8, "name", CPU, torch.float32) as kept:
        kept.write(np.ones(8, np.uint8))
        kept.passed(Statistics())
    assert (file.stat().st_size, journal.exists()) == (8, True)
    file.write_bytes(b"")
    with KeptScratchFile(tmp_path, 8, "name", CPU, torch.float32) as kept:
        assert not journal.exists()
        assert kept.skipped == 0


def test_the_disk_needed_is_known_beforehand(tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    peaks: list[int] = []
    leave = KeptScratchFile.__exit__

    def record(self: KeptScratchFile, *error: Any) -> None:
        peaks.append(self.peak_bytes)
        leave(self, *error)

    monkeypatch.setattr(KeptScratchFile, "__exit__", record)
    tifffile.imwrite(scene := tmp_path / "scene.tif", picture(76, 52), photometric="rgb", tile=(16, 16))
    assert main([str(scene), *flags]) == 0
    translator = TiledTranslator(make_generator(0), CPU, torch.float32, tmp_path)
    assert peaks == [PEAK_OF_KEPT * translator.scratch_bytes(76, 52)]


def test_nan_stays_since_a_later_value_may_be_the_one_for_no_data(tmp_path: Path) -> None:
    values = np.zeros((20, 30, 1), np.float32)
    values[:5] = np.nan
    place = FilePlace(((42113, 2, 2, "0\0"), (33550, 12, 3, (1.0, 1.0, 0.0))), 0.0)
    with open(tmp_path / "a.tif", "wb") as file:
        kind = PixelType(1, "float32", 0, 1)
        pyramid.write_pyramid(file, np.split(values, 4), (20, 30), kind, place, tmp_path)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert np.array_equal(tiff.asarray(), values[..., 0], equal_nan=True)
        assert [code in tiff.pages.first.tags for code in (42113, 33550)] == [False, True]


def test_what_the_disk_has_no_room_for_in_strips_is_left_out(
    tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name, height in (("a", 32), ("b", 96), ("c", 48)):
        make_pyramid(tmp_path / "in" / f"{name}.tif", picture(height, 48), photometric="rgb", tile=(16, 16))
    draw_all(tmp_path / "in", {"d.png": (48, 160), "e.png": (48, 32)})
    translator = TiledTranslator(make_generator(0), CPU, torch.float32, tmp_path)
    free = PEAK_OF_KEPT * translator.scratch_bytes(60, 48)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    assert main([str(tmp_path / "in"), *flags, "--no-contact-sheet"]) == 1
    assert names(tmp_path / "out") == {"a.tif", "c.tif", "e.png"}
    error = capsys.readouterr().err
    for name, size in (("b.tif", "48x96"), ("d.png", "48x160")):
        assert f"left out {tmp_path / 'in' / name}: translating {size} in strips needs " in error
    assert "give a folder on a larger disk by --scratch, or a smaller --size\nerror: 2 images did not fit" in error
    assert main([str(tmp_path / "in"), *flags, "--no-contact-sheet", "--strict"]) == 2
    assert names(tmp_path / "scratch") == set()
