"""Checks that what runs beside a backward pass gives what one stream gives, and that no wait is missing."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import Config, DataConfig, LossConfig, OptimizerConfig, RunConfig
from cyclegan_fast.kernels import residual_block
from cyclegan_fast.kernels.launching import launching_with
from cyclegan_fast.training.update.second_stream import SecondStream
from cyclegan_fast.training.update.step_parts import StepParts
from tests.cyclegan_fast.stream_watch import FIRST, SECOND, PretendStreams, Watch
from tests.cyclegan_fast.training.test_cuda_graph import state_of
from tests.cyclegan_fast.training.update.test_direction_streams import images, step_on, tiny

BLOCKS = 3


@contextmanager
def beside(stream: SecondStream) -> Iterator[None]:
    with stream.joined(), stream.weight_gradients():
        yield


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
        found = gradients(beside(SecondStream(streams)))
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
        gradients(beside(SecondStream(streams)))
    assert any(report in one for one in watch.reports)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_paired_step_on_two_streams_misses_no_wait(dtype: torch.dtype) -> None:
    """Goes through whole steps, whose kernels write nothing: only the order counts here."""
    config = tiny(Config(run=RunConfig(paired=True)))
    config = replace(config, networks=replace(config.networks, impl="triton"))
    streams = PretendStreams()
    with launching_with(lambda kernel, grid, arguments, options: None):
        step = step_on(StepParts(), config, dtype)
        step.take_streams(streams)
        with Watch(streams) as watch:
            for number in range(2):
                step(*images(number, 2))
    assert watch.reports == []
    blocks = sum(name.endswith("conv1.weight") for name, _ in step.networks.by_name["G_AB"].named_parameters())
    # In each step scores, the discriminators, and one gradient for both uses of a block's convolutions.
    assert streams.forks == 2 * (2 + 2 * blocks)
    assert watch.work[SECOND] >= streams.forks


PAIRED = {
    "float32, moving average": (Config(optimizer=OptimizerConfig(ema=0.5)), torch.float32),
    "bfloat16": (Config(), torch.bfloat16),
    "float16, scaled": (Config(), torch.float16),
    "two parts, which are judged behind": (
        Config(data=DataConfig(batch_size=2), optimizer=OptimizerConfig(accumulate=2)),
        torch.bfloat16,
    ),
    "cycles alone": (Config(loss=LossConfig(lambda_gan=0, pool_size=0)), torch.float32),
}


@pytest.mark.parametrize("case", PAIRED.values(), ids=PAIRED)
def test_discriminators_beside_the_backward_pass_leave_one_streams_bits(case: tuple[Config, torch.dtype]) -> None:
    config, dtype = tiny(replace(case[0], run=RunConfig(paired=True))), case[1]
    streams = PretendStreams()
    one, two = step_on(StepParts(), config, dtype), step_on(StepParts(), config, dtype)
    two.take_streams(streams)
    batches = [images(number, 2) for number in range(3)]
    expected = [one(*batch) for batch in batches]
    with Watch(streams) as watch:
        found = [two(*batch) for batch in batches]
    assert watch.reports == []
    assert found == expected
    for ours, theirs in zip(state_of(two), state_of(one), strict=True):
        assert torch.equal(ours, theirs)
    # Of two parts each has its scores beside, and the discriminators are trained behind both.
    assert streams.forks == (2 * len(batches) if config.loss.lambda_gan else 0)
    assert (watch.work[SECOND] > 0) == (config.loss.lambda_gan > 0)


@pytest.mark.parametrize("without", ["fork", "join"])
def test_a_wait_for_the_discriminators_that_is_left_out_is_seen(without: str) -> None:
    streams = PretendStreams(without)
    step = step_on(StepParts(), tiny(Config(run=RunConfig(paired=True))), torch.bfloat16)
    step.take_streams(streams)
    with Watch(streams) as watch:
        for number in range(2):
            step(*images(number, 2))
    expected = {"fork": "on the second stream reads what was written by the first", "join": "on the first stream"}
    assert any(expected[without] in report for report in watch.reports)


class WithoutHolding(SecondStream):
    """Lets go of what the second stream reads as soon as that has been told to read it."""

    def _gradient_beside(self, dy: Tensor, padded: Tensor, weight: Tensor) -> Tensor | None:
        result = super()._gradient_beside(dy, padded, weight)
        self._held.clear()
        return result


def test_memory_that_the_second_stream_reads_is_held() -> None:
    streams = PretendStreams()
    with Watch(streams) as watch:
        gradients(beside(WithoutHolding(streams)))
    assert any("gets memory that is in use by the second" in report for report in watch.reports)


def test_a_pass_without_blocks_waits_for_nobody() -> None:
    """Leaves a second stream alone that a recording does not know: to wait for it would break the recording off."""

    class Unknown(PretendStreams):
        def join(self) -> None:
            raise AssertionError("there was no fork")

    with beside(SecondStream(Unknown())):
        pass


def test_an_error_in_the_backward_pass_is_raised_behind_a_join_and_lets_go() -> None:
    streams = PretendStreams()
    stream = SecondStream(streams)

    def fail() -> None:
        with beside(stream):
            stream._held.append((torch.ones(1),))
            stream.compute(lambda: None)
            raise ValueError("the pass")

    with pytest.raises(ValueError, match="the pass"):
        fail()
    assert not stream._held
    assert streams.clocks[FIRST][SECOND] == streams.clocks[SECOND][SECOND]
