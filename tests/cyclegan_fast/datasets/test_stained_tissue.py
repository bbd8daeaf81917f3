"""Holds tests of stained tissue: the truth against scikit-image's, which pixels are shown where, what is refused."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.color import hdx_from_rgb, separate_stains

from cyclegan_fast import stained_tissue
from cyclegan_fast.data.pairs import names_say_pairs
from cyclegan_fast.datasets.stains import Tissue, cells_of, cut_training_tiles, held_out, read_tissue, stain_densities
from cyclegan_fast.images.pixel_type import DomainName
from tests.cyclegan_fast.conftest import contents

FOLDERS = ["quarterA", "quarterB", "testA", "testB", "trainA", "trainB"]


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return read_tissue()


def numbered() -> Tissue:
    """Return squares like the tissue whose samples are the number of their pixel: in three digits, and as it is."""
    numbers = np.arange(512 * 512).reshape(512, 512)
    colours = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=-1).astype(np.uint8)
    return Tissue(colours, np.stack([numbers, -numbers], axis=-1).astype(np.float32))


def numbers_in(samples: np.ndarray) -> np.ndarray:
    """Return the numbers of the pixels of a tile of `numbered`."""
    if samples.shape[-1] == 2:
        np.testing.assert_array_equal(samples[..., 0], -samples[..., 1])
        return samples[..., 0].astype(int)
    return (samples.astype(int) * [1 << 16, 1 << 8, 1]).sum(axis=-1)


def tiles_of(domain: DomainName, *, region: DomainName | None = None, seed: int = 0) -> list[np.ndarray]:
    return [*cut_training_tiles(numbered(), domain, 72, 60, seed, region=region)]


# --- the truth -------------------------------------------------------------------------------------------------------


def test_densities_are_those_of_scikit_image(tissue: Tissue) -> None:
    """Compares all pixels but the 9 with a level of 0; scikit-image gives logarithms to the base of a millionth."""
    of_skimage = separate_stains(tissue.colours, hdx_from_rgb) * 6
    dark = (tissue.colours == 0).any(axis=-1)
    assert dark.sum() == 9
    np.testing.assert_allclose(tissue.densities[~dark], of_skimage[~dark][:, :2], rtol=1e-6, atol=1e-6)
    assert tissue.densities.dtype == np.float32
    assert np.isfinite(tissue.densities).all()
    assert tissue.densities.min() == 0


def test_densities_of_mixed_stains_are_found_again() -> None:
    """Mixes stains by Beer and Lambert's law, written out for each colour, and rounds to levels of 255."""
    haematoxylin, dab = np.meshgrid(np.linspace(0, 0.6, 13), np.linspace(0, 0.6, 13))
    vectors = {"red": (0.650, 0.268), "green": (0.704, 0.570), "blue": (0.286, 0.776)}
    levels = [255 * 10 ** -(h * haematoxylin + d * dab) for h, d in vectors.values()]
    found = stain_densities(np.rint(np.stack(levels, axis=-1)).astype(np.uint8))
    np.testing.assert_allclose(found, np.stack([haematoxylin, dab], axis=-1), atol=0.015)
    rounding = np.abs(found - np.stack([haematoxylin, dab], axis=-1)).max()
    assert rounding > 1e-4, "levels are whole numbers, so that this is no identity"


# --- regions ---------------------------------------------------------------------------------------------------------


def test_no_pixel_is_shown_by_two_of_the_three_parts() -> None:
    shown = {
        "A": {*chain.from_iterable(numbers_in(tile).ravel() for tile in tiles_of("A"))},
        "B": {*chain.from_iterable(numbers_in(tile).ravel() for tile in tiles_of("B"))},
        "test": {*numbers_in(held_out(numbered()).colours).ravel()},
    }
    assert not shown["A"] & shown["B"]
    assert not (shown["A"] | shown["B"]) & shown["test"]
    assert shown["test"] == {row * 512 + column for row in range(256, 512) for column in range(256, 512)}
    assert len(cells_of("A")) == len(cells_of("B")) == 6
    for domain in ("A", "B"):
        assert len(shown[domain]) > 0.75 * 6 * 128 * 128, "ten tiles of each cell show most of it"


