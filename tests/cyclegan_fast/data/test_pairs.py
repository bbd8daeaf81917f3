"""Training on pairs, and the layout that shows both images of a pair side by side in one file."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.config.options import Preprocess
from cyclegan_fast.data.domains import open_test_sets
from cyclegan_fast.data.layouts import find_training_labels
from cyclegan_fast.data.test_sets import label_maps
from cyclegan_fast.data.training_images import Data, PairedImages, UnpairedImages, check_data, open_data
from cyclegan_fast.evaluation.fcn.judge import read_examples
from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.labels import VOID, colours_of
from cyclegan_fast.images.pixels import to_pixels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.data import epochs
from tests.cyclegan_fast.data.epochs import CONFIG, Batches, assert_same, no_image
from tests.cyclegan_fast.pictures import photo

PAIRS = 6
opened = partial(epochs.opened, paired=True)


def images_of(data: Data, epoch: int, first_step: int = 0) -> Batches:
    """Return the batches of A and B as the step gets them, uint8 [N, H, W, 3]."""
    batches = (batch.to(torch.device("cpu")) for batch in data.training.epoch(epoch, first_step))
    return [(to_pixels(real_A), to_pixels(real_B)) for real_A, real_B in batches]


def coordinates(width: int, height: int, blue: int) -> Image.Image:
    """Column in red, row in green: where a pixel of a window was before is seen from its colour."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, np.full_like(rows, blue)], axis=2).astype(np.uint8))


def pair_of(index: int, width: int = 36, height: int = 36) -> tuple[Image.Image, Image.Image]:
    return coordinates(width, height, 2 * index), coordinates(width, height, 2 * index + 1)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs whose pixels say where they are from: blue is twice the index in A, and one more in B."""
    root = tmp_path / "pairs"
    for name in ("trainA", "trainB"):
        (root / name).mkdir(parents=True)
    for index in range(PAIRS):
        for domain, image in zip("AB", pair_of(index), strict=True):
            image.save(root / f"train{domain}" / f"{index}.png")
    return root


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Writes one data set in two layouts: in two folders for each split, and side by side."""
    folders, side_by_side = tmp_path / "folders", tmp_path / "side_by_side"
    for split, count in (("train", 4), ("test", 2)):
        (side_by_side / split).mkdir(parents=True)
        for domain in "AB":
            (folders / f"{split}{domain}").mkdir(parents=True)
        for index in range(count):
            halves = [photo(60, seed=100 * ord(domain) + 10 * count + index).resize((50, 44)) for domain in "AB"]
            whole = Image.new("RGB", (100, 44))
            for place, (domain, half) in enumerate(zip("AB", halves, strict=True)):
                half.save(folders / f"{split}{domain}" / f"{index}.png")
                whole.paste(half, (50 * place, 0))
            whole.save(side_by_side / split / f"{index}.png")
    return folders, side_by_side


# --- what an epoch of pairs is -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("preprocess", get_args(Preprocess))
def test_partners_have_one_window_that_is_mirrored_or_not(pairs: Path, preprocess: str, flip: bool) -> None:
    data = opened(pairs, preprocess=preprocess, flip=flip)
    windows, mirrored = set(), set()
    for epoch in range(1, 9):
        for real_A, real_B in images_of(data, epoch):
            np.testing.assert_array_equal(real_A[..., :2], real_B[..., :2])  # the same places of both
            np.testing.assert_array_equal(real_A[..., 2] + 1, real_B[..., 2])  # of partners
            columns = real_A[0, 0, :, 0].astype(int)
            windows.add((columns.min(), real_A[0, 0, 0, 1]))
            mirrored.add(bool(columns[0] > columns[-1]))
    assert mirrored == ({True, False} if flip else {False})
    # 36x36 has 25 places for the crop, of which 48 draws find more than one
    assert (len(windows) > 5) == (preprocess in ("resize_and_crop", "crop", "scale_width_and_crop"))


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop", "none"])
def test_an_epoch_of_pairs_is_what_plain_numpy_makes_of_them(pairs: Path, preprocess: str) -> None:
    """Fixes for good which random numbers are drawn for what.

    Saved runs must go on with the images that they would have had.
    """
    expected = []
    for index in np.random.default_rng([5, 3, 0]).permutation(PAIRS):
        random = np.random.default_rng([5, 3, 1, index])
        images = [np.asarray(image) for image in pair_of(index)]
        if preprocess != "none":
            top, left = random.integers(0, 5), random.integers(0, 5)
            images = [image[top : top + 32, left : left + 32] for image in images]
        if random.random() < 0.5:
            images = [image[:, ::-1] for image in images]
        expected.append((images[0][None], images[1][None]))
    assert_same(images_of(opened(pairs, seed=5, preprocess=preprocess), 3), expected)


