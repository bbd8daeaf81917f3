"""Streets are drawn from their seeds alone, and their labels are those of Cityscapes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import find_objects, label as components

from cyclegan_fast.datasets.streets.data_set import DRAWN, make_labels, make_street, seed_of
from cyclegan_fast.datasets.streets.layout import make_scene
from cyclegan_fast.datasets.streets.road import Road
from cyclegan_fast.datasets.streets.textures import TEXTURES
from cyclegan_fast.images.labels import TRAIN_ID, Labels, colours_of
from cyclegan_fast.street_scenes import main
from tests.cyclegan_fast.conftest import contents

MAIN = ("road", "sidewalk", "building", "vegetation", "sky", "car", "person", "pole")
SMALL = ["--size", "32", "--count", "3", "--test-count", "2"]


@pytest.fixture(scope="module")
def many() -> Labels:
    """Label maps of 80 streets, [80, 32, 32]."""
    return np.stack([make_labels(seed_of(5, "trainB", index), 32) for index in range(80)])


def test_a_street_depends_on_its_seed_alone() -> None:
    program = (
        "import hashlib; from cyclegan_fast.datasets.streets.data_set import make_street as m;"
        "s = m((3, 0, 7), 48); print(hashlib.sha256(s.photograph.tobytes() + s.labels.tobytes()).hexdigest())"
    )
    make_street((3, 0, 6), 48)  # what was drawn before does not matter
    local = make_street((3, 0, 7), 48)
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert elsewhere.strip() == hashlib.sha256(local.photograph.tobytes() + local.labels.tobytes()).hexdigest()
    np.testing.assert_array_equal(make_labels((3, 0, 7), 48), local.labels)


@pytest.mark.slow
def test_no_street_repeats_another_in_its_folder_or_in_another_one(many: Labels) -> None:
    others = [make_labels(seed_of(5, split, index), 32) for split in ("trainA", "test") for index in range(10)]
    everything = np.concatenate([many, np.stack(others)])
    assert len({labels.tobytes() for labels in everything}) == len(everything)
    # Not even nearly: the two most similar streets of the first forty still differ in a good part of the image.
    agreement = (everything[:40, None] == everything[None, :40]).mean((2, 3)) - np.eye(40)
    assert agreement.max() < 0.95


def test_labels_have_the_classes_and_colours_of_cityscapes(many: Labels) -> None:
    assert set(np.unique(many)) <= {row.train_id for row in DRAWN}
    assert {row.name for row in DRAWN if (many == row.train_id).any()} == {row.name for row in DRAWN}
    by_name = {row.name: row for row in DRAWN}
    for name, colour, train_id in (
        ("road", (128, 64, 128), 0),
        ("sidewalk", (244, 35, 232), 1),
        ("building", (70, 70, 70), 2),
        ("vegetation", (107, 142, 35), 8),
        ("sky", (70, 130, 180), 10),
        ("person", (220, 20, 60), 11),
        ("car", (0, 0, 142), 13),
        ("bicycle", (119, 11, 32), 18),
    ):
        assert (by_name[name].colour, by_name[name].train_id) == (colour, train_id)
        assert colours_of(np.array([train_id], np.uint8)).tolist() == [list(colour)]
    with pytest.raises(ValueError, match=r"\[19\]"):
        colours_of(np.array([[0, 19]], np.uint8))


def test_where_a_pixel_is_says_less_than_half_of_what_it_shows(many: Labels) -> None:
    """Translation has to look at the photograph: the best fixed label map is a poor one."""
    counts = np.stack([(many == row.train_id).sum(axis=0) for row in DRAWN])
    assert counts.max(axis=0).sum() / many.size < 0.55
    shuffled = (many == np.roll(many, 1, axis=0)).mean()
    assert shuffled < 0.45


def test_every_main_class_is_in_most_streets_and_none_takes_over(many: Labels) -> None:
    for name in MAIN:
        mine = many == TRAIN_ID[name]
        assert mine.any((1, 2)).mean() > 0.7, name
        assert 0.004 < mine.mean() < 0.4, name


@pytest.mark.parametrize("size", [32, 51, 128, 256])
def test_any_size_shows_the_same_street(size: int) -> None:
    street = make_street((0, 0, 1), size)
    assert street.photograph.shape == (size, size, 3)
    assert street.labels.shape == (size, size)
    assert street.photograph.dtype == street.labels.dtype == np.uint8
    assert street.photograph.std() > 20
    place = (np.arange(64) + 0.5) / 64
    pick = np.ix_(*[(place * size).astype(int)] * 2)
    reference = np.ix_(*[(place * 192).astype(int)] * 2)
    assert (street.labels[pick] == make_labels((0, 0, 1), 192)[reference]).mean() > 0.85
    with pytest.raises(ValueError, match="32 or more, got 31"):
        make_street((0, 0, 1), 31)


def steps_at_borders(photograph: npt.NDArray[np.uint8], labels: Labels) -> tuple[float, float]:
    """Return the mean difference in colour of neighbouring pixels of two classes, and of pixels of one class."""
    difference = np.abs(np.diff(photograph.astype(float), axis=1)).mean(axis=2)
    border = np.diff(labels.astype(int), axis=1) != 0
    return difference[border].mean(), difference[~border].mean()


def test_photograph_and_labels_show_the_same_things() -> None:
    at_border, inside, shifted = [], [], []
    for index in range(6):
        street = make_street(seed_of(1, "test", index), 96)
        across, within = steps_at_borders(street.photograph, street.labels)
        at_border.append(across)
        inside.append(within)
        shifted.append(steps_at_borders(street.photograph[:, 4:], street.labels[:, :-4])[0])
    assert np.mean(at_border) > 3 * np.mean(inside)
    assert np.mean(at_border) > 1.5 * np.mean(shifted)


def test_classes_look_different() -> None:
    """Holds in the mean over streets: grass is green, the sky is brighter than the road, and the sidewalk lighter."""
    pixels: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in (*MAIN, "terrain")}
    for index in range(20):
        street = make_street(seed_of(2, "test", index), 48)
        for name, found in pixels.items():
            found.append(street.photograph[street.labels == TRAIN_ID[name]].astype(float))
    mean = {name: np.concatenate(found).mean(axis=0) for name, found in pixels.items()}
    for name in ("vegetation", "terrain"):
        assert mean[name][1] > mean[name][0] > mean[name][2]
    assert mean["sky"].mean() > mean["sidewalk"].mean() > mean["road"].mean() > mean["vegetation"].mean()


def test_what_stands_lower_in_the_image_is_nearer_and_larger() -> None:
    below_horizon, height = [], []
    for index in range(24):
        seed = seed_of(0, "trainB", index)
        labels, camera = make_labels(seed, 96), make_scene(seed).camera
        regions, _ = components(labels == TRAIN_ID["car"])
        horizon = 48 + 96 * camera.focal * np.tan(np.arcsin(camera.axes[2, 1]))
        for number, (rows, columns) in enumerate(find_objects(regions), start=1):
            whole = rows.start > 0 and rows.stop < 96 and columns.start > 0 and columns.stop < 96
            if whole and (regions == number).sum() > 12:
                below_horizon.append((rows.stop - horizon) / camera.position[1])
                height.append(rows.stop - rows.start)
    assert len(height) > 24
    from scipy.stats import spearmanr  # here, because it takes a second of each process that collects the tests

    assert spearmanr(below_horizon, height).statistic > 0.6


def test_places_along_a_bend_are_found_again() -> None:
    for radius in (60.0, -75.0, 1e5):
        road = Road(radius, 8.0, 2.0, 0.0, 0.0, 20.0, 6.0, (True, False), 0.5, 1.0, 0)
        places = np.array([(s, t) for s in (-10.0, 0.0, 35.0) for t in (-12.0, 0.0, 5.0)])
        positions = np.array([road.place(s, t) for s, t in places])
        s, t = road.locate(positions[:, 0], positions[:, 1])
        np.testing.assert_allclose(np.stack([s, t], axis=1), places, atol=1e-6)
    names = ("sidewalk", "sidewalk", "road", "sidewalk", "terrain", "road")
    found = road.classes(np.array([0.0, 0, 0, 0, 0, 20]), np.array([-9.0, -5, 1, 5, 9, 9]))
    assert found.tolist() == [TRAIN_ID[name] for name in names]


def test_every_texture_names_its_licence() -> None:
    for texture in TEXTURES:
        assert texture.licence.startswith(("CC0", "public domain"))


def test_the_command_writes_unpaired_training_and_paired_test_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "streets"
    assert main([str(out), *SMALL]) == 0
    assert f"{out / 'trainB'}: 3 images" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "trainA").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    for index in range(2):
        street = make_street(seed_of(0, "test", index), 32)
        for folder, expected in (("testA", street.photograph), ("testB", colours_of(street.labels))):
            np.testing.assert_array_equal(np.asarray(Image.open(out / folder / f"{index:04d}.png")), expected)
    for index in range(3):
        seeds = {folder: seed_of(0, folder, index) for folder in ("trainA", "trainB")}
        photograph = np.asarray(Image.open(out / "trainA" / f"{index:04d}.png"))
        np.testing.assert_array_equal(photograph, make_street(seeds["trainA"], 32).photograph)
        own = np.asarray(Image.open(out / "trainA_labels" / f"{index:04d}.png"))
        np.testing.assert_array_equal(own, colours_of(make_labels(seeds["trainA"], 32)))
        labels = np.asarray(Image.open(out / "trainB" / f"{index:04d}.png"))
        np.testing.assert_array_equal(labels, colours_of(make_labels(seeds["trainB"], 32)))
        assert (labels != colours_of(make_labels(seeds["trainA"], 32))).any()


def test_a_second_run_completes_what_was_cut_short(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([str(whole), *SMALL]) == 0
    assert main([str(cut), *SMALL]) == 0
    for name in ("trainA/0002.png", "trainB/0000.png", "testB/0001.png"):
        (cut / name).unlink()
    (cut / "trainA" / ".0002.png.partial").write_bytes(b"half")  # what a killed write leaves
    kept = {path: path.stat().st_mtime_ns for path in cut.glob("*/*.png")}
    assert main([str(cut), *SMALL]) == 0
    assert contents(cut) == contents(whole)
    changed = {path for path, written in kept.items() if path.exists() and path.stat().st_mtime_ns != written}
    assert not changed
    assert main([str(cut), *SMALL[:2], "--count", "4", "--test-count", "2"]) == 0  # more of the same streets
    assert contents(whole).items() <= contents(cut).items()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "16"], "--size must be a whole number from 32 to 65536, got 16"),
        (["--count", "0"], "--count must be a whole number from 1 to 10^9, got 0"),
        (["--test-count", "-1"], "--test-count must be a whole number from 0 to 10^9, got -1"),
        (["--seed", "-1"], "--seed must be a whole number from 0 to 2^63 - 1, got -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main([str(tmp_path / "out"), *flags]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([str(out), *SMALL]) == 0
    before = contents(out)
    for flags, message in (
        (["--size", "48", *SMALL[2:]], '"size": 32'),
        ([*SMALL, "--seed", "1"], '"seed": 0'),
        (["--size", "32", "--count", "2", "--test-count", "2"], "trainA/0002.png"),
    ):
        capsys.readouterr()
        assert main([str(out), *flags]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert contents(out) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for path, message in ((tmp_path / "notes", "a.txt"), (tmp_path / "notes" / "a.txt", "is a file")):
        assert main([str(path), *SMALL]) == 2
        assert message in capsys.readouterr().err
    assert contents(tmp_path / "notes") == {"a.txt": b"mine"}
