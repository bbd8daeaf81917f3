"""Batches are cut, mirrored and scaled to [-1, 1] on the device as NumPy does it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cyclegan_fast.data.batch import Batch, Cut, signed_windows


def plainly(cut: Cut) -> np.ndarray:
    """[3, height, width] in [-1, 1], pixel by pixel."""
    image = np.empty((3, cut.height, cut.width), np.float32)
    for row in range(cut.height):
        for column in range(cut.width):
            source = cut.width - 1 - column if cut.mirrored else column
            levels = cut.pixels[cut.top + row, cut.left + source].astype(np.float32)
            image[:, row, column] = levels / np.float32(127.5) - np.float32(1)
    return image


@st.composite
def cuts(draw: st.DrawFn) -> list[Cut]:
    """Windows of one size in images of one size."""
    count, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    image_height, image_width = height + draw(st.integers(0, 5)), width + draw(st.integers(0, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [
        Cut(
            random.integers(0, 256, (image_height, image_width, 3), dtype=np.uint8),
            top=draw(st.integers(0, image_height - height)),
            left=draw(st.integers(0, image_width - width)),
            height=height,
            width=width,
            mirrored=draw(st.booleans()),
        )
        for _ in range(count)
    ]


@settings(deadline=None)
@given(cuts(), cuts())
def test_a_batch_has_the_bits_of_windows_taken_pixel_by_pixel(cuts_A: list[Cut], cuts_B: list[Cut]) -> None:
    for batch in (
        Batch.of(cuts_A, cuts_B, pin=False),
        Batch.of([cut.alone() for cut in cuts_A], [cut.alone() for cut in cuts_B], pin=False),
    ):
        for images, expected in zip(batch.to(torch.device("cpu")), (cuts_A, cuts_B), strict=True):
            assert (images.dtype, images.is_contiguous()) == (torch.float32, True)
            np.testing.assert_array_equal(images.numpy(), np.stack([plainly(cut) for cut in expected]))


def test_host_tensors_are_the_arguments_of_signed_windows() -> None:
    random = np.random.default_rng(0)
    pixels_A, pixels_B = random.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    batch = Batch.of([Cut(pixels_A, 1, 2, 4, 5, True)], [Cut(pixels_B, 0, 3, 6, 4, False)], pin=False)
    np.testing.assert_array_equal(batch.pixels_A.numpy(), pixels_A[None])
    assert (batch.crops_A.tolist(), batch.crops_B.tolist()) == ([[1, 2, 1]], [[0, 3, 0]])
    assert (batch.crops_A.dtype, batch.size_A, batch.size_B) == (torch.int64, (4, 5), (6, 4))
    real_A, real_B = batch.to(torch.device("cpu"))
    assert torch.equal(signed_windows(batch.pixels_A, batch.crops_A, *batch.size_A), real_A)
    assert torch.equal(signed_windows(batch.pixels_B, batch.crops_B, *batch.size_B), real_B)


def test_no_value_is_asked_for_on_the_host() -> None:
    """Runs on meta tensors: asking them for a value raises, as it would break the capture of a CUDA graph."""
    pixels = torch.empty(2, 9, 9, 3, dtype=torch.uint8, device="meta")
    crops = torch.empty(2, 3, dtype=torch.int64, device="meta")
    with pytest.raises(RuntimeError):
        crops[0, 0].item()
    assert signed_windows(pixels, crops, 4, 5).shape == (2, 3, 4, 5)