def test_tiles_are_squares_of_neighbours_turned_and_mirrored() -> None:
    seen = set()
    for tile in map(numbers_in, tiles_of("A")):
        down, right = int(tile[1, 0] - tile[0, 0]), int(tile[0, 1] - tile[0, 0])
        assert {abs(down), abs(right)} == {1, 512}
        rows, columns = np.indices(tile.shape)
        np.testing.assert_array_equal(tile, tile[0, 0] + rows * down + columns * right)
        seen.add((down, right))
    assert len(seen) == 8


def test_pairs_show_the_same_pixels_and_others_do_not() -> None:
    A = [numbers_in(tile) for tile in tiles_of("A")]
    for tile, partner in zip(A, tiles_of("B", region="A"), strict=True):
        np.testing.assert_array_equal(tile, numbers_in(partner))
    assert not np.array_equal(A, [numbers_in(tile) for tile in tiles_of("A", seed=1)])


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_same_files_each_time(
    tmp_path: Path, tissue: Tissue, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    arguments = ["--side", "40", "--count", "7"]
    assert stained_tissue.main([str(first), *arguments]) == 0
    assert f"{first}/trainB: 7 images\n" in capsys.readouterr().out
    second.mkdir()
    (second / "trainA").mkdir()
    (second / "trainA" / "0000.png").write_bytes(b"cut off")  # a set that was cut short is made whole
    (second / "trainA" / ".0001.png.partial").write_bytes(b"cut")
    assert stained_tissue.main([str(second), *arguments]) == 0
    assert contents(first) == contents(second)
    assert sorted(path.name for path in first.iterdir()) == FOLDERS
    names = [sorted(path.name for path in (first / folder).iterdir()) for folder in ("testA", "testB")]
    assert names_say_pairs(*names)
    assert len(names[0]) == 64  # 256 pixels in tiles of 32
    quarter = held_out(tissue)
    for index, (name_A, name_B) in enumerate(zip(*names, strict=True)):
        top, left = index // 8 * 32, index % 8 * 32
        with Image.open(first / "testA" / name_A) as image:
            np.testing.assert_array_equal(np.asarray(image), quarter.colours[top : top + 32, left : left + 32])
        densities = tifffile.imread(first / "testB" / name_B)
        np.testing.assert_array_equal(densities, quarter.densities[top : top + 32, left : left + 32])
    np.testing.assert_array_equal(tifffile.imread(first / "quarterB" / "held-out_B.tif"), quarter.densities)


def test_paired_training_images_are_the_truth_of_one_another(tmp_path: Path) -> None:
    assert stained_tissue.main([str(tmp_path / "pairs"), "--side", "32", "--count", "6", "--paired"]) == 0
    for path in sorted((tmp_path / "pairs" / "trainA").iterdir()):
        with Image.open(path) as image:
            expected = stain_densities(np.asarray(image))
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "pairs" / "trainB" / f"{path.stem}.tif"), expected)


def test_other_files_are_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tissue"
    assert stained_tissue.main([str(out), "--side", "64", "--count", "3"]) == 0
    before = contents(out)
    capsys.readouterr()
    assert stained_tissue.main([str(out), "--side", "64", "--count", "2", "--seed", "1"]) == 2
    expected = f"error: {out} holds trainA/0002.png, which is not of this data set; give another folder\n"
    assert capsys.readouterr().err == expected
    assert contents(out) == before
    assert stained_tissue.main([str(out / "trainA" / "0000.png")]) == 2
    assert "is a file; give a folder to write to" in capsys.readouterr().err
    for flags in (["--side", "31"], ["--side", "129"], ["--count", "0"], ["--count", "100001"]):
        assert stained_tissue.main([str(tmp_path / "none"), *flags]) == 2
        assert flags[0] in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
