"""Holds tests of what runs on stained tissue are compared with, and of the table and the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import stains
from cyclegan_fast import stained_tissue, train
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.datasets.stains import cells_of, held_out, read_tissue, stain_densities
from tests.cyclegan_fast.conftest import TINY
from tests.cyclegan_fast.translations import make_generator


def test_a_constant_is_the_mean_of_the_other_domains_cells() -> None:
    tissue = read_tissue()
    cells = [tissue.densities[top : top + 128, left : left + 128] for top, left in cells_of("B")]
    answer = stains.constant("a2b", tissue)(np.zeros((2, 4, 4, 3), np.uint8))
    assert answer.shape == (2, 4, 4, 2)
    np.testing.assert_allclose(answer, np.broadcast_to(np.mean(cells, axis=(0, 1, 2)), answer.shape), rtol=1e-5)


def test_the_linear_fit_is_that_of_the_normal_equations() -> None:
    tissue = read_tissue()
    cells = [(slice(top, top + 128), slice(left, left + 128)) for top, left in cells_of("A")]
    x = np.concatenate([tissue.densities[cell].reshape(-1, 2) for cell in cells]).astype(np.float64)
    y = np.concatenate([tissue.colours[cell].reshape(-1, 3) for cell in cells]).astype(np.float64)
    centred = x - x.mean(axis=0)
    slope = np.linalg.solve(centred.T @ centred, centred.T @ (y - y.mean(axis=0)))
    expected = y.mean(axis=0) + (np.array([0.1, 0.2]) - x.mean(axis=0)) @ slope
    given = np.broadcast_to(np.float32([0.1, 0.2]), (1, 3, 3, 2))
    found = stains.linear_fit("b2a", tissue)(given)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.51)


def test_beer_lamberts_law_gives_back_what_was_unmixed() -> None:
    densities = np.float32([[[[0.1, 0.5], [0.0, 0.0], [0.3, 0.2]]]])
    np.testing.assert_allclose(stain_densities(stains.beer_lambert(densities)), densities, atol=0.01)
    assert stains.beer_lambert(densities)[0, 0, 1].tolist() == [255, 255, 255]


def test_truths_score_as_such_and_errors_are_in_own_units() -> None:
    quarter = held_out(read_tissue())
    ways = {"truth": stain_densities, "shifted": lambda colours: stain_densities(colours) + np.float32([0.25, 0.5])}
    truth, shifted = stains.rows_of("a2b", ways, quarter)
    assert truth == ["brightfield -> stains", "truth", "100.0 dB", "1.000", "0.000 and 0.000"]
    # PSNR by hand: the mean of 0.25 and 0.5 squared, of a range of 1.2
    assert shifted[2:] == [f"{-10 * np.log10((0.0625 + 0.25) / 2 / 1.44):.1f} dB", shifted[3], "0.250 and 0.500"]


@pytest.mark.slow
def test_a_run_is_scored_and_drawn_and_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stained_tissue.main(["tissue", "--side", "36", "--count", "2"]) == 0
    tiny = [*TINY, "--max-steps", "1", "--lambda-identity", "0"]
    assert train.main(["--data", "tissue", "--range-b", "0", "1.2", "--name", "tissue", *tiny]) == 0
    torch.save(to_original(make_generator(0).state_dict()), "photographs.pth")
    capsys.readouterr()
    assert stains.main(["runs/tissue", "--out", "pictures/stains.jpg"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [
        "a constant: the mean of the other domain",
        "Beer and Lambert's law alone",
        "a linear fit to pairs",
        "tissue",
    ]
    assert [line.split(" | ")[1] for line in lines[2:-1]] == [names[0], *names[2:], *names]
    assert lines[-1] == "pictures/stains.jpg"
    with Image.open("pictures/stains.jpg") as picture:
        assert picture.width > 3 * 256
        assert picture.height > 4 * 256
    assert stains.main(["photographs.pth"]) == 2
    refusal = "photographs.pth was trained on images of 8-bit RGB, and stained tissue has 2 channels"
    assert refusal in capsys.readouterr().err
