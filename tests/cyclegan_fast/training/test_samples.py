"""Tests grids of samples: what they show of domains of any type, and what is said of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan_fast.config.options import Config, DataConfig, RunConfig
from cyclegan_fast.data.image_lists import ImageArray
from cyclegan_fast.data.test_sets import HeldOut, TestSets
from cyclegan_fast.images.display import COLOUR_TABLES, LegendLine
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import to_pixels, to_signed
from cyclegan_fast.images.sheets import BACKGROUND, BAR_PX, sample_grid
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.gallery import index_page
from cyclegan_fast.training.samples import SampleGrid, SampleImages, write_grids

SIDE = 64
DEEP = PixelType(1, "uint16", 0, 4095)
BANDS = PixelType(6, "float32", 0, 2)


class Mixed(nn.Module):
    """Stands in for a generator: each channel that it gives is the mean of those that it takes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.factor = channels, nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean(1, keepdim=True) * self.factor).expand(-1, self.channels, -1, -1)


def model_of(A: PixelType, B: PixelType, *, searches: bool = False) -> Any:
    networks = {"a2b": Mixed(B.channels), "b2a": Mixed(A.channels)}
    return SimpleNamespace(translator=networks.__getitem__, method=SimpleNamespace(searches=searches))


def noise(kind: PixelType, count: int = 2, seed: int = 0) -> SampleArray:
    shape = (count, SIDE, SIDE, kind.channels)
    samples: SampleArray = np.random.default_rng(seed).uniform(kind.low, kind.high, shape).astype(kind.as_numpy)
    return samples


def images_of(A: PixelType, B: PixelType, **run: Any) -> SampleImages:
    def described(kind: PixelType, domain: str) -> dict[str, Any]:
        values = {"channels": kind.channels, "dtype": kind.dtype, "range": (kind.low, kind.high)}
        return {} if kind.is_rgb else {f"{name}_{domain}": value for name, value in values.items()}

    config = Config(
        data=DataConfig(load_size=SIDE, crop_size=SIDE, **described(A, "a"), **described(B, "b")), run=RunConfig(**run)
    )
    A_images, B_images = ImageArray(noise(A), "A"), ImageArray(noise(B, seed=1), "B")
    tests = TestSets(HeldOut(A_images, B_images), HeldOut(B_images, A_images))
    return SampleImages.of(SimpleNamespace(tests=tests), config)  # type: ignore[arg-type]  # all that it looks at


ROWS_A = ["real A", "fake B = G_A(A)", "truth", "reconstruction G_B(G_A(A))", "identity G_B(A)"]
ROWS_B = ["real B", "fake A = G_B(B)", "truth", "reconstruction G_A(G_B(B))", "identity G_A(B)"]


def test_8_bit_rgb_is_drawn_as_ever() -> None:
    images = images_of(RGB, RGB)
    grid = images.grids(model_of(RGB, RGB))["A"]
    assert list(grid.pictures) == ROWS_A
    assert (grid.legend, grid.numbers) == ((), {})
    np.testing.assert_array_equal(grid.pictures["real A"], noise(RGB))
    fake = to_pixels(Mixed(3)(to_signed(torch.from_numpy(noise(RGB)))))
    np.testing.assert_array_equal(grid.pictures["fake B = G_A(A)"], fake)
    np.testing.assert_array_equal(grid.drawn(), sample_grid(grid.pictures))


@pytest.mark.parametrize(("A", "B"), [(DEEP, RGB), (BANDS, DEEP), (RGB, BANDS)], ids=str)
def test_a_row_is_shown_as_its_own_domain_is(A: PixelType, B: PixelType) -> None:
    images = images_of(A, B)
    grids = images.grids(model_of(A, B))
    assert {domain: list(grid.pictures) for domain, grid in grids.items()} == {"A": ROWS_A[:4], "B": ROWS_B[:4]}
    fake = to_pixels(Mixed(B.channels)(to_signed(torch.from_numpy(noise(A)), A)), B)
    again = to_pixels(Mixed(A.channels)(to_signed(torch.from_numpy(fake), B)), A)
    expected = [
        images.views.A(noise(A)),
        images.views.B(fake),
        images.views.B(noise(B, seed=1)),
        images.views.A(again),
    ]
    np.testing.assert_array_equal(list(grids["A"].pictures.values()), expected)
    real = noise(A).astype(np.float64)
    assert grids["A"].numbers["real A"] == f"{real.min():.5g} to {real.max():.5g}, mean {real.mean():.5g}"
    assert [line.text for line in grids["B"].legend] == [line.text for line in images.views.legend()]


