"""Steps whose directions run on two streams: who wrote what on which, and what no wait would order."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import (
    Config,
    DataConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
    Streams,
)
from cyclegan_fast.config.presets import of_method
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.cuda_graph import WARM_UP
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update.choice import check_gpu_options, reason_against_two_streams, streams_of
from cyclegan_fast.training.update.direction_streams import DirectionStreams
from cyclegan_fast.training.update.step_parts import Item, Result, StepParts
from tests.cyclegan_fast.stream_watch import FIRST, SECOND, PretendStreams, Watch
from tests.cyclegan_fast.training.test_cuda_graph import SIDE, Failing, batch, state_of
from tests.slow import slow_but

CUDA = torch.device("cuda")


def step_on(directions: StepParts, config: Config, dtype: torch.dtype) -> TrainingStep:
    """Return a new step, the same each time but for who computes its directions."""
    torch.manual_seed(0)
    return TrainingStep(Model(config), config, dtype, directions=directions)


def images(number: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    real_A, real_B = torch.rand(2, count, 3, SIDE, SIDE, generator=generator) * 2 - 1
    return real_A, real_B


def tiny(config: Config) -> Config:
    networks = replace(config.networks, generator="resnet_6", ngf=4, ndf=4, impl="reference")
    data = replace(config.data, load_size=SIDE + 6, crop_size=SIDE, batch_size=2)
    loss = replace(config.loss, pool_size=min(3, config.loss.pool_size))
    return replace(config, networks=networks, data=data, loss=loss)


CASES = {
    "float32": (Config(), torch.float32),
    "bfloat16, moving average": (Config(optimizer=OptimizerConfig(ema=0.5)), torch.bfloat16),
    "float16, scaled": (Config(), torch.float16),
    "two parts, blocks computed again": (
        Config(
            data=DataConfig(batch_size=2),
            networks=NetworkConfig(checkpoint_blocks=True),
            optimizer=OptimizerConfig(accumulate=2),
        ),
        torch.float32,
    ),
    "dropout": (Config(networks=NetworkConfig(dropout=True)), torch.float32),
    "gradient penalty, no pool": (Config(loss=LossConfig(gan_loss="wgan-gp", pool_size=0)), torch.float32),
    "simgan": (of_method(Config(), "simgan"), torch.float32),
    "bigan": (of_method(Config(), "bigan"), torch.float32),
    "cogan": (of_method(Config(), "cogan"), torch.float32),
    "pix2pix, two parts": (
        replace(of_method(Config(data=DataConfig(batch_size=2)), "pix2pix"), optimizer=OptimizerConfig(accumulate=2)),
        torch.float32,
    ),
}
QUICK = ("float32", "bfloat16, moving average", "two parts, blocks computed again", "pix2pix, two parts")


@pytest.mark.parametrize("case", slow_but(QUICK, CASES))
def test_two_streams_leave_one_streams_bits_and_miss_no_wait(case: tuple[Config, torch.dtype]) -> None:
    config, dtype = tiny(case[0]), case[1]
    streams = PretendStreams()
    one, two = step_on(StepParts(), config, dtype), step_on(DirectionStreams(streams), config, dtype)
    batches = [images(number, 2) for number in range(3)]
    watch = Watch(streams)
    torch.manual_seed(1)
    expected = [one(*batch) for batch in batches]
    torch.manual_seed(1)
    with watch:
        found = [two(*batch) for batch in batches]
    assert watch.reports == []
    assert found == expected
    for ours, theirs in zip(state_of(two), state_of(one), strict=True):
        assert torch.equal(ours, theirs)
    assert streams.forks >= len(batches)
    assert watch.work[SECOND] > watch.work[FIRST] / 4, "hardly anything ran on the second stream"


@pytest.mark.parametrize("without", ["fork", "join"])
def test_a_wait_that_is_left_out_is_seen(without: str) -> None:
    streams = PretendStreams(without)
    step = step_on(DirectionStreams(streams), tiny(Config()), torch.bfloat16)
    with Watch(streams) as watch:
        step(*images(0, 2))
    expected = {"fork": "on the second stream reads what was written by the first", "join": "on the first stream reads"}
    assert any(expected[without] in report for report in watch.reports)


class WithoutHolding(DirectionStreams):
    """Lets go of what the second stream reads as soon as that has been told to read it."""

    def map(self, compute: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
        copies = [tuple(part.clone() if isinstance(part, Tensor) else part for part in item) for item in items]  # type: ignore[attr-defined]
        self.pair.fork()
        with self.pair.second():
            first = compute(copies.pop(0))  # type: ignore[arg-type]
        others = [compute(item) for item in copies]  # type: ignore[arg-type]
        self.pair.join()
        return [first, *others]


@pytest.mark.parametrize("directions", [DirectionStreams, WithoutHolding])
def test_memory_that_the_second_stream_reads_is_held(directions: type[DirectionStreams]) -> None:
    streams = PretendStreams()
    items = [(torch.ones(8), number) for number in range(2)]
    with Watch(streams) as watch:
        found = list(directions(streams).map(lambda item: item[0] * item[1], items))
    assert [float(part.sum()) for part in found] == [0, 8]
    assert any("gets memory that is in use by the second" in report for report in watch.reports) == (
        directions is WithoutHolding
    )


def test_what_is_made_at_first_use_inside_of_a_part_is_seen() -> None:
    """Lets a scaler make its scale at the first loss; `Descent` has it made before."""
    streams = PretendStreams()
    step = step_on(DirectionStreams(streams), tiny(Config()), torch.float16)
    step.generators.scaler = torch.amp.GradScaler("cpu")
    with Watch(streams) as watch:
        step(*images(0, 2))
    assert any("on the first stream reads what was written by the second" in report for report in watch.reports)


def test_an_error_in_a_part_is_raised_behind_a_join() -> None:
    """Joins first, since a recording of a CUDA graph can end only where all of its streams have come back."""
    joined: list[str] = []

    class Pair(PretendStreams):
        def join(self) -> None:
            joined.append("join")
            raise RuntimeError("the recording is over")

    def fail(item: int) -> None:
        raise ValueError(f"item {item}")

    streams = Pair()
    with pytest.raises(ValueError, match="item 3"):
        list(DirectionStreams(streams).map(fail, [3, 4]))
    assert joined == ["join"]
    assert streams.current == FIRST


def sized(side: int, batch: int, accumulate: int = 1, **run: object) -> Config:
    return Config(
        data=DataConfig(load_size=side, crop_size=side, batch_size=batch),
        optimizer=OptimizerConfig(accumulate=accumulate),
        run=RunConfig(**run),  # type: ignore[arg-type]  # whatever a test gives
    )


BATCH_NORM = replace(sized(256, 1), networks=NetworkConfig(norm="batch"))


@pytest.mark.parametrize(
    ("config", "device", "expected"),
    [
        (sized(256, 1), "cuda", 2),
        (sized(256, 4), "cuda", 2),
        (sized(256, 5), "cuda", 1),
        (sized(256, 8, accumulate=2), "cuda", 2),
        (sized(512, 1), "cuda", 2),
        (sized(512, 2), "cuda", 1),
        (sized(256, 16, streams="2"), "cuda", 2),
        (sized(256, 1, streams="1"), "cuda", 1),
        (sized(256, 1, cuda_graph="off"), "cuda", 1),
        (sized(256, 1, cuda_graph="off", streams="2"), "cuda", 2),
        (sized(256, 1, profile=3), "cuda", 1),
        (replace(sized(256, 1), data=DataConfig(preprocess="scale_width")), "cuda", 1),
        (BATCH_NORM, "cuda", 1),
        (sized(256, 1), "cpu", 1),
    ],
)
def test_how_many_streams_a_step_is_computed_on(config: Config, device: str, expected: int) -> None:
    assert streams_of(config, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("config", "device", "reason"),
    [
        (sized(256, 1, streams="2"), "cpu", "there are no CUDA streams on a cpu"),
        (replace(BATCH_NORM, run=RunConfig(streams="2")), "cuda", "a batch norm keeps running statistics"),
        (sized(256, 1, streams="2", profile=3), "cuda", "--profile tells apart the phases"),
    ],
)
def test_two_streams_that_cannot_be_are_refused(config: Config, device: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"--streams 2: {reason}"):
        check_gpu_options(config, torch.device(device))
    with pytest.raises(UserError, match=f"--streams 2: {reason}"):
        streams_of(config, torch.device(device))


@pytest.mark.parametrize(("compiled", "streams"), [(False, 2), (True, 1)])
def test_a_paired_step_has_a_second_stream_for_gradients_but_not_in_compiled_networks(
    compiled: bool, streams: int
) -> None:
    config = sized(256, 1, paired=True, compile=compiled)
    assert streams_of(config, CUDA) == streams
    asked = sized(256, 1, paired=True, compile=compiled, streams="2")
    with pytest.raises(UserError, match="--compile") if compiled else nullcontext():
        check_gpu_options(asked, CUDA)


def test_two_streams_can_be_wherever_else_there_is_a_gpu() -> None:
    assert reason_against_two_streams(sized(256, 16), CUDA) is None
    check_gpu_options(sized(256, 1, cuda_graph="off", streams="2"), CUDA)


@pytest.mark.parametrize(("asked", "streams", "ending"), [("auto", 1, "; steps go on on one stream"), ("2", 2, "")])
def test_without_its_recording_a_step_goes_back_to_one_stream_unless_two_were_asked_for(
    asked: Streams, streams: int, ending: str
) -> None:
    config = replace(tiny(Config()), run=RunConfig(streams=asked))
    pretended = PretendStreams()
    step, plain = (step_on(parts, config, torch.float32) for parts in (DirectionStreams(pretended), StepParts()))
    messages: list[str] = []
    engine = TrainingEngine(step, config, messages.append, Failing(lambda: state_of(step)))
    eager = TrainingEngine(plain, config, messages.append)
    for number in range(WARM_UP + 1):
        assert step.directions_at_once == 2
        engine(batch(2, number))
        eager(batch(2, number))
    assert messages == [f"no CUDA graph: operation not permitted when stream is capturing{ending}"]
    assert step.directions_at_once == streams
    forks = pretended.forks
    engine(batch(2, 9))
    eager(batch(2, 9))
    assert (pretended.forks > forks) == (streams == 2)
    assert all(torch.equal(found, expected) for found, expected in zip(state_of(step), state_of(plain), strict=True))
