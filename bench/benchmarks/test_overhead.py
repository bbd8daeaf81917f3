"""Measures what a call of an operator costs on the host: validation, dispatch, autograd, planning; not Triton's launch.

Kernels are left out, so that the figure is the same with and without a GPU: it is what eager mode pays for each call,
and what a CUDA graph saves. Plain PyTorch's three operators on a tiny tensor stand beside it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.conftest import DEVICE, Compare
from bench.measure.contest import Case, Contest
from bench.measure.timing import Contender
from cyclegan_fast.kernels import instance_norm
from cyclegan_fast.kernels.launching import launching_with
from cyclegan_fast.kernels.triton_language import INSTALLED

ROUNDS = 15
SIDE, PADDED = 4, 6


def contest(launches: int, mode: str) -> Contest:
    channels = 16 if launches == 1 else 8
    x = torch.randn(1, channels, SIDE, SIDE, device=DEVICE).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(mode == "training")
    gradient = torch.zeros(1, channels, PADDED, PADDED, device=DEVICE).contiguous(memory_format=torch.channels_last)

    def fused() -> torch.Tensor:
        return instance_norm(x, activation="relu", pad=1, impl="triton")

    def plain() -> torch.Tensor:
        return F.pad(F.relu(F.instance_norm(x)), (1, 1, 1, 1), mode="reflect")

    def whole(forward: Callable[[], torch.Tensor]) -> Callable[[], Any]:
        return (lambda: torch.autograd.grad(forward(), x, gradient)) if mode == "training" else forward

    launched: list[str] = []
    with launching_with(lambda kernel, *rest: launched.append(kernel.fn.__name__)):
        fused()
    assert len(launched) == launches
    contenders = {"plain PyTorch, tiny tensor": Contender([whole(plain)]), "ours": Contender([whole(fused)])}
    # Nothing is computed, so there is nothing to compare.
    return Contest(contenders, "ours", "plain PyTorch, tiny tensor")


@pytest.mark.skipif(not INSTALLED, reason="triton is not installed")
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("launches", [1, 2])
def test_host_time_of_a_norm(launches: int, mode: str, compare: Compare) -> None:
    """Measure one launch, for a plane that a program holds, and two, for channels that are no multiple of 16."""
    case = Case(
        subject="host time",
        case=f"fused norm, {mode}, launches {launches}",
        shape=f"1x{16 if launches == 1 else 8}x{SIDE}x{SIDE}",
        dtype="float32",
        batch=1,
        side=SIDE,
        moved_bytes=0,
        operations=0,
        make=partial(contest, launches, mode),
    )
    with launching_with(lambda *launch: None):
        compare(case, ROUNDS)
