"""The whole training step with --amp against plain PyTorch's: float32, and stock bfloat16 autocast where there is it.

`python -m bench.step` times every option. On a CPU a round of the full-size step takes tens of seconds.
"""

from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.step import PLAIN, Contest
from bench.timing import interleaved
from cyclegan_fast.device import choose_device, working_dtype

DEVICE = choose_device("auto")
ROUNDS = 4 if DEVICE.type == "cpu" else 50


@pytest.mark.benchmark(group="step 256x256, 9 blocks, batch 1")
def test_step_with_amp_against_plain_float32(benchmark: BenchmarkFixture) -> None:
    low, _ = working_dtype(DEVICE, amp=True, amp_dtype="auto")
    ours = "ours" if low == torch.float32 else "ours --amp"  # all that --amp can do here
    contest = Contest(DEVICE, 256, 1, wants=lambda name: name == ours or ("stock" in name and "compile" not in name))
    names = [name for name in contest.contenders if name != ours]
    contest.check()
    ratios = interleaved(
        benchmark, partial(contest.run, ours), {name: partial(contest.run, name) for name in names}, rounds=ROUNDS
    )
    assert ratios[PLAIN] > 1
