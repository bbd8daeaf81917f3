"""Compares every contender's result with an exact one: times are compared only of what computes the same."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from cyclegan_fast.kernels.checking.accuracy import relative_error

ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2.5e-2}
"""The largest root mean square of an error, relative to that of the exact result, by the precision that is computed in:
about four times what PyTorch's own operators lose in one site. It finds what is wrong, not what is inexact; accuracy is
held by tests/kernels/accuracy.py."""


class Disagreement(Exception):
    """Says that ours, or the plain computation that it is compared with, is wrong: no time is reported then."""


def tensors_of(result: Any) -> list[Tensor]:
    """Return the tensors in whatever a contender returns."""
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def errors(results: Mapping[str, Any], exact: Sequence[Tensor]) -> dict[str, float]:
    """Return, by contender, the largest relative error among the tensors of its result."""
    found = {}
    for name, result in results.items():
        tensors = tensors_of(result)
        if len(tensors) != len(exact):
            found[name] = float("inf")
        else:
            found[name] = max(relative_error(one, other) for one, other in zip(tensors, exact, strict=True))
    return found


def refused(found: Mapping[str, float], allowed: Callable[[str], float], trusted: Sequence[str]) -> dict[str, str]:
    """Return the contenders whose time is not reported, by name, each with the reason.

    Args:
        found: The error of each contender.
        allowed: Returns the largest error that a contender may have, by its name.
        trusted: The names of ours and of the plain computation.

    Raises:
        Disagreement: One of the trusted contenders is off by more than is allowed.
    """
    wrong = {
        name: f"off by {error:.2g} of its size, {allowed(name):.2g} is allowed"
        for name, error in found.items()
        if not error <= allowed(name)
    }
    if first := next((name for name in trusted if name in wrong), None):
        raise Disagreement(f"{first} is {wrong[first]}: nothing is reported")
    return wrong
