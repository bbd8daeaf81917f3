"""Steps that are recorded and replayed, on the CPU by `OperatorRecorder`, against the same steps as they are."""

import io
import random
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import (
    Config,
    CudaGraph,
    DataConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
)
from cyclegan_fast.config.presets import of_method
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.cuda_graph import Inputs, Outputs
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.cuda_graph import MOST_SHAPES, WARM_UP, GraphedFunction
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update.choice import reason_against_a_graph
from tests.cyclegan_fast.operator_recorder import OperatorRecorder
from tests.slow import slow_but

SIDE = 24
NETWORKS = NetworkConfig(generator="resnet_6", ngf=4, ndf=4, impl="reference")
CPU = torch.device("cpu")


def batch(count: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def pixels() -> Tensor:
        return torch.randint(0, 256, (count, SIDE + 6, SIDE + 6, 3), dtype=torch.uint8, generator=generator)

    def crops() -> Tensor:
        corners = torch.randint(0, 7, (count, 2), generator=generator)
        return torch.cat([corners, torch.randint(0, 2, (count, 1), generator=generator)], dim=1)

    return Batch(pixels(), pixels(), crops(), crops(), (SIDE, SIDE), (SIDE, SIDE))


def step_of(config: Config, dtype: torch.dtype, device: torch.device = CPU) -> TrainingStep:
    """Return a new step, the same each time."""
    torch.manual_seed(0)
    return TrainingStep(Model(config).to(device), config, dtype, random.Random(3))


def state_of(step: TrainingStep) -> list[Tensor]:
    """Return everything that a step changes in place."""
    moments = [
        tensor
        for descent in (step.generators, step.discriminators)
        for of_parameter in descent.optimizer.state.values()
        for tensor in of_parameter.values()
    ]
    scales = [
        tensor
        for descent in (step.generators, step.discriminators)
        if descent.scaler.is_enabled()
        for tensor in (descent.scaler._scale, descent.scaler._growth_tracker)
    ]
    pools = [pool._stack for pool in (step.pool_A, step.pool_B) if pool._stack is not None]  # type: ignore[attr-defined]
    return [*step.model.state_dict().values(), *moments, *scales, *pools]


CASES = {
    "float32": (Config(), torch.float32),
    "bfloat16": (Config(), torch.bfloat16),
    "float16, scaled": (Config(), torch.float16),
    "moving average": (Config(optimizer=OptimizerConfig(ema=0.5)), torch.float32),
    "two parts, blocks computed again": (
        Config(
            data=DataConfig(batch_size=2),
            networks=replace(NETWORKS, checkpoint_blocks=True),
            optimizer=OptimizerConfig(accumulate=2),
        ),
        torch.float32,
    ),
    "gradient penalty": (Config(loss=LossConfig(gan_loss="wgan-gp")), torch.float32),
    "bigan": (of_method(Config(), "bigan"), torch.float32),
    "cogan, gradient penalty": (of_method(Config(loss=LossConfig(gan_loss="wgan-gp")), "cogan"), torch.float32),
    "pix2pix, two parts": (
        replace(of_method(Config(data=DataConfig(batch_size=2)), "pix2pix"), optimizer=OptimizerConfig(accumulate=2)),
        torch.float32,
    ),
    "batch norm, copies, moving average": (
        Config(networks=replace(NETWORKS, norm="batch"), optimizer=OptimizerConfig(ema=0.5)),
        torch.bfloat16,
    ),
    "both directions as one": (Config(optimizer=OptimizerConfig(ema=0.5), run=RunConfig(paired=True)), torch.bfloat16),
    "no norm": (Config(networks=replace(NETWORKS, norm="none")), torch.float32),
    "cycle alone": (Config(loss=LossConfig(lambda_gan=0.0)), torch.float32),
    "no pool, no identity loss": (Config(loss=LossConfig(pool_size=0, lambda_identity=0)), torch.float32),
}


QUICK = (
    "float32",
    "bigan",
    "cogan, gradient penalty",
    "cycle alone",
)


@pytest.mark.parametrize("case", slow_but(QUICK, CASES))
def test_replayed_steps_have_the_bits_of_steps_as_they_are(case: tuple[Config, torch.dtype]) -> None:
    """Trains with pools that overflow within a batch, rates and averages that change, and short batches in between."""
    config, dtype = case
    config = replace(
        config,
        data=replace(config.data, load_size=SIDE + 6, crop_size=SIDE),
        networks=replace(NETWORKS, checkpoint_blocks=config.networks.checkpoint_blocks, norm=config.networks.norm),
        loss=replace(config.loss, pool_size=min(config.loss.pool_size, 3)),
    )
    plain, recorded = step_of(config, dtype), step_of(config, dtype)
    recorder = OperatorRecorder(lambda: state_of(recorded))
    messages: list[str] = []
    eager = TrainingEngine(plain, config, messages.append)
    graphed = TrainingEngine(recorded, config, messages.append, recorder)
    for number in range(11):  # a short batch before the recording, and one between its replays
        for step in (plain, recorded):
            step.set_learning_rate(2e-4 / (1 + number))
        images = batch(2 if number % 5 == 4 else 4, number)
        expected, found = eager(images), graphed(images)
        assert list(found) == list(expected)
        for name, loss in found.items():
            assert torch.equal(loss, expected[name]), (number, name)
    assert recorder.recorded == 1
    assert messages == []
    for found_tensor, expected_tensor in zip(state_of(recorded), state_of(plain), strict=True):
        assert torch.equal(found_tensor, expected_tensor)
    assert recorded.random_source.getstate() == plain.random_source.getstate()


def test_a_run_that_was_saved_from_recorded_steps_continues_eagerly_with_the_same_bits() -> None:
    config = Config(
        data=DataConfig(load_size=SIDE + 6, crop_size=SIDE), networks=NETWORKS, loss=LossConfig(pool_size=3)
    )
    step = step_of(config, torch.float32)
    graphed = TrainingEngine(step, config, print, OperatorRecorder(lambda: state_of(step)))
    for number in range(8):
        graphed(batch(1, number))
    file = io.BytesIO()
    torch.save([step.model.state_dict(), step.state_dict(), step.rank_state_dict()], file)
    file.seek(0)
    model_state, step_state, rank_state = torch.load(file, weights_only=True)
    resumed = TrainingStep(Model(config), config, torch.float32)
    resumed.model.load_state_dict(model_state)
    resumed.load_state_dict(step_state)
    resumed.load_rank_state_dict(rank_state)
    eager = TrainingEngine(resumed, config, print)
    for number in range(8, 12):
        images = batch(1, number)
        expected = graphed(images)
        assert all(torch.equal(loss, expected[name]) for name, loss in eager(images).items())


class Failing(OperatorRecorder):
    """Records the first half of a step and fails."""

    def record(self, function):  # type: ignore[no-untyped-def]  # as the one above
        super().record(function)
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_under_auto_a_failed_recording_is_said_in_one_line_and_steps_go_on_as_they_are(dtype: torch.dtype) -> None:
    config = Config(data=DataConfig(load_size=SIDE + 6, crop_size=SIDE), networks=NETWORKS)
    plain, recorded = step_of(config, dtype), step_of(config, dtype)
    messages: list[str] = []
    graphed = TrainingEngine(recorded, config, messages.append, Failing(lambda: state_of(recorded)))
    eager = TrainingEngine(plain, config, messages.append)
    for number in range(WARM_UP + 4):
        images = batch(1, number)
        expected, found = eager(images), graphed(images)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert messages == ["no CUDA graph: operation not permitted when stream is capturing"]
    for found_tensor, expected_tensor in zip(state_of(recorded), state_of(plain), strict=True):
        assert torch.equal(found_tensor, expected_tensor)


class FailingLater(Failing):
    """Records the first shape well."""

    def record(self, function):  # type: ignore[no-untyped-def]  # as the one above
        return (super() if self.recorded else super(Failing, self)).record(function)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_after_a_failed_second_recording_no_earlier_one_is_replayed(dtype: torch.dtype) -> None:
    """It works on the scaler of before, which was replaced."""
    config = Config(data=DataConfig(load_size=SIDE + 6, crop_size=SIDE), networks=NETWORKS)
    plain, recorded = step_of(config, dtype), step_of(config, dtype)
    messages: list[str] = []
    recorder = FailingLater(lambda: state_of(recorded))
    graphed, eager = (
        TrainingEngine(recorded, config, messages.append, recorder),
        TrainingEngine(plain, config, messages.append),
    )
    for number in range(2 * WARM_UP + 6):
        images = batch(1 if number <= WARM_UP or number > 2 * WARM_UP + 2 else 2, number)
        expected, found = eager(images), graphed(images)
        assert all(torch.equal(found[name], expected[name]) for name in expected), number
    assert recorder.recorded == 2
    assert messages == ["no CUDA graph: operation not permitted when stream is capturing"]
    for found_tensor, expected_tensor in zip(state_of(recorded), state_of(plain), strict=True):
        assert torch.equal(found_tensor, expected_tensor)


def test_a_closed_engine_holds_no_graph() -> None:
    """Ranks' communicators wait for the last graph that uses them."""
    config = Config(data=DataConfig(load_size=SIDE + 6, crop_size=SIDE), networks=NETWORKS)
    step = step_of(config, torch.float32)
    replays: list[weakref.ref[object]] = []

    class Watched(OperatorRecorder):
        def record(self, function):  # type: ignore[no-untyped-def]  # as the ones above
            replay, outputs = super().record(function)
            graph = _Graph(replay)
            replays.append(weakref.ref(graph))
            return graph.replay, outputs

    graphed = TrainingEngine(step, config, pytest.fail, Watched(lambda: state_of(step)))
    for number in range(WARM_UP + 1):
        graphed(batch(1, number))
    (graph,) = replays
    assert graph() is not None
    graphed.close()
    assert graph() is None  # at once, not when the garbage collector comes by


class _Graph:
    def __init__(self, replay: Callable[[], None]) -> None:
        self.run = replay

    def replay(self) -> None:
        self.run()


def test_under_on_a_failed_recording_ends_the_run() -> None:
    config = Config(
        data=DataConfig(load_size=SIDE + 6, crop_size=SIDE), networks=NETWORKS, run=RunConfig(cuda_graph="on")
    )
    step = TrainingStep(Model(config), config, torch.float32)
    graphed = TrainingEngine(step, config, print, Failing(lambda: state_of(step)))
    for number in range(WARM_UP):
        graphed(batch(1, number))
    with pytest.raises(UserError, match="--cuda-graph on: operation not permitted when stream is capturing; leave it"):
        graphed(batch(1, 9))


def test_what_takes_a_value_from_the_host_cannot_be_recorded() -> None:
    """Makes the recorder that the tests above trust refuse what CUDA would."""
    x = torch.ones(2)
    for function in (lambda: {"y": x * x.sum().item()}, lambda: {"y": x + torch.tensor([1.0, 2.0])}):
        with pytest.raises(RuntimeError, match="cannot be recorded"):
            OperatorRecorder(list).record(function)


def double(inputs: Inputs) -> Outputs:
    return {"y": inputs["x"] * 2}


def test_each_shape_is_recorded_after_its_own_warm_up_and_no_more_than_a_few() -> None:
    reasons: list[str] = []
    recorder = OperatorRecorder(list)
    function = GraphedFunction(double, recorder, CPU, reasons.append)
    for size in range(1, MOST_SHAPES + 3):
        for call in range(WARM_UP + 3):
            x = torch.full((size,), float(10 * size + call))
            assert torch.equal(function({"x": x})["y"], 2 * x)
    assert recorder.recorded == MOST_SHAPES
    assert reasons == [f"batches of more than {MOST_SHAPES} shapes"]
    assert torch.equal(function({"x": torch.tensor([3.0])})["y"], torch.tensor([6.0]))


@pytest.mark.parametrize(
    ("config", "device", "reason"),
    [
        (Config(), "cuda", None),
        (Config(), "cpu", "there are no CUDA graphs on a cpu"),
        (Config(data=DataConfig(preprocess="none")), "cuda", "--preprocess none gives each image a shape of its own"),
        (Config(run=RunConfig(profile=3)), "cuda", "--profile tells apart"),
        (
            Config(
                data=DataConfig(batch_size=2),
                networks=NetworkConfig(generator="unet_256", dropout=True),
                loss=LossConfig(method="pix2pix"),
                optimizer=OptimizerConfig(accumulate=2),
            ),
            "cuda",
            "--accumulate makes translations twice",
        ),
    ],
)
def test_why_steps_cannot_be_recorded(config: Config, device: str, reason: str | None) -> None:
    found = reason_against_a_graph(config, torch.device(device))
    assert found is None if reason is None else found is not None and found.startswith(reason)


@pytest.mark.parametrize("wanted", ["auto", "off"])
def test_on_a_cpu_nobody_is_told_that_there_is_no_graph(wanted: CudaGraph) -> None:
    config = Config(networks=NETWORKS, run=RunConfig(cuda_graph=wanted))
    messages: list[str] = []
    TrainingEngine(TrainingStep(Model(config), config, torch.float32), config, messages.append)
    assert messages == []
