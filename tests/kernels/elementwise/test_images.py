"""Holds images from bytes, and exchanges of a pool, to the bits of plain PyTorch."""

import random

import numpy as np
import pytest
import torch

from cyclegan_fast.images.pixel_type import PixelType, SampleDtype
from cyclegan_fast.images.pixels import to_signed
from cyclegan_fast.kernels.elementwise.image_exchange import image_exchange
from cyclegan_fast.kernels.elementwise.signed_windows import signed_windows
from cyclegan_fast.training.update.image_pool import StackedImagePool
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import values

pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")


@pytest.mark.parametrize(("height", "width"), [(16, 17), (20, 31), (1, 1)])
def test_windows_are_slices_mirrored_or_not_and_scaled(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 20, 31, 3), generator=generator, dtype=torch.uint8)
    corners = [(0, 0, 0), (20 - height, 31 - width, 1), ((20 - height) // 2, (31 - width) // 3, 1)]
    crops = torch.tensor(corners)
    found = signed_windows(pixels.to(DEVICE), crops.to(DEVICE), height, width, impl="triton").cpu()
    for image, window, (top, left, mirrored) in zip(pixels, found, corners, strict=True):
        cut = image[top : top + height, left : left + width]
        expected = to_signed((cut.flip(1) if mirrored else cut)[None])[0]
        assert torch.equal(window, expected)
    assert torch.equal(found, signed_windows(pixels, crops, height, width, impl="reference"))


RANGES = {
    "uint8": (0.0, 255.0),
    "uint16": (64.0, 60_000.0),
    "int16": (-1000.0, 2000.0),
    "float32": (-1.7, 0.6),
}


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("channels", [1, 4])
def test_samples_of_every_type_become_what_they_become_elsewhere(dtype: SampleDtype, channels: int) -> None:
    kind = PixelType(channels, dtype, *RANGES[dtype])
    samples = np.random.default_rng(0).integers(-32768, 65536, (2, 7, 9, channels))
    array = (samples / 2**14 if dtype == "float32" else samples).astype(dtype)
    if dtype == "float32":
        array[0, 2:4, 3] = [[np.nan] * channels, [np.inf] * channels]
        array[0, 2, 4] = -np.inf
    pixels = torch.from_numpy(array)
    corners = [(1, 2, 0), (2, 0, 1)]
    # The samples lie behind an odd number of others, so that no access of them may be wider than they are.
    apart = torch.cat([pixels.flatten().view(torch.uint8), torch.zeros(16, dtype=torch.uint8)])
    apart = apart.roll(pixels.element_size()).view(pixels.dtype)[1 : 1 + pixels.numel()].view(pixels.shape)
    expected = []
    for image, (top, left, mirrored) in zip(pixels, corners, strict=True):
        cut = image[top : top + 5, left : left + 7]
        if mirrored:
            cut = torch.from_numpy(cut.numpy()[:, ::-1].copy())
        expected.append(to_signed(cut[None], kind)[0])
    crops = torch.tensor(corners).to(DEVICE)
    for impl in ("triton", "reference") if DEVICE == "cpu" else ("triton",):
        found = signed_windows(apart.to(DEVICE), crops, 5, 7, kind.low, kind.high, impl=impl).cpu()
        torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=0, equal_nan=True)
    assert dtype != "float32" or torch.stack(expected).isnan().any()


def test_windows_of_no_image_are_none() -> None:
    pixels, crops = torch.zeros(0, 8, 9, 3, dtype=torch.uint8), torch.zeros(0, 3, dtype=torch.int64)
    for impl in ("triton", "reference"):
        assert signed_windows(pixels.to(DEVICE), crops.to(DEVICE), 4, 5, impl=impl).shape == (0, 3, 4, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (3, 1), (8, 3), (2, 13)])
def test_pools_on_triton_return_and_keep_what_plain_ones_do(batch: int, channels: int, dtype: torch.dtype) -> None:
    """Through a pool that fills, with images that replace others of their own batch."""
    fused, plain = (StackedImagePool(5, random.Random(3), impl) for impl in ("triton", "reference"))
    for step in range(12):
        images = values(batch, channels, 19, 22, dtype=dtype, seed=step)
        found, expected = fused.query(images), plain.query(images)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)
        for one, other in zip(fused.images, plain.images, strict=True):
            assert torch.equal(one, other)
    assert all(image.is_contiguous() for image in fused.state_dict()["images"])


def test_a_pool_on_triton_goes_on_from_what_was_saved() -> None:
    whole = StackedImagePool(4, random.Random(1), "triton")
    for step in range(3):
        whole.query(values(2, 3, 4, 5, seed=step))
    resumed = StackedImagePool(4, random.Random(1), "triton")
    resumed.load_state_dict(whole.state_dict(), torch.device(DEVICE))
    resumed.random_source = whole.random_source
    decisions = whole.decide(2).to(DEVICE)
    images = values(2, 3, 4, 5, seed=9)
    assert torch.equal(whole.exchange(images, decisions), resumed.exchange(images, decisions))
    assert torch.equal(torch.stack(whole.images), torch.stack(resumed.images))


def test_a_stack_whose_channels_do_not_come_last_is_refused() -> None:
    with pytest.raises(ValueError, match="the stack must be channels last"):
        image_exchange(values(1, 3, 4, 5), values(3, 3, 4, 5), torch.zeros(2, 1, dtype=torch.int64), impl="triton")
