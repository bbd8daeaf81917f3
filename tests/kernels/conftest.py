"""Chooses the device of the operators, makes cuDNN exact and repeatable, and shows unwritten memory."""

from collections.abc import Iterator

import pytest
import torch

from cyclegan_fast.kernels.checking.accuracy import unwritten_is_nan

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def unwritten_memory_is_nan() -> Iterator[None]:
    """Fills what torch.empty returns with NaN, so that an element nobody wrote is seen."""
    with unwritten_is_nan():
        yield


@pytest.fixture(autouse=True)
def _convolutions_of_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU: float32 convolutions in float32, where TF32 is the default, by algorithms that repeat their bits.

    No algorithm is chosen by a clock, which tests of training steps leave running behind them.

    Setting the older of PyTorch's two switches for TF32 sets the newer one; Triton's convolution follows both.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
