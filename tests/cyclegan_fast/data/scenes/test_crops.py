"""Crops of scenes are what NumPy cuts out of whole images, in any number of workers and ranks, where there is data."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_fast.config.options import Config, RunConfig
from cyclegan_fast.data.known_pixels import options_of_files, with_known_pixels
from cyclegan_fast.data.scenes.crops import GridCrops
from cyclegan_fast.data.training_images import Data, check_data, open_data
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.distributed import ALONE
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.data.epochs import CONFIG
from tests.cyclegan_fast.data.scenes.made import disc, places, tissue, write_scene
from tests.cyclegan_fast.images.scenes.made import make_zarr, smaller

SIDE = 32


def opened(root: Path, **changes: Any) -> Data:
    """Open a folder of scenes as a training does, once its pixels are known."""
    placed = {name: changes.pop(name) for name in ("rank", "ranks", "paired") if name in changes}
    config = replace(CONFIG, **{"data": root, "scenes": "yes", "crops_per_epoch": 12, "cache_gib": 0.1} | changes)
    check_data(config)
    config = replace(config, **options_of_files(config, paired=False))
    return open_data(config, 5, **placed)


def epoch_of(data: Data, epoch: int = 1, first_step: int = 0) -> list[tuple[SampleArray, SampleArray]]:
    """Return the windows of A and B of each step, [N, side, side, C], as files have them, and the rest of a cut."""
    batches = []
    for batch in data.training.epoch(epoch, first_step):
        assert batch.size_A == batch.size_B == (SIDE, SIDE)
        assert not batch.crops_A[:, :2].any(), "they are cut on the host"
        sides = ((batch.pixels_A, batch.crops_A), (batch.pixels_B, batch.crops_B))
        windows_A, windows_B = (
            np.stack([one[:, ::-1] if crop[2] else one for one, crop in zip(pixels.numpy(), crops, strict=True)])
            for pixels, crops in sides
        )
        batches.append((windows_A, windows_B))
    return batches


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write two scenes in A, of which one is four times as large, and one in B, and what is no scene beside them."""
    write_scene(tmp_path / "trainA" / "0.tif", places(100, 120, number=0))
    write_scene(tmp_path / "trainA" / "sub" / "1.tif", places(200, 240, number=1))
    write_scene(tmp_path / "trainB" / "b.svs", places(90, 80, number=2))
    return tmp_path


def check_windows(windows: SampleArray, wholes: dict[int, SampleArray]) -> list[tuple[int, int, int]]:
    """Compare windows with what NumPy cuts out of whole images; their first pixels say where. Return the places."""
    found = []
    for window in windows:
        upright = window if window[0, 0, 1] < window[0, -1, 1] else window[:, ::-1]
        number = int(upright[0, 0, 2])
        (top,) = np.flatnonzero(wholes[number][:, 0, 0] == upright[0, 0, 0])
        (left,) = np.flatnonzero(wholes[number][0, :, 1] == upright[0, 0, 1])
        assert np.array_equal(upright, wholes[number][top : top + SIDE, left : left + SIDE])
        found.append((number, int(top), int(left)))
    return found


@pytest.mark.parametrize("level", [0, 1])
def test_crops_are_what_numpy_cuts_out_of_the_whole_image(root: Path, level: int) -> None:
    data = opened(root, scene_level=level, batch_size=4, crops_per_epoch=200)
    of_A = {0: places(100, 120, number=0), 1: places(200, 240, number=1)}
    of_B = {2: places(90, 80, number=2)}
    if level:
        of_A, of_B = ({number: smaller(whole) for number, whole in each.items()} for each in (of_A, of_B))
    batches = epoch_of(data)
    assert len(batches) == data.training.steps_per_epoch == 50
    cut_A = [place for windows, _ in batches for place in check_windows(windows, of_A)]
    cut_B = [place for _, windows in batches for place in check_windows(windows, of_B)]
    assert len({*cut_A}) > 180 - 60 * level
    assert len({*cut_B}) > 100 - 60 * level
    assert 0.7 < np.mean([number for number, _, _ in cut_A]) < 0.9, "the second scene has 4 of 5 pixels"