def test_identity_is_shown_where_channels_are_equal_and_types_differ() -> None:
    other = PixelType(1, "int16", -1000, 1000)
    images = images_of(DEEP, other)
    grids = images.grids(model_of(DEEP, other))
    assert (list(grids["A"].pictures), list(grids["B"].pictures)) == (ROWS_A, ROWS_B)
    same = to_pixels(Mixed(1)(to_signed(torch.from_numpy(noise(DEEP)), DEEP)), DEEP)
    np.testing.assert_array_equal(grids["A"].pictures["identity G_B(A)"], images.views.A(same))
    assert list(images.grids(model_of(DEEP, other, searches=True))["A"].pictures) == ROWS_A[:3]


def test_bands_windows_and_colours_are_those_that_were_asked_for() -> None:
    images = images_of(BANDS, DEEP, bands_a=(6, 1, 2), window_b=(0, 100), colours_b="hot")
    grid = images.grids(model_of(BANDS, DEEP))["A"]
    window = np.rint(noise(BANDS)[..., [5, 0, 1]].astype(np.float64) / 2 * 255)
    np.testing.assert_array_equal(grid.pictures["real A"], window)
    bright = grid.pictures["truth"][noise(DEEP, seed=1)[..., 0] >= 100]
    assert (bright == 255).all()
    legend_A, legend_B = grid.legend
    assert "bands 6, 1 and 2" in legend_A.text
    assert legend_A.bar is None
    np.testing.assert_array_equal(legend_B.bar, COLOUR_TABLES["hot"])
    with pytest.raises(UserError, match="pictures of A: there is no band 7 in images of 6 channels"):
        images_of(BANDS, DEEP, bands_a=(7,))
    with pytest.raises(UserError, match="pictures of B: colours hot is of a single band: choose one of the bands"):
        images_of(BANDS, RGB, colours_b="hot")


def test_values_that_are_no_numbers_are_counted() -> None:
    images = images_of(BANDS, RGB)
    images.samples_A[0, :, : SIDE // 2] = np.nan
    grid = images._grid([("real A", "A", images.samples_A), ("none", "A", np.full_like(images.samples_A, np.nan))])
    assert grid.numbers["real A"].endswith(", 25.0% without a value")
    assert grid.numbers["none"] == "no values"
    assert (grid.pictures["real A"][0, :, : SIDE // 2] == [255, 0, 255]).all()


def test_a_legend_stands_above_the_rows_with_its_bar_of_colours() -> None:
    pictures = {"real A": np.full((4, SIDE, SIDE, 3), 77, np.uint8)}
    bar = LegendLine("A: 1 channel", COLOUR_TABLES["hot"])
    plain, headed = sample_grid(pictures), sample_grid(pictures, [bar, LegendLine("B: 8-bit RGB")])
    strip = len(plain) - 3 * SIDE
    np.testing.assert_array_equal(headed[2 * strip :], plain)
    coloured = headed[:strip, :, 0].astype(int) - headed[:strip, :, 2] > 100
    assert 60 < coloured.any(0).sum() <= BAR_PX
    one = {"real A": pictures["real A"][:1]}
    narrow = sample_grid(one, [LegendLine("A: 6 channels, float32, bands 6, 1 and 2 as red, green and blue", bar.bar)])
    assert narrow.shape[1] == 3 * SIDE
    lines = (len(narrow) - len(sample_grid(one))) // 18
    assert lines >= 3  # broken, and the bar below
    assert (narrow[:, -1][: lines * 18] == BACKGROUND).all()


def test_files_and_the_page_tell_the_legend_and_the_numbers(tmp_path: Path) -> None:
    hostile = "A: <script>alert(1)</script>"
    picture = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    legend = (LegendLine(hostile), LegendLine("B: 8-bit RGB"))
    grid = SampleGrid({"real A": picture, "fake B": picture}, legend, {"real A": "0 to 9, mean 4", "fake B": "1 to 2"})
    files = write_grids(tmp_path, 20, {"A": grid, "B": SampleGrid({"real B": picture})})
    with Image.open(files["A"]) as image:
        assert image.info["rows"] == "real A\nfake B"
        assert image.info["legend"] == f"{hostile}\nB: 8-bit RGB"
        assert image.info["numbers"] == "0 to 9, mean 4\n1 to 2"
        assert image.height > 2 * 3 * SIDE
    page = index_page(tmp_path)
    assert "<li>A: &lt;script&gt;alert(1)&lt;/script&gt;</li><li>B: 8-bit RGB</li>" in page
    assert '<tr><th scope="row">fake B</th><td>1 to 2</td></tr>' in page
    assert page.count("<summary>colours and values of step 20</summary>") == 1  # B is 8-bit RGB here
