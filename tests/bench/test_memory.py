"""Memory followed on tensors without any is that of the same step computed."""

import pytest
import torch

from bench import memory as memory_command
from bench.measure.live_memory import ALLOCATION_UNIT, live_memory
from bench.memory import CROP_UNIT, SMALLEST_CROP, largest_crop, step_memory
from cyclegan_fast.config.options import Config, DataConfig, NetworkConfig, OptimizerConfig
from cyclegan_fast.kernels import Impl, instance_norm
from cyclegan_fast.kernels.triton_language import INTERPRETED
from cyclegan_fast.training import step
from tests.as_command import run_as_command

NEEDS_INTERPRETER = pytest.mark.skipif(
    not INTERPRETED, reason="only in Triton's interpreter do fused operators take tensors that are on no GPU"
)

HOST_BYTES = 16 * ALLOCATION_UNIT
"""Tensors that a step makes on the host and hands to the device; on the CPU that is one memory and counts."""


def config(impl: Impl, *, checkpoint_blocks: bool = False, accumulate: int = 1) -> Config:
    networks = NetworkConfig(generator="resnet_6", ngf=4, ndf=4, impl=impl, checkpoint_blocks=checkpoint_blocks)
    data = DataConfig(batch_size=accumulate)
    return Config(data=data, networks=networks, optimizer=OptimizerConfig(accumulate=accumulate))


@pytest.mark.parametrize(
    ("impl", "dtype", "checkpoint_blocks", "accumulate"),
    [
        ("reference", torch.float32, False, 1),
        pytest.param("reference", torch.bfloat16, True, 2, marks=pytest.mark.slow),
        pytest.param("triton", torch.float32, True, 2, marks=NEEDS_INTERPRETER),
        pytest.param("triton", torch.bfloat16, False, 1, marks=NEEDS_INTERPRETER),
    ],
)
def test_a_step_without_memory_is_counted_as_one_with_it(
    impl: Impl, dtype: torch.dtype, checkpoint_blocks: bool, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if impl == "triton" and accumulate == 1:  # as on a GPU, for which tensors without memory stand
        monkeypatch.setattr(step, "updates_directly", lambda *arguments, **options: True)
    options = config(impl, checkpoint_blocks=checkpoint_blocks, accumulate=accumulate)
    without, with_memory = (step_memory(options, 32, dtype, device=device) for device in ("meta", "cpu"))
    assert without.phase_of_peak == with_memory.phase_of_peak
    assert 0 <= with_memory.peak - without.peak <= HOST_BYTES
    assert 0 <= with_memory.between_steps - without.between_steps <= HOST_BYTES
    assert without.peak > without.between_steps


@pytest.mark.slow
@NEEDS_INTERPRETER
def test_what_keeps_fewer_activations_needs_less_and_a_larger_crop_more() -> None:
    peaks = [step_memory(config("triton"), side, torch.float32).peak for side in (64, 128, 256)]
    assert peaks == sorted(set(peaks))
    for smaller in (
        step_memory(config("triton", checkpoint_blocks=True), 256, torch.float32),
        step_memory(config("triton"), 256, torch.bfloat16),
    ):
        assert smaller.peak < peaks[-1] < step_memory(config("reference"), 256, torch.float32).peak


def test_memory_counts_once_from_the_operator_that_makes_it_until_nobody_holds_it() -> None:
    side, size = 64, 64 * 64 * 4
    for device in ("cpu", "meta"):
        with live_memory(device) as memory:
            x = torch.empty(side, side, device=device)
            view = x.t()[1:]
            assert (memory.now, memory.peak) == (size, size)
            with memory.in_phase("sum"):
                y = x + x * 2
            assert (memory.now, memory.peak, memory.phase_of_peak) == (2 * size, 3 * size, "sum")
            del x, y
            assert memory.now == size  # the view holds all of it
            memory.begin()
            view.add_(1)
            assert (memory.now, memory.peak) == (size, size)
            del view
            assert memory.now == 0
            short = torch.empty(3, device=device)
            assert memory.now == ALLOCATION_UNIT
            del short


@NEEDS_INTERPRETER
def test_buffers_inside_a_fused_operator_count() -> None:
    """Expects the buffer in which two phases exchange statistics of splits, and which the operator does not return."""
    x = torch.empty(1, 64, 256, 256, device="meta", memory_format=torch.channels_last)
    statistics_bytes = 3 * 64 * 4
    with live_memory("meta") as memory:
        y = instance_norm(x, impl="triton")
        assert memory.now == y.nbytes
        assert memory.peak - memory.now > 10 * statistics_bytes


@pytest.mark.parametrize("largest", [32, 48, 1008, 1024, 1040])
def test_the_largest_crop_fits_and_the_next_one_does_not(largest: int) -> None:
    evaluated = set()

    def peak_bytes(side: int) -> int:
        evaluated.add(side)
        return side * side

    assert largest_crop(peak_bytes, (largest + CROP_UNIT) ** 2 - 1) == largest
    assert {largest, largest + CROP_UNIT} <= evaluated
    assert largest_crop(peak_bytes, SMALLEST_CROP**2 - 1) is None


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_as_command(memory_command.__file__, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: python -m bench.memory")