def test_a_crop_is_a_function_of_seed_epoch_and_index(root: Path) -> None:
    def flat(data: Data, epoch: int, first_step: int = 0) -> list[SampleArray]:
        return [side for step in epoch_of(data, epoch, first_step) for side in step]

    expected = flat(opened(root), 3)
    for changes in ({"workers": 1}, {"workers": 3}, {"cache_gib": 0.0}, {"workers": 2, "cache_gib": 0.0}):
        assert all(map(np.array_equal, flat(opened(root, **changes), 3), expected)), changes
    assert all(map(np.array_equal, flat(opened(root), 3, first_step=5), expected[10:])), "entered in the middle"
    assert not all(map(np.array_equal, flat(opened(root), 4), expected)), "another epoch"
    ranks = [epoch_of(opened(root, ranks=2, rank=rank, workers=2), 3) for rank in (0, 1)]
    together = [side for steps in zip(*ranks, strict=True) for step in steps for side in step]
    assert all(map(np.array_equal, together, expected)), "two ranks see what one sees"


def test_crops_lie_where_there_is_data(tmp_path: Path) -> None:
    inside = disc(120, 120, radius=40)
    masked = np.where(inside[..., None], places(120, 120, dtype="float32") + 1, np.nan).astype(np.float32)
    write_scene(tmp_path / "trainA" / "a.tif", masked)
    write_scene(tmp_path / "trainB" / "b.tif", places(90, 80))
    data = opened(tmp_path, least_data=0.7, crops_per_epoch=100)
    assert any("35% of 0.0144 million pixels are tissue or data" in line for line in data.warnings), data.warnings
    kind = data.training.config.pixel_type("A")
    held = np.nanmin(masked), np.nanmax(masked)
    assert (kind.dtype, kind.low, kind.high) == ("float32", *held), "over the values that are there"
    shares = [np.mean(window[..., 0] != kind.low) for windows, _ in epoch_of(data) for window in windows]
    assert min(shares) >= 0.7
    assert min(shares) < 0.8, "and also at the edge"
    everywhere = opened(tmp_path, least_data=0.0, crops_per_epoch=100)
    shares = [np.mean(window[..., 0] != kind.low) for windows, _ in epoch_of(everywhere) for window in windows]
    assert min(shares) < 0.3


def test_an_epoch_covers_the_data_once_by_default(tmp_path: Path) -> None:
    write_scene(tmp_path / "trainA" / "a.tif", tissue(256, 0, radius=80))
    write_scene(tmp_path / "trainB" / "b.tif", tissue(256, 1, radius=50))
    data = opened(tmp_path, crops_per_epoch=None)
    assert len(data.training.images_A) == round(disc(256, 256, radius=80).sum() / SIDE**2) == 20
    assert len(data.training.images_B) == round(disc(256, 256, radius=50).sum() / SIDE**2) == 8
    assert len(data.training) == 20
    assert data.training.config.pixel_type("A").is_rgb


def test_one_domain_may_be_of_photographs(root: Path) -> None:
    for path in (root / "trainB").iterdir():
        path.unlink()
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(root / "trainB" / "b.png")
    batch = next(opened(root).training.epoch(1))
    assert batch.pixels_A.shape == (1, SIDE, SIDE, 3)
    assert batch.pixels_B.shape == (1, 36, 36, 3), "resized, and cut on the device"


