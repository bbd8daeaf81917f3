"""Where the operators are tried, and unwritten memory that shows."""

from collections.abc import Iterator

import pytest
import torch

from kernels.accuracy import unwritten_is_nan

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def unwritten_memory_is_nan() -> Iterator[None]:
    """Fills what torch.empty returns with NaN, so that an element nobody wrote is seen."""
    with unwritten_is_nan():
        yield
