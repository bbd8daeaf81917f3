"""Cityscapes is read as its archives unpack, which are laid out here in miniature, and labels are found in folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.data.layouts import find_training_labels, is_cityscapes
from cyclegan_fast.data.test_sets import label_maps
from cyclegan_fast.data.training_images import open_data
from cyclegan_fast.images.labels import CLASSES, VOID, colours_of
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.pictures import photo


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Writes two views for training and two for testing as the archives unpack, with files that are not to be read."""
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