def test_an_epoch_visits_every_pair_once(pairs: Path) -> None:
    data = opened(pairs)
    assert len(data.training) == data.training.steps_per_epoch == PAIRS
    orders = [[int(real_A[0, 0, 0, 2]) for real_A, _ in images_of(data, epoch)] for epoch in (1, 2, 3)]
    for order in orders:
        assert sorted(order) == list(range(0, 2 * PAIRS, 2))
    assert orders[0] != orders[1] or orders[1] != orders[2]


@pytest.mark.parametrize("changes", [{"workers": 4}, {"cache_gib": 0.0}, {"workers": 3, "cache_gib": 0.0}])
def test_workers_and_cache_change_no_pixel(pairs: Path, changes: dict[str, float]) -> None:
    assert_same(images_of(opened(pairs), 2), images_of(opened(pairs, **changes), 2))


def test_an_epoch_can_be_entered_in_its_middle(pairs: Path) -> None:
    for batch_size in (1, 4):
        whole = images_of(opened(pairs, batch_size=batch_size), 5)
        assert_same(whole[1:], images_of(opened(pairs, batch_size=batch_size, workers=2), 5, first_step=1))


@pytest.mark.parametrize(("ranks", "batch_size"), [(2, 1), (3, 1), (2, 2)])
def test_ranks_together_see_the_batches_of_one(pairs: Path, ranks: int, batch_size: int) -> None:
    shares = zip(
        *(images_of(opened(pairs, ranks=ranks, rank=rank, batch_size=batch_size), 2) for rank in range(ranks)),
        strict=True,
    )
    together = [tuple(np.concatenate(domain) for domain in zip(*share, strict=True)) for share in shares]
    assert_same(together, images_of(opened(pairs, batch_size=batch_size * ranks), 2))  # type: ignore[arg-type]


def test_seed_and_epoch_change_order_and_windows(pairs: Path) -> None:
    first = np.concatenate(images_of(opened(pairs), 1))
    for other in (images_of(opened(pairs), 2), images_of(opened(pairs, seed=1), 1)):
        assert (first != np.concatenate(other)).any()


def test_the_fingerprint_is_of_the_names_and_of_what_belongs_together(pairs: Path) -> None:
    paired, unpaired = opened(pairs).training, opened(pairs, paired=False).training
    assert (type(paired), type(unpaired)) == (PairedImages, UnpairedImages)
    listing = "\n".join([*unpaired.images_A.names, "", *unpaired.images_B.names])  # as it is in older checkpoints
    assert unpaired.fingerprint == hashlib.sha256(listing.encode()).hexdigest()[:16]
    assert paired.fingerprint not in (unpaired.fingerprint, hashlib.sha256(b"").hexdigest()[:16])
    assert paired.fingerprint == opened(pairs, cache_gib=0.0).training.fingerprint
    for name in ("trainA", "trainB"):
        (pairs / name / "5.png").unlink()
    assert opened(pairs).training.fingerprint != paired.fingerprint


# --- who is whose partner ------------------------------------------------------------------------------------------


def test_partners_are_found_by_name_whatever_the_order(pairs: Path) -> None:
    expected = images_of(opened(pairs), 1)
    for index in range(PAIRS):
        (pairs / "trainA" / f"{index}.png").rename(pairs / "trainA" / f"{index}_A.png")
        (pairs / "trainB" / f"{index}.png").rename(pairs / "trainB" / f"{index}_B.bmp.png")
        with Image.open(pairs / "trainB" / f"{index}_B.bmp.png") as image:
            image.save(pairs / "trainB" / f"{index}_B.bmp")  # another format
        (pairs / "trainB" / f"{index}_B.bmp.png").unlink()
    assert_same(images_of(opened(pairs), 1), expected)


