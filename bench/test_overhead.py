"""What a call of an operator costs on the host: validation, dispatch, autograd, planning; all but Triton's launch.

Kernels are left out, so that the figure is the same with and without a GPU: it is what eager mode pays for each call,
and what a CUDA graph saves.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from bench.timing import interleaved
from kernels import instance_norm
from kernels.triton_language import launching_with

CALLS = 500


def repeated(function: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(CALLS):
            function()

    return run


@pytest.mark.benchmark(group="host time of a fused norm")
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("launches", [1, 2])
def test_host_time_of_a_norm(benchmark: BenchmarkFixture, launches: int, mode: str) -> None:
    """A plane that a program holds takes one launch; channels that are no multiple of 16 take two."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    channels = 16 if launches == 1 else 8
    x = torch.randn(1, channels, 4, 4, device=device).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(mode == "training")

    def fused() -> torch.Tensor:
        return instance_norm(x, activation="relu", pad=1, impl="triton")

    def plain() -> torch.Tensor:
        return F.pad(F.relu(F.instance_norm(x)), (1, 1, 1, 1), mode="reflect")

    def descended(forward: Callable[[], torch.Tensor]) -> Callable[[], Any]:
        gradient = torch.zeros(1, channels, 6, 6, device=device).contiguous(memory_format=torch.channels_last)
        return lambda: torch.autograd.grad(forward(), x, gradient)

    ours, theirs = (descended(fused), descended(plain)) if mode == "training" else (fused, plain)
    launched: list[str] = []
    with launching_with(lambda kernel, *rest: launched.append(kernel.fn.__name__)):
        fused()
    assert len(launched) == launches
    with launching_with(lambda *launch: None):
        interleaved(benchmark, repeated(ours), {"plain PyTorch, tiny tensor": repeated(theirs)}, rounds=9)
    microseconds = statistics.median(benchmark.stats.stats.data) / CALLS * 1e6  # type: ignore[union-attr]
    benchmark.extra_info["microseconds_per_call"] = microseconds
    print(f"{mode}, {launches} launches: {microseconds:.0f} us a call without the launch ({time.strftime('%Y-%m-%d')})")
