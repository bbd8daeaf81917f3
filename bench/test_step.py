"""The whole training step with --amp against plain PyTorch's: float32, and stock bfloat16 autocast where there is it.

`python -m bench.step` times every option. On a CPU a round of the full-size step takes tens of seconds.
"""

from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.step import PLAIN, Contest
from bench.timing import interleaved
from cyclegan_fast.device import choose_device

DEVICE = choose_device("auto")
ROUNDS = 4 if DEVICE.type == "cpu" else 50


@pytest.mark.benchmark(group="step 256x256, 9 blocks, batch 1")
def test_step_with_amp_against_plain_float32(benchmark: BenchmarkFixture) -> None:
    contest = Contest(DEVICE, 256, 1)
    ours = "ours --amp" if contest.has_low_precision else "ours"  # all that --amp can do here
    names = [name for name in contest.contenders if name == PLAIN or ("stock" in name and "compile" not in name)]
    contest.contenders = {name: contest.contenders[name] for name in [*names, ours]}
    contest.check()
    ratios = interleaved(
        benchmark, partial(contest.run, ours), {name: partial(contest.run, name) for name in names}, rounds=ROUNDS
    )
    assert ratios[PLAIN] > 1
