"""Label maps: colours, files and folders of Cityscapes, which is laid out here in miniature."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.data.layouts import find_training_labels, is_cityscapes
from cyclegan_fast.data.test_sets import label_maps
from cyclegan_fast.data.training_images import open_data
from cyclegan_fast.images.labels import (
    CLASSES,
    PALETTE,
    TRAIN_ID,
    VOID,
    Labels,
    colours_of,
    exact_labels,
    nearest_labels,
    read_labels,
)
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.pictures import photo

ALL: Labels = np.array([[*range(19), VOID]], np.uint8)


def test_there_are_nineteen_classes_with_colours_of_their_own() -> None:
    assert [row.train_id for row in CLASSES] == list(range(19))
    assert len({row.colour for row in CLASSES}) == len({row.label_id for row in CLASSES}) == 19
    by_name = {row.name: row for row in CLASSES}
    # As the published table of labels has them.
    assert (by_name["bus"].colour, by_name["bus"].label_id, by_name["bus"].train_id) == ((0, 60, 100), 28, 15)
    assert (by_name["train"].colour, by_name["train"].label_id, by_name["train"].train_id) == ((0, 80, 100), 31, 16)
    assert (by_name["motorcycle"].colour, by_name["motorcycle"].label_id) == ((0, 0, 230), 32)


def test_colours_and_labels_are_inverse() -> None:
    np.testing.assert_array_equal(exact_labels(colours_of(ALL), "here"), ALL)
    np.testing.assert_array_equal(nearest_labels(PALETTE), np.arange(19))


def test_the_nearest_colour_is_that_of_the_least_distance() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    expected = [
        min(range(19), key=lambda k: sum((int(a) - int(b)) ** 2 for a, b in zip(pixel, CLASSES[k].colour, strict=True)))
        for pixel in pixels.reshape(-1, 3)
    ]
    np.testing.assert_array_equal(nearest_labels(pixels).ravel(), expected)


def test_void_is_void_in_true_maps_that_were_saved_with_loss(tmp_path: Path) -> None:
    labels = np.repeat(np.repeat(np.array([[0, VOID], [10, VOID]], np.uint8), 16, axis=0), 16, axis=1)
    Image.fromarray(colours_of(labels)).save(tmp_path / "1_B.jpg", quality=95)
    read = read_labels(tmp_path / "1_B.jpg")
    assert (read == labels)[:, [*range(12), *range(20, 32)]].mean() > 0.98  # but for the edge, where JPEG mixes colours
    assert VOID not in nearest_labels(colours_of(labels))  # a generated map has no void


def test_an_unknown_colour_is_named_with_its_place() -> None:
    pixels = colours_of(np.zeros((4, 5), np.uint8))
    pixels[2, 3] = (1, 2, 3)
    with pytest.raises(UserError, match=r"map.png: the colour \(1, 2, 3\) in row 2, column 3 is no class.*5\.0%"):
        exact_labels(pixels, "map.png")


def test_label_files_of_every_kind_say_the_same(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 19, (6, 8)).astype(np.uint8)
    labels[0, :3] = VOID
    ids = np.array([row.label_id for row in CLASSES], np.uint8)
    as_ids = np.where(labels == VOID, 3, ids[np.minimum(labels, 18)]).astype(np.uint8)  # 3: out of region of interest
    files = {"x_labelTrainIds.png": labels, "x_labelIds.png": as_ids, "x_color.png": colours_of(labels)}
    for name, content in files.items():
        Image.fromarray(content).save(tmp_path / name)
        np.testing.assert_array_equal(read_labels(tmp_path / name), labels)
    halved = read_labels(tmp_path / "x_color.png", size=4)
    assert halved.shape == (4, 4)
    assert {*np.unique(halved)} <= {*np.unique(labels)}  # no class between two others


def test_label_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    photo(16, seed=0).save(tmp_path / "a_labelIds.png")
    with pytest.raises(UserError, match="holds no numbers of classes"):
        read_labels(tmp_path / "a_labelIds.png")
    Image.fromarray(np.full((4, 4), 40, np.uint8)).save(tmp_path / "a_labelTrainIds.png")
    with pytest.raises(UserError, match=r"\[40\], which are no train ids"):
        read_labels(tmp_path / "a_labelTrainIds.png")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"cut\.png"):
        read_labels(tmp_path / "cut.png")


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Two views for training and two for testing, as the archives unpack, with the files that are not to be read."""
    root = tmp_path / "cityscapes"
    random = np.random.default_rng(2)
    for split, city in (("train", "aachen"), ("val", "lindau")):
        for index in range(2):
            name = f"{city}_00000{index}_000019"
            labels = random.integers(0, 19, (32, 64)).astype(np.uint8)
            ids = np.array([row.label_id for row in CLASSES], np.uint8)[labels]
            for folder in ("leftImg8bit", "gtFine"):
                (root / folder / split / city).mkdir(parents=True, exist_ok=True)
            photo(64, seed=index).resize((64, 32)).save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
            fine = root / "gtFine" / split / city
            for kind, content in (("labelIds", ids), ("color", colours_of(labels)), ("instanceIds", ids)):
                Image.fromarray(content).save(fine / f"{name}_gtFine_{kind}.png")
    return root


def test_cityscapes_is_trained_on_and_scored_as_its_archives_unpack(cityscapes: Path) -> None:
    assert is_cityscapes(cityscapes)
    data = open_data(DataConfig(data=cityscapes, load_size=36, crop_size=32, workers=0), seed=0)
    assert len(data.training.images_A) == len(data.training.images_B) == 2
    assert data.tests.A is not None
    assert data.tests.A.truth is not None
    for path in (cityscapes / "gtFine/val").rglob("*_labelIds.png"):  # exact, where colours cannot tell: a pole group
        ids = np.asarray(Image.open(path)).copy()
        ids[:8] = 18
        Image.fromarray(ids).save(path)
    labels = label_maps(data.tests, 32)
    assert (labels["B"][:, :8] == VOID).all()
    assert labels["A"].shape == (2, 32, 32)
    np.testing.assert_array_equal(labels["A"], labels["B"])
    pairs = find_training_labels(cityscapes)
    assert [pair.labels.name for pair in pairs] == [f"aachen_00000{i}_000019_gtFine_labelIds.png" for i in range(2)]


def test_a_photograph_without_labels_is_named(cityscapes: Path) -> None:
    for path in (cityscapes / "gtFine" / "train" / "aachen").glob("aachen_000001*"):
        path.unlink()
    with pytest.raises(
        UserError, match=r"aachen_000001_000019_leftImg8bit.png has no labels: .*labelIds.png is missing"
    ):
        find_training_labels(cityscapes)


def test_training_labels_lie_beside_the_photographs_or_are_pointed_at(tmp_path: Path) -> None:
    for folder in ("trainA", "elsewhere"):
        (tmp_path / folder).mkdir()
        photo(8, seed=0).save(tmp_path / folder / "1.png")
    with pytest.raises(
        UserError, match=r"put them into .*trainA_labels, each under its photograph's name, or give --labels"
    ):
        find_training_labels(tmp_path)
    assert [pair.labels for pair in find_training_labels(tmp_path, tmp_path / "elsewhere")] == [
        tmp_path / "elsewhere/1.png"
    ]
    with pytest.raises(UserError, match="no folder"):
        find_training_labels(tmp_path, tmp_path / "nowhere")


def test_ids_of_classes_are_those_that_streets_are_drawn_with() -> None:
    assert TRAIN_ID["road"] == 0
    assert TRAIN_ID["bicycle"] == 18