def test_cityscapes_own_folders_hold_pairs(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    kinds = (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_color"))
    for index in range(3):
        for (folder, kind), image in zip(kinds, pair_of(index), strict=True):
            place = root / folder / "train" / "aachen"
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"aachen_{index}_{kind}.png")
            image.save(place / f"aachen_{index}_{folder}_instanceIds.png")  # not to be read
    batches = images_of(opened(root), 1)
    assert len(batches) == 3
    for real_A, real_B in batches:
        np.testing.assert_array_equal(real_A + np.array([0, 0, 1], np.uint8), real_B)


def test_partners_are_in_trainA_labels_where_that_is(pairs: Path) -> None:
    """street_scenes draws trainB from other views, under the same names as trainA."""
    expected = images_of(opened(pairs), 1)
    (pairs / "trainB").rename(pairs / "trainA_labels")
    data = opened(pairs)
    assert "trainA are taken from" in data.warnings[0]
    assert_same(images_of(data, 1), expected)
    (pairs / "trainB").mkdir()
    photo(36, 0).save(pairs / "trainB" / "0.png")
    assert_same(images_of(opened(pairs), 1), expected)
    assert len(opened(pairs, paired=False).training.images_B) == 1


def test_lonely_images_are_named_at_a_glance_and_when_opened(pairs: Path) -> None:
    (pairs / "trainA" / "1.png").rename(pairs / "trainA" / "lonely.png")
    for refuse in (lambda: check_data(replace(CONFIG, data=pairs), paired=True), lambda: opened(pairs)):
        with pytest.raises(UserError, match=r"6 images.*without a partner: .*trainA/lonely.png, .*trainB/1.png$"):
            refuse()
    check_data(replace(CONFIG, data=pairs))
    opened(pairs, paired=False)


@pytest.mark.parametrize("domain", ["A", "B"])
def test_an_image_with_two_possible_partners_is_named(pairs: Path, domain: str) -> None:
    coordinates(36, 36, 0).save(pairs / f"train{domain}" / "3.bmp")
    with pytest.raises(
        UserError, match=rf"partner: none; of one name on the same side: .*train{domain}/3\.bmp, .*3\.p"
    ):
        opened(pairs)


@pytest.mark.parametrize("cache_gib", [None, 0.0])
def test_the_partner_of_an_unreadable_image_is_left_out_too(pairs: Path, cache_gib: float | None) -> None:
    no_image(pairs / "trainA" / "0.png")
    no_image(pairs / "trainB" / "3.png")
    no_image(pairs / "trainB" / "4.png")
    no_image(pairs / "trainA" / "4.png")
    data = opened(pairs, cache_gib=cache_gib)
    assert sorted(int(real_A[0, 0, 0, 2]) // 2 for real_A, _ in images_of(data, 1)) == [1, 2, 5]
    for real_A, real_B in images_of(data, 1):
        np.testing.assert_array_equal(real_A[..., 2] + 1, real_B[..., 2])
    left_out = [line for line in data.warnings if line.startswith("left out")]
    assert left_out == [
        f"left out {pairs / 'trainB' / '0.png'}: its partner {pairs / 'trainA' / '0.png'} cannot be read",
        f"left out {pairs / 'trainA' / '3.png'}: its partner {pairs / 'trainB' / '3.png'} cannot be read",
    ]
    assert any("skipped 4 unreadable" in line for line in data.warnings)
    assert_same(images_of(data, 1), images_of(opened(pairs, cache_gib=cache_gib), 1))
    with pytest.raises(UserError, match="--strict"):
        opened(pairs, strict=True)


def test_pairs_of_which_none_is_whole_are_refused(pairs: Path) -> None:
    for index in range(PAIRS):
        no_image(pairs / f"train{'AB'[index % 2]}" / f"{index}.png")
    with pytest.raises(UserError, match="of none of the 6 pairs"):
        opened(pairs)


@pytest.mark.parametrize(
    ("preprocess", "size_A", "size_B"),
    [("crop", "40x36", "36x36"), ("none", "40x36", "36x36"), ("scale_width", "36x32", "36x36")],
)
@pytest.mark.parametrize("cache_gib", [None, 0.0])
def test_partners_of_two_sizes_are_named(
    pairs: Path, preprocess: str, size_A: str, size_B: str, cache_gib: float | None
) -> None:
    coordinates(40, 36, 6).save(pairs / "trainA" / "3.png")
    for _ in range(2):  # the second time from what is kept on disk
        with pytest.raises(UserError) as refused:
            opened(pairs, preprocess=preprocess, cache_gib=cache_gib)
        assert f"{pairs / 'trainA' / '3.png'} is {size_A} and its partner" in str(refused.value)
        assert f"{pairs / 'trainB' / '3.png'} is {size_B}, prepared by --preprocess" in str(refused.value)
        assert "1 of 6 pairs" in str(refused.value)
    assert len(opened(pairs).training) == PAIRS  # resized to one size
    opened(pairs, paired=False, preprocess=preprocess)


def test_the_partner_of_an_unreadable_test_image_is_left_out_too(pairs: Path) -> None:
    for name in ("testA", "testB"):
        (pairs / name).mkdir()
        for index in range(3):
            photo(40, index).save(pairs / name / f"{index}_{name[-1]}.png")
    no_image(pairs / "testA" / "1_A.png")
    data = opened(pairs, paired=False)
    assert data.tests.B is not None
    assert data.tests.B.truth is not None
    assert [name.split()[0] for name in data.tests.B.images.names] == ["0_B.png", "2_B.png"]
    assert [name.split()[0] for name in data.tests.B.truth.names] == ["0_A.png", "2_A.png"]
    assert f"left out {pairs / 'testB' / '1_B.png'}" in "\n".join(data.warnings)


def test_the_embedded_photographs_are_no_pairs() -> None:
    for refuse in (check_data, lambda config, paired: open_data(config, 0, paired=paired)):
        with pytest.raises(UserError, match="no pairs to train on: give --data FOLDER"):
            refuse(CONFIG, paired=True)
    check_data(CONFIG)


# --- side by side --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop", "none"])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("cache_gib", [None, 0.0])
def test_halves_of_one_file_are_the_same_as_two_files(
    both: tuple[Path, Path], preprocess: str, paired: bool, cache_gib: float | None
) -> None:
    changes = {"preprocess": preprocess, "paired": paired, "cache_gib": cache_gib}
    folders, side_by_side = (opened(root, pairs="yes", **changes) for root in both)  # type: ignore[arg-type]
    assert_same(images_of(side_by_side, 1), images_of(folders, 1))
    again = opened(both[1], pairs="yes", **changes)  # type: ignore[arg-type]
    assert_same(images_of(again, 1), images_of(folders, 1))
    for ours, theirs in ((side_by_side.tests.A, folders.tests.A), (side_by_side.tests.B, folders.tests.B)):
        assert ours is not None
        assert theirs is not None
        assert ours.truth is not None
        assert theirs.truth is not None
        assert len(ours.images) == len(theirs.images) == 2
        for index in range(2):
            np.testing.assert_array_equal(ours.images[index], theirs.images[index])
            np.testing.assert_array_equal(ours.truth[index], theirs.truth[index])


def test_halves_are_kept_apart_on_disk(both: tuple[Path, Path], tmp_path: Path) -> None:
    data = opened(both[1], cache_gib=0.0, cache_dir=tmp_path / "disk")
    assert len(list((tmp_path / "disk").glob("*.pixels"))) == 4
    kinds = [line.split(" of ")[0] for line in data.warnings]
    assert kinds == ["the decoded left halves", "the decoded right halves"] * 2


def test_test_images_side_by_side_are_pairs_unless_somebody_says_otherwise(both: tuple[Path, Path]) -> None:
    tests, notes = open_test_sets(replace(CONFIG, data=both[1]))
    assert notes == []
    assert tests.A is not None
    assert tests.A.truth is not None
    expected = Image.open(both[0] / "testB" / "1.png").resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(tests.A.truth[1], np.asarray(expected))
    unpaired, _ = open_test_sets(replace(CONFIG, data=both[1], pairs="no"))
    assert unpaired.A is not None
    assert unpaired.A.truth is None


def test_val_holds_the_test_images_where_there_is_no_test(both: tuple[Path, Path]) -> None:
    root = both[1]
    (root / "val").mkdir()
    photo(48, 3).save(root / "val" / "other.png")
    with_test = opened(root).tests
    (root / "test").rename(root / "gone")
    with_val = opened(root).tests
    assert with_test.A is not None
    assert with_val.A is not None
    assert (len(with_test.A.images), len(with_val.A.images)) == (2, 1)
    (root / "val").rename(root / "gone too")
    assert opened(root).tests.A is None


def test_names_do_not_count_where_one_file_shows_both(both: tuple[Path, Path]) -> None:
    root = both[1]
    expected = images_of(opened(root), 1)
    for index, name in enumerate(("1_A.png", "1_B.png", "2.png", "3.png")):  # the first two would be partners elsewhere
        (root / "train" / f"{index}.png").rename(root / "train" / f"new {name}")
    assert_same(images_of(opened(root), 1), expected)


def test_an_odd_width_has_no_halves(both: tuple[Path, Path]) -> None:
    root = both[1]
    with_all = opened(root)
    photo(48, 0).resize((97, 44)).save(root / "train" / "odd.png")
    data = opened(root)
    assert len(data.training) == 4
    assert data.warnings == [
        f"skipped {root / 'train' / 'odd.png'}: 97 pixels wide, which does not halve into two images side by side",
        "skipped 1 unreadable image (--strict refuses such files)",
    ]
    assert_same(images_of(data, 1), images_of(with_all, 1))
    assert len(opened(root, paired=False).training) == 4
    with pytest.raises(UserError, match=r"odd\.png: 97 pixels wide"):
        opened(root, strict=True)
    with pytest.raises(UnreadableImage):
        read_image(root / "train" / "odd.png", "left")
    assert read_image(root / "train" / "odd.png").width == 97


def test_a_half_that_is_too_small_is_named(both: tuple[Path, Path]) -> None:
    photo(48, 0).resize((40, 44)).save(both[1] / "train" / "narrow.png")
    with pytest.raises(UserError, match=r"narrow\.png, left half: 20x44 is smaller than the crop"):
        opened(both[1], preprocess="crop")


def test_folders_of_domains_win_over_train(both: tuple[Path, Path]) -> None:
    folders, side_by_side = both
    expected = images_of(opened(folders), 1)
    (side_by_side / "train").rename(folders / "train")
    (side_by_side / "test").rename(folders / "test")
    photo(48, 9).save(folders / "train" / "more.png")
    assert_same(images_of(opened(folders), 1), expected)
    (folders / "trainB").rename(folders / "elsewhere")
    with pytest.raises(UserError, match=r"needs the folders trainA and trainB, or train .* missing: trainB; found: .*"):
        opened(folders)


def empty(root: Path) -> None:
    for path in (root / "train").iterdir():
        path.unlink()


def only_tests(root: Path) -> None:
    (root / "train").rename(root / "training")


@pytest.mark.parametrize("damage", [empty, only_tests])
@pytest.mark.parametrize("paired", [True, False])
def test_without_images_in_train_there_is_nothing_to_train_on(
    both: tuple[Path, Path], damage: Callable[[Path], None], paired: bool
) -> None:
    damage(both[1])
    with pytest.raises(UserError, match=r"or train with images .* missing: trainA, trainB; found: test, train"):
        check_data(replace(CONFIG, data=both[1]), paired=paired)


# --- label maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_label_maps_are_read_from_the_right_halves(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    drawn = {}
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for index in range(2):
            coarse = random.choice(np.array([0, 2, 8, 10, VOID], np.uint8), (2, 2))
            labels = coarse.repeat(16, axis=0).repeat(16, axis=1)
            whole = Image.new("RGB", (64, 32))
            whole.paste(photo(32, index), (0, 0))
            whole.paste(Image.fromarray(colours_of(labels)), (32, 0))
            whole.save(tmp_path / split / f"{index}_labelIds.{suffix}", quality=98, subsampling=0)
            drawn[split, index] = labels
    tests, _ = open_test_sets(replace(CONFIG, data=tmp_path))
    labels = label_maps(tests, 32)
    assert labels.keys() == {"A", "B"}
    examples = read_examples(tmp_path, 32, None)
    inside = np.ix_([*range(14), *range(18, 30)], [*range(2, 14), *range(18, 30)])  # JPEG mixes colours at edges
    part = inside if suffix == "jpg" else np.ix_(range(32), range(32))
    for index in range(2):
        np.testing.assert_array_equal(labels["B"][index][part], drawn["val", index][part])
        np.testing.assert_array_equal(examples.labels[index][part], drawn["train", index][part])
        photograph = np.asarray(read_image(tmp_path / "train" / f"{index}_labelIds.{suffix}"))[:, :32]
        np.testing.assert_array_equal(examples.photographs[index], photograph)
    with pytest.raises(UserError, match="leave --labels out"):
        find_training_labels(tmp_path, tmp_path / "val")


def test_a_photograph_without_halves_is_named_where_labels_are_read(both: tuple[Path, Path]) -> None:
    photo(33, 0).save(both[1] / "train" / "odd.png")
    odd = next(pair for pair in find_training_labels(both[1]) if pair.labels.name == "odd.png")
    with pytest.raises(UserError, match=r"odd\.png: 33 pixels wide"):
        odd.read(32)
