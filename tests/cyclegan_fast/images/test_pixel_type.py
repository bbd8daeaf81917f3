"""Tests the description of pixels, and the way from samples to [-1, 1] and back."""

import numpy as np
import pytest
import torch

from cyclegan_fast.config.options import DataConfig
from cyclegan_fast.config.values import pixels_of_run
from cyclegan_fast.images.pixel_type import RGB, PixelType, PixelTypes
from cyclegan_fast.images.pixels import to_pixels, to_pixels_array, to_signed, to_signed_array
from cyclegan_fast.system.errors import UserError

KINDS = [
    RGB,
    PixelType(1, "uint16", 0, 65535),
    PixelType(4, "uint16", 0, 4095),
    PixelType(2, "int16", -1000, 1000),
    PixelType(1, "int16", -32768, 32767),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_whole_number_of_a_range_comes_back(kind: PixelType) -> None:
    values = np.arange(kind.low, kind.high + 1).astype(kind.as_numpy)
    samples = np.repeat(values[None, None, :, None], kind.channels, 3)
    images = to_signed(torch.from_numpy(samples), kind)
    assert (images.min(), images.max()) == (-1, 1)
    assert np.array_equal(to_pixels(images, kind), samples)
    signed = to_signed_array(samples, kind)
    assert np.array_equal(signed, images.numpy())
    assert np.array_equal(to_pixels_array(signed, kind), samples)


def test_floating_point_values_come_back_to_a_rounding() -> None:
    kind = PixelType(1, "float32", -0.5, 12.5)
    samples = np.linspace(-0.5, 12.5, 1001, dtype=np.float32).reshape(1, 1, -1, 1)
    assert np.abs(to_pixels(to_signed(torch.from_numpy(samples), kind), kind) - samples).max() < 2e-6
    assert np.abs(to_pixels_array(to_signed_array(samples, kind), kind) - samples).max() < 2e-6


def test_values_beyond_the_range_become_its_ends() -> None:
    kind = PixelType(1, "uint16", 1000, 2000)
    samples = np.array([0, 999, 1000, 2000, 2001, 65535], np.uint16).reshape(1, 1, -1, 1)
    assert to_signed(torch.from_numpy(samples), kind).flatten().tolist() == [-1, -1, -1, 1, 1, 1]
    assert to_signed_array(samples, kind).ravel().tolist() == [-1, -1, -1, 1, 1, 1]
    assert to_pixels(torch.tensor([[[[-1.5, 1.5]]]]), kind).ravel().tolist() == [1000, 2000]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 0}, "channels must be from 1"),
        ({"dtype": "uint32"}, "dtype must be one of"),
        ({"low": 5, "high": 5}, "low to a high"),
        ({"high": 100}, "uint8 samples fill 0 to 255"),
        ({"low": float("nan")}, "low to a high"),
        ({"high": float("inf")}, "low to a high"),
    ],
)
def test_what_describes_no_pixels_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelType.of_values(RGB.as_values() | values)


def test_options_describe_the_pixels_of_each_domain() -> None:
    assert DataConfig().pixel_types == PixelTypes(RGB, RGB)
    options = DataConfig(channels_a=1, dtype_a="uint16", channels_b=4, dtype_b="int16", range_b=(-100, 200))
    assert options.pixel_types == (PixelType(1, "uint16", 0, 65535), PixelType(4, "int16", -100, 200))
    assert not options.pixel_types.have_equal_channels
    with pytest.raises(ValueError, match="no range of their own"):
        _ = DataConfig(dtype_a="float32").pixel_types


def test_a_range_of_8_bits_is_that_of_deeper_images() -> None:
    options = DataConfig(range_a=(0, 4095))
    assert options.pixel_type("A") == RGB
    assert (options.range_of_deep("A"), options.range_of_deep("B")) == ((0, 4095), None)
    assert DataConfig(range_a=(0, 4095), dtype_a="uint16").range_of_deep("A") is None


def test_a_run_says_what_its_pixels_are() -> None:
    assert pixels_of_run({}, "it").pixel_types == PixelTypes()
    assert pixels_of_run({"data": {"data": "gone", "other": 1}}, "it").pixel_types == PixelTypes()
    data = {"channels_b": 6, "dtype_b": "float32", "range_b": [0, 1]}
    assert pixels_of_run({"data": data}, "it").pixel_type("B") == PixelType(6, "float32", 0, 1)
    with pytest.raises(UserError, match="it: channels_a"):
        pixels_of_run({"data": {"channels_a": -1}}, "it")
