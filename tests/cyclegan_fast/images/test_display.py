"""Tests how samples of any type are shown to people, and what the legend says of it."""

import numpy as np
import pytest

from cyclegan_fast.images.display import COLOUR_TABLES, NOT_A_NUMBER, Display, legend, shown
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray

DEEP = PixelType(1, "uint16", 0, 4095)


def noise(kind: PixelType, *shape: int) -> SampleArray:
    values = np.random.default_rng(0).uniform(kind.low, kind.high, (*shape, kind.channels))
    samples: SampleArray = values.astype(kind.as_numpy)
    return samples


def by_formula(samples: SampleArray, low: float, high: float) -> SampleArray:
    """Return the levels of a window, computed in float64."""
    shares = (samples.astype(np.float64) - low) / (high - low)
    return np.rint(shares.clip(0, 1) * 255).astype(np.uint8)


def test_8_bit_rgb_is_shown_as_it_is() -> None:
    samples = noise(RGB, 2, 5, 7)
    assert shown(samples, RGB) is samples
    assert legend(RGB) == "8-bit RGB"
    assert np.array_equal(shown(samples, RGB, Display(bands=(3, 2, 1))), samples[..., ::-1])
    assert np.array_equal(shown(samples, RGB, Display(window=(50, 100))), by_formula(samples, 50, 100))


@pytest.mark.parametrize(
    ("kind", "bands"),
    [
        (DEEP, [0, 0, 0]),
        (PixelType(1, "uint8", 0, 255), [0, 0, 0]),
        (PixelType(1, "int16", -1000, 1000), [0, 0, 0]),
        (PixelType(1, "float32", -0.5, 2.5), [0, 0, 0]),
        (PixelType(2, "uint16", 0, 65535), [0, 1, 1]),
        (PixelType(3, "uint16", 100, 900), [0, 1, 2]),
        (PixelType(4, "uint8", 0, 255), [0, 1, 2]),
        (PixelType(13, "float32", 0, 1), [0, 1, 2]),
    ],
    ids=str,
)
def test_every_type_is_shown_as_colours_of_its_range(kind: PixelType, bands: list[int]) -> None:
    samples = noise(kind, 2, 5, 7)
    picture = shown(samples, kind)
    assert (str(picture.dtype), picture.shape) == ("uint8", (2, 5, 7, 3))
    assert np.array_equal(picture, by_formula(samples[..., bands], kind.low, kind.high))
    assert np.array_equal(shown(samples[1], kind), picture[1])


def test_bands_and_a_window_are_chosen() -> None:
    kind = PixelType(6, "uint16", 0, 65535)
    samples = noise(kind, 5, 7)
    picture = shown(samples, kind, Display(bands=(6, 1, 3), window=(10_000, 20_000)))
    assert np.array_equal(picture, by_formula(samples[..., [5, 0, 2]], 10_000, 20_000))
    assert {0, 255} < {*picture.flat}
    one = shown(samples, kind, Display(bands=(4,)))
    assert np.array_equal(one, by_formula(samples[..., [3, 3, 3]], 0, 65535))


def test_a_band_gets_false_colours_from_end_to_end() -> None:
    samples = np.array([0, 4095], np.uint16).reshape(1, 2, 1)
    ends = {name: shown(samples, DEEP, Display(colours=name)).tolist()[0] for name in COLOUR_TABLES}
    black_to_white = [[0, 0, 0], [255, 255, 255]]
    assert ends == {
        "grey": black_to_white,
        "cubehelix": black_to_white,
        "hot": black_to_white,
        "blue-red": [[0, 0, 255], [255, 0, 0]],
    }
    for name in ("cubehelix", "hot"):  # brightness rises with the value, as the eye weighs the colours
        brightness = COLOUR_TABLES[name] @ np.array([0.30, 0.59, 0.11])
        assert (np.diff(brightness) > -0.7).all()


def test_what_is_no_number_is_magenta_and_infinity_an_end() -> None:
    kind = PixelType(2, "float32", 0, 1)
    samples = np.array([[[0.5, 0.5], [np.nan, 0.5], [0.5, np.nan], [np.inf, -np.inf]]], np.float32)
    half = 128
    assert shown(samples, kind).tolist() == [[[half] * 3, [*NOT_A_NUMBER], [*NOT_A_NUMBER], [255, 0, 0]]]


@pytest.mark.parametrize(
    ("kind", "display", "text"),
    [
        (DEEP, Display(), "1 channel, uint16, 0 (black) to 4095 (white)"),
        (DEEP, Display(window=(10, 90), colours="hot"), "1 channel, uint16, 10 (black) to 90 (white), hot"),
        (
            PixelType(2, "uint8"),
            Display(),
            "2 channels, uint8, bands 1 and 2 as red and cyan, 0 (dark) to 255 (bright)",
        ),
        (
            PixelType(13, "float32", 0, 1.5),
            Display(bands=(4, 3, 2)),
            "13 channels, float32, bands 4, 3 and 2 as red, green and blue, 0 (dark) to 1.5 (bright), NaN magenta",
        ),
        (
            PixelType(6, "int16", -100, 100),
            Display(bands=(5,), colours="blue-red"),
            "6 channels, int16, band 5, -100 (blue) to 100 (red), blue-red",
        ),
    ],
)
def test_the_legend_says_what_colours_stand_for(kind: PixelType, display: Display, text: str) -> None:
    assert legend(kind, display) == text
    assert legend(kind, display, missing=False) == text.removesuffix(", NaN magenta")


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ValueError, match="up to 3 channels"):
        Display(bands=(1, 2, 3, 4))
    with pytest.raises(ValueError, match="counted from 1"):
        Display(bands=(0,))
    with pytest.raises(ValueError, match="low to a high"):
        Display(window=(5, 5))
    with pytest.raises(ValueError, match="of a single band, got 2"):
        Display(bands=(1, 2), colours="hot")
    with pytest.raises(ValueError, match="no band 2 in images of 1 channel"):
        shown(noise(DEEP, 2, 2), DEEP, Display(bands=(2,)))
    with pytest.raises(ValueError, match="choose one"):
        legend(RGB, Display(colours="hot"))
