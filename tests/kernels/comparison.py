"""Tensors to try operators on, and how far a result is from its definition."""

import torch
from torch import Tensor

from tests.kernels.conftest import DEVICE


def sample(
    *shape: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    requires_grad: bool = True,
) -> Tensor:
    """Normal numbers, the same for a seed on every device; a leaf."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return values.contiguous(memory_format=memory_format).requires_grad_(requires_grad)


def wide(x: Tensor) -> Tensor:
    """The same numbers in float64, a leaf in NCHW.

    NCHW, because PyTorch's instance norm on the CPU (torch 2.13) has a gradient that is off by its own size where the
    batch is 1 and the gradient of its result is channels last.
    """
    return x.detach().double().contiguous().requires_grad_(x.requires_grad)


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Size of the difference over the size of `exact`; the difference itself where `exact` is 0 throughout."""
    assert found.shape == exact.shape
    found, exact = found.detach().double(), exact.detach().double()
    size = float(exact.norm())
    return float((found - exact).norm()) / (size or 1.0)
