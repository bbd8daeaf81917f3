"""Label maps are read and written in the classes and colours of Cityscapes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_ids_of_classes_are_those_that_streets_are_drawn_with() -> None:
    assert TRAIN_ID["road"] == 0
    assert TRAIN_ID["bicycle"] == 18
