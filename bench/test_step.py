"""The whole training step against plain PyTorch's: float32, and stock bfloat16 autocast where the hardware has it.

On a CPU a round of the full-size step takes tens of seconds; on a GPU more rounds are run.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.plain_cyclegan import PlainCycleGAN
from bench.timing import interleaved
from cyclegan_fast.checkpoint import from_original
from cyclegan_fast.config import Config
from cyclegan_fast.device import choose_device, working_dtype
from cyclegan_fast.model import CycleGAN
from cyclegan_fast.step import TrainingStep

DEVICE = choose_device("auto")
ROUNDS = 6 if DEVICE.type == "cpu" else 50


@pytest.mark.benchmark(group="step 256x256, 9 blocks, batch 1")
def test_step_with_amp_against_plain_float32(benchmark: BenchmarkFixture) -> None:
    dtype, remark = working_dtype(DEVICE, amp=True, amp_dtype="auto")
    if dtype != torch.bfloat16:
        pytest.skip(remark or "no bfloat16 here")
    images = torch.rand(2, 1, 3, 256, 256, device=DEVICE) * 2 - 1
    plain = PlainCycleGAN(device=DEVICE)
    stock = PlainCycleGAN(device=DEVICE, autocast_dtype=dtype)
    ours = TrainingStep(same_weights(plain), Config(), dtype)
    check_agreement(plain, ours, images)
    ratios = interleaved(
        benchmark,
        lambda: finished(ours(images[0], images[1])),
        {
            "plain float32": lambda: finished(plain.update(images[0], images[1])),
            "stock bfloat16 autocast": lambda: finished(stock.update(images[0], images[1])),
        },
        rounds=ROUNDS,
    )
    assert ratios["plain float32"] > 1


def same_weights(plain: PlainCycleGAN) -> CycleGAN:
    model = CycleGAN(Config()).to(DEVICE)
    for name, network in plain.networks().items():
        model.get_submodule(name).load_state_dict(from_original(network.state_dict()))
    return model


def check_agreement(plain: PlainCycleGAN, ours: TrainingStep, images: torch.Tensor) -> None:
    """Times are compared only of steps that compute the same losses, to bfloat16's precision."""
    expected, found = plain.update(images[0], images[1]), ours(images[0], images[1])
    for name, loss in expected.items():
        assert float(found[name]) == pytest.approx(float(loss), rel=0.05), name


def finished(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return losses
