"""Float32 convolutions are multiplied in float32 in these tests, and in TF32 where a user lets cuDNN do so."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from cyclegan_fast.kernels import conv2d_reflect
from cyclegan_fast.kernels.launching import Grid, launching_with
from tests.kernels.operands import values

CONV = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # absent from torch's stubs


@pytest.fixture(autouse=True)
def _switches_as_they_were() -> Iterator[None]:
    """Behind a test that set the newer switch the older one cannot be read, so that it must be set."""
    yield
    CONV.fp32_precision = torch.backends.cudnn.rnn.fp32_precision  # type: ignore[attr-defined]  # likewise


def precision(dtype: torch.dtype = torch.float32) -> str:
    """Return how the kernel is told to multiply."""
    told: list[str] = []

    def launch(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        told.append(arguments["PRECISION"])

    with launching_with(launch):
        conv2d_reflect(values(1, 2, 4, 4, dtype=dtype), values(2, 2, 3, 3, dtype=dtype), impl="triton")
    (only,) = told
    return only


def test_in_these_tests_neither_cudnn_nor_triton_rounds_float32_to_tf32() -> None:
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.deterministic
    assert precision() == "ieee"


def older(tf32: bool) -> None:
    torch.backends.cudnn.allow_tf32 = tf32


def newer(tf32: bool) -> None:
    CONV.fp32_precision = "tf32" if tf32 else "ieee"


@pytest.mark.parametrize("switch", [older, newer])
@pytest.mark.parametrize("tf32", [True, False])
def test_triton_follows_either_of_pytorchs_switches(switch: Callable[[bool], None], tf32: bool) -> None:
    switch(not tf32)
    switch(tf32)
    assert precision() == ("tf32" if tf32 else "ieee")


def test_sixteen_bits_know_no_tf32() -> None:
    older(True)
    assert precision(torch.bfloat16) == "ieee"