def test_a_zarr_is_cut(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    make_zarr(tmp_path / "trainA" / "a.zarr", places(100, 120), 3)
    make_zarr(tmp_path / "trainB", places(90, 80, number=2), 2)
    data = opened(tmp_path, scenes="auto")
    for windows_A, windows_B in epoch_of(data):
        check_windows(windows_A, {0: places(100, 120)})
        check_windows(windows_B, {2: places(90, 80, number=2)})


def test_micrometres_choose_the_level(root: Path) -> None:
    with tifffile.TiffFile(root / "trainB" / "b.svs") as tiff:
        assert len(tiff.pages.first.pages) == 2
    for path, apart in (("trainA/0.tif", 0.25), ("trainA/sub/1.tif", 0.5), ("trainB/b.svs", 0.5)):
        number = int(Path(path).stem) if "A" in path else 2
        size = {0: (100, 120), 1: (200, 240), 2: (90, 80)}[number]
        write_scene(
            root / path, places(*size, number=number), resolution=(1e4 / apart,) * 2, resolutionunit="CENTIMETER"
        )
    data = opened(root, microns_per_pixel=0.52, crops_per_epoch=200)
    wholes = {0: smaller(places(100, 120)), 1: places(200, 240, number=1)}
    assert {number for windows, _ in epoch_of(data) for number, _, _ in check_windows(windows, wholes)} == {0, 1}
    assert any("levels 0, 1 (micrometres a pixel: 0.5)" in line for line in data.warnings), data.warnings
    with pytest.raises(
        UserError, match=r"none of the 2 scenes in .*0.tif: it has no level of 9 micrometres a pixel: its"
    ):
        opened(root, microns_per_pixel=9.0)


def test_test_images_are_crops_side_by_side(root: Path) -> None:
    whole = write_scene(root / "testA" / "t.tif", places(100, 120))
    data = opened(root)
    held_out = data.tests.A
    assert held_out is not None
    assert isinstance(held_out.images, GridCrops)
    expected = [whole[top : top + SIDE, left : left + SIDE] for top in (0, 32, 64) for left in (0, 32, 64)]
    assert [np.array_equal(held_out.images[place], one) for place, one in enumerate(expected)] == [True] * 9
    assert len(held_out.images) == 9
    assert data.tests.B is None
    with pytest.raises(UserError, match="are no pairs: leave --pairs yes out"):
        opened(root, pairs="yes")


def test_changed_files_and_choices_are_noticed(root: Path) -> None:
    before = opened(root).training
    assert opened(root).training.fingerprint == before.fingerprint
    assert opened(root, scene_level=1).training.fingerprint != before.fingerprint
    write_scene(root / "trainA" / "0.tif", places(100, 120)[::-1])
    after = opened(root).training
    assert (after.fingerprint, after.content) != (before.fingerprint, before.content)


def broken_tile(path: Path, *, level: int = 0) -> None:
    """Overwrite the first tile of a level."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first if not level else tiff.pages.first.pages[level - 1]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)


def test_a_crop_that_cannot_be_read_is_replaced_and_named(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cyclegan_fast.images.scenes.data_mask.MASK_PIXELS", 2000)  # the second level's
    broken_tile(root / "trainB" / "b.svs")
    windows = [window for _, window in epoch_of(opened(root, crops_per_epoch=60))]
    said = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert said[0].startswith("note: skipped 1 crop that cannot be read, for others (--strict ends there): ")
    assert "b.svs" in said[0]
    assert len(said) == 2
    assert said[1].startswith("note: skipped 10 crops that")
    for window in windows:
        ((_, top, left),) = check_windows(window, {2: places(90, 80, number=2)})
        assert not (top < 32 and left < 48), "none of the tile"
    again = [window for _, window in epoch_of(opened(root, crops_per_epoch=60, workers=3))]
    assert all(map(np.array_equal, again, windows)), "by the same random numbers"
    with pytest.raises(UnreadableImage, match=r"b\.svs"):
        epoch_of(opened(root, strict=True, crops_per_epoch=60))


def test_a_scene_of_which_nothing_can_be_read_ends_the_training(root: Path) -> None:
    data = opened(root)
    (root / "trainB" / "b.svs").unlink()
    with pytest.raises(UnreadableImage, match=r"16 crops in a row cannot be read; the last: .*b.svs: No such file"):
        epoch_of(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


WRONG: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "cut off": (truncated, {}, r"0.tif: it is cut off: \d+ of the \d+ tiles of its level"),
    "no data": (
        lambda path: write_scene(path, np.full((100, 120, 3), 7, np.uint16)),
        {},
        "0.tif: it has no tissue or data anywhere",
    ),
    "little data": (
        lambda path: write_scene(path, np.pad(places(20, 20) + 1, ((40, 40), (40, 40), (0, 0)))),
        {},
        "0.tif: no crop of 32 pixels of its level 0 has tissue or data in 50% of it: lower",
    ),
    "too small": (
        lambda path: write_scene(path, places(31, 200), count=0),
        {},
        "0.tif: its level 0, 200x31, is smaller than the crop of 32: lower",
    ),
    "no such level": (
        lambda path: write_scene(path, places(100, 120), count=0),
        {"scene_level": 1},
        "0.tif: it has no level 1: its levels are 120x100",
    ),
    "no micrometres": (
        lambda path: None,
        {"microns_per_pixel": 1.0},
        "0.tif: it does not say how far apart its pixels are: give --scene-level",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_scene_that_cannot_be_cut_is_left_out_and_named(root: Path, kind: str) -> None:
    spoil, options, said = WRONG[kind]
    spoil(root / "trainA" / "0.tif")
    if kind == "no micrometres":
        written = {"resolution": (10000, 10000), "resolutionunit": "CENTIMETER"}
        write_scene(root / "trainA" / "sub" / "1.tif", places(200, 240, number=1), **written)
        write_scene(root / "trainB" / "b.svs", places(90, 80, number=2), **written)
    data = opened(root, **options)
    assert any(re.search(f"skipped .*{said}", line) for line in data.warnings), data.warnings
    assert "skipped 1 unreadable image (--strict refuses such files)" in data.warnings
    with pytest.raises(UserError, match=rf"{said}.*\(leave --strict out to skip such files\)"):
        opened(root, strict=True, **options)
    (root / "trainA" / "sub" / "1.tif").unlink()
    if kind not in ("cut off",):
        with pytest.raises(
            UserError, match=f"of none of the 1 scene in .*trainA crops can be cut; the first: .*{said}"
        ):
            opened(root, **options)


def test_scenes_of_several_kinds_are_refused(root: Path) -> None:
    write_scene(root / "trainA" / "2.tif", places(100, 120)[..., :2])
    with pytest.raises(UserError, match=r"0.tif has 3 channels of uint16, and 2.tif has 2 channels of uint16"):
        opened(root)


def test_images_beside_scenes_are_left_out(root: Path) -> None:
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(root / "trainA" / "thumbnail.png")
    line = f"left out 1 image below {root / 'trainA'} beside the scenes: thumbnail.png"
    assert line in opened(root).warnings
    with pytest.raises(UserError, match=r"thumbnail\.png .leave --strict out to go on without"):
        opened(root, strict=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preprocess": "none"}, "--preprocess none takes images as a whole: leave it out, or give --scenes no"),
        ({"scenes": "no", "crops_per_epoch": 8}, "--crops-per-epoch is for scenes, and neither training folder"),
        ({"scenes": "no", "crops_per_epoch": None, "least_data": 0.4}, "--least-data is for scenes"),
        ({"paired": True}, "trainA holds scenes, whose crops are no pairs: train with --method cyclegan"),
    ],
)
def test_options_that_do_not_go_with_scenes(root: Path, options: dict[str, Any], said: str) -> None:
    (root / "trainB" / "b.svs").rename(root / "trainB" / "b.tif")
    with pytest.raises(UserError, match=said):
        opened(root, **options)


def test_small_tiled_files_are_decoded_as_a_whole_unless_asked_otherwise(root: Path) -> None:
    (root / "trainB" / "b.svs").rename(root / "trainB" / "b.tif")
    data = opened(root, scenes="auto", crops_per_epoch=None)
    assert len(data.training) == 2
    assert next(data.training.epoch(1)).pixels_A.shape == (1, 36, 36, 3)


def test_a_large_tiff_is_a_scene_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyclegan_fast.data.scenes.finding.LARGE_PIXELS", 100 * 120)
    monkeypatch.setattr("cyclegan_fast.data.scenes.finding._LEAST_BYTES", 1000)
    write_scene(tmp_path / "trainA" / "a.tif", places(100, 120))
    write_scene(tmp_path / "trainB" / "b.tif", places(90, 80, number=2))
    data = opened(tmp_path, scenes="auto")
    batch = next(data.training.epoch(1))
    assert batch.pixels_A.shape == (1, SIDE, SIDE, 3)
    assert batch.pixels_B.shape == (1, 36, 36, 3), "small, and decoded as a whole"


def test_a_run_keeps_what_percentiles_of_its_scenes_are(root: Path) -> None:
    run = RunConfig(name="run", runs=root / "runs")
    data = replace(CONFIG, data=root, scenes="yes", range_from="data", percentiles=(0.0, 100.0))
    known = with_known_pixels(Config(data=data, run=run), ALONE, paired=False).data
    assert known.range_a == (0, 239)
    assert known.range_b == (0, 89)
    assert known.channels_a == 3
    assert known.dtype_a == "uint16"
