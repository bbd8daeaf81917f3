"""Bounds the error of an operator's results, and makes visible an element that no kernel wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

FLOORS = {torch.float32: 1e-6, torch.float16: 6e-4, torch.bfloat16: 5e-3}
"""the largest relative error that rounding alone explains, by the dtype that is stored"""
MARGIN = 1.25
"""the allowed error over the larger of PyTorch's own error and its dtype's floor"""


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Return the root mean square of the difference over that of `exact`, computed in float64.

    It is infinite for another shape and where `found` is not finite; where `exact` is 0 throughout, it is the root mean
    square of the difference itself.
    """
    if found.shape != exact.shape:
        return float("inf")
    exact = exact.detach().double()
    size = float(exact.square().mean().sqrt()) or 1.0
    error = float((found.detach().to(exact.device).double() - exact).square().mean().sqrt()) / size
    return error if error == error else float("inf")


def allowed_error(native_error: float, dtype: torch.dtype, margin: float = MARGIN) -> float:
    """Return the largest error that counts as right, beside PyTorch's own error in the same dtype."""
    return margin * max(native_error, FLOORS[dtype])


@contextmanager
def unwritten_is_nan() -> Iterator[None]:
    """Fill what torch.empty returns with NaN, so that an element nobody wrote is seen."""
    memory: Any = torch.utils.deterministic
    was_filled = memory.fill_uninitialized_memory
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = was_filled
