"""Checks that gradients of weights on a second stream are those of one stream, and that no wait is missing."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import Config, RunConfig
from cyclegan_fast.kernels import residual_block
from cyclegan_fast.kernels.launching import launching_with
from cyclegan_fast.training.update.step_parts import StepParts
from cyclegan_fast.training.update.weight_gradient_stream import WeightGradientStream
from tests.cyclegan_fast.stream_watch import FIRST, SECOND, PretendStreams, Watch
from tests.cyclegan_fast.training.update.test_direction_streams import images, step_on, tiny

BLOCKS = 3


def gradients(around: AbstractContextManager[None]) -> list[Tensor]:
    """Differentiate some blocks; what kernels would write is left as it is, since only the order counts here."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last)
    weights = [torch.randn(4, 4, 3, 3, generator=generator, requires_grad=True) for _ in range(2 * BLOCKS)]
    with launching_with(lambda kernel, grid, arguments, options: None):
        y = x.requires_grad_(True)
        for index in range(BLOCKS):
            y = residual_block(y, *weights[2 * index : 2 * index + 2], pad_out=1, impl="triton")
        with around:
            found = torch.autograd.grad(y.sum(), [x, *weights])
        return [gradient.clone() for gradient in found]


def test_gradients_of_weights_are_computed_on_the_second_stream_and_no_wait_is_missing() -> None:
    streams = PretendStreams()
    with Watch(streams) as watch:
        found = gradients(WeightGradientStream(streams).beside())
    assert watch.reports == []
    assert streams.forks == 2 * BLOCKS
    assert watch.work[SECOND] >= 2 * BLOCKS
    assert streams.current == FIRST
    assert [gradient.shape for gradient in found] == [gradient.shape for gradient in gradients(nullcontext())]


@pytest.mark.parametrize(
    ("without", "report"),
    [
        ("fork", "on the second stream reads what was written by the first"),
        ("join", "on the first stream reads what was written by the second"),
    ],
)
def test_a_wait_that_is_left_out_is_seen(without: str, report: str) -> None:
    streams = PretendStreams(without)
    with Watch(streams) as watch:
        gradients(WeightGradientStream(streams).beside())
    assert any(report in one for one in watch.reports)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_paired_step_on_two_streams_misses_no_wait(dtype: torch.dtype) -> None:
    """Goes through whole steps, whose kernels write nothing: only the order counts here."""
    config = tiny(Config(run=RunConfig(paired=True)))
    config = replace(config, networks=replace(config.networks, impl="triton"))
    streams = PretendStreams()
    with launching_with(lambda kernel, grid, arguments, options: None):
        step = step_on(StepParts(), config, dtype)
        step.passes.beside_backward = WeightGradientStream(streams).beside
        with Watch(streams) as watch:
            for number in range(2):
                step(*images(number, 2))
    assert watch.reports == []
    blocks = sum(name.endswith("conv1.weight") for name, _ in step.networks.by_name["G_AB"].named_parameters())
    assert streams.forks == 2 * 2 * 2 * blocks  # steps, ways, convolutions
    assert watch.work[SECOND] >= streams.forks


class WithoutHolding(WeightGradientStream):
    """Lets go of what the second stream reads as soon as that has been told to read it."""

    def _compute(self, function: object, *read: Tensor) -> Tensor:
        result = super()._compute(function, *read)  # type: ignore[arg-type]
        self._held.clear()
        return result


def test_memory_that_the_second_stream_reads_is_held() -> None:
    streams = PretendStreams()
    with Watch(streams) as watch:
        gradients(WithoutHolding(streams).beside())
    assert any("gets memory that is in use by the second" in report for report in watch.reports)


def test_a_pass_without_blocks_waits_for_nobody() -> None:
    """Leaves a second stream alone that a recording does not know: to wait for it would break the recording off."""

    class Unknown(PretendStreams):
        def join(self) -> None:
            raise AssertionError("there was no fork")

    with WeightGradientStream(Unknown()).beside():
        pass


def test_an_error_in_the_backward_pass_is_raised_behind_a_join_and_lets_go() -> None:
    streams = PretendStreams()
    aside = WeightGradientStream(streams)

    def fail() -> None:
        with aside.beside():
            aside._compute(torch.add, torch.ones(1), torch.ones(1))
            raise ValueError("the pass")

    with pytest.raises(ValueError, match="the pass"):
        fail()
    assert not aside._held
    assert streams.clocks[FIRST][SECOND] == streams.clocks[SECOND][SECOND]
