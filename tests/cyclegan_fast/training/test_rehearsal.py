"""Recordings that are wrong without an error, as a CUDA graph may be, and sound ones: which of them are noticed?"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig, RunConfig
from cyclegan_fast.config.presets import of_method
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.cuda_graph import Outputs
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.cuda_graph import WARM_UP, GraphedFunction
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.rehearsal import Rehearsal
from cyclegan_fast.training.step import TrainingStep
from tests.cyclegan_fast.operator_recorder import OperatorRecorder
from tests.cyclegan_fast.training.test_cuda_graph import CPU, NETWORKS, SIDE, batch, double, state_of, step_of

CONFIG = Config(
    data=DataConfig(load_size=SIDE + 6, crop_size=SIDE),
    networks=NETWORKS,
    loss=LossConfig(pool_size=3),
    optimizer=OptimizerConfig(ema=0.5),
)

Replay = Callable[[], None]
Fault = Callable[[TrainingStep, Replay, Outputs], Replay]
"""Makes a wrong replay out of a sound one, right after it was recorded."""


class Faulty(OperatorRecorder):
    """Records what is replayed with a fault."""

    def __init__(self, step: TrainingStep, fault: Fault) -> None:
        super().__init__(lambda: state_of(step))
        self.step, self.fault = step, fault

    def record(self, function: Callable[[], Outputs]) -> tuple[Replay, Outputs]:
        replay, outputs = super().record(function)
        return torch.no_grad()(self.fault(self.step, replay, outputs)), outputs


@contextmanager
def unchanged(tensors: list[Tensor]) -> Iterator[None]:
    before = [tensor.clone() for tensor in tensors]
    yield
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)


def leaves_out(write: str) -> Fault:
    """Return a fault that leaves what is written in the end as it was: a part of the step was not recorded."""

    def fault(step: TrainingStep, replay: Replay, outputs: Outputs) -> Replay:
        def wrong() -> None:
            with unchanged(step.written()[write]):
                replay()

        return wrong

    return fault


def with_values_of_its_own_time(step: TrainingStep, replay: Replay, outputs: Outputs) -> Replay:
    """Return a replay with the learning rate that the host had when the step was recorded."""
    rate = float(step.learning_rate)  # as it was then
    return lambda: with_rate(step, rate, replay)


def with_rate(step: TrainingStep, rate: float, replay: Replay) -> None:
    with unchanged([step.learning_rate]):
        step.learning_rate.fill_(rate)
        replay()


def in_memory_of_others(step: TrainingStep, replay: Replay, outputs: Outputs) -> Replay:
    """Return a replay in which an activation lies where something else is written meanwhile."""

    def wrong() -> None:
        replay()
        for weight in step.networks.originals["G_B"]:
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)), alpha=1e-3)

    return wrong


def without_a_loss(step: TrainingStep, replay: Replay, outputs: Outputs) -> Replay:
    def wrong() -> None:
        replay()
        outputs["cycle_A"].fill_(float("nan"))

    return wrong


def of_other_images(step: TrainingStep, replay: Replay, outputs: Outputs) -> Replay:
    """Return a replay with a loss of the recording's inputs: off by little, as losses of other images are."""

    def wrong() -> None:
        replay()
        outputs["idt_B"].mul_(1.03)

    return wrong


FAULTS: dict[str, tuple[Fault, str]] = {
    "no update of the generators": (leaves_out("weights of G_A"), "the weights of G_A end "),
    "no update of the discriminators": (leaves_out("weights of D_B"), "the weights of D_B end "),
    "no update of Adam's moments": (leaves_out("second moments of the generators"), "the second moments of the gen"),
    "no count of steps": (leaves_out("counts of the discriminators"), "the counts of the discriminators end"),
    "no update of the averages": (leaves_out("averages of G_B"), "the averages of G_B end"),
    "no image kept": (leaves_out("images in pool A"), "the images in pool A end"),
    "a loss that is NaN": (without_a_loss, "the loss cycle_A is nan instead of "),
    "a loss of other images": (of_other_images, "the loss idt_B is "),
    "weights in memory of others": (in_memory_of_others, "the weights of G_B end"),
}


def train_both(
    dtype: torch.dtype, fault: Fault, config: Config = CONFIG, steps: int = WARM_UP + 4
) -> tuple[list[str], Faulty]:
    """Eager steps, and steps whose recordings have the fault, side by side: all of their bits must be the same."""
    plain, recorded = step_of(config, dtype), step_of(config, dtype)
    messages: list[str] = []
    recorder = Faulty(recorded, fault)
    eager = TrainingEngine(plain, replace(config, run=RunConfig(cuda_graph="off")), pytest.fail)
    graphed = TrainingEngine(recorded, config, messages.append, recorder)
    for number in range(steps):
        images = batch(1, number)
        expected, found = eager(images), graphed(images)
        assert all(torch.equal(found[name], expected[name]) for name in expected), number
    for found_tensor, expected_tensor in zip(state_of(recorded), state_of(plain), strict=True):
        assert torch.equal(found_tensor, expected_tensor)
    assert recorded.random_source.getstate() == plain.random_source.getstate()
    return messages, recorder


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_recording_is_noticed_and_training_goes_on_as_if_nothing_had_been(name: str) -> None:
    fault, complaint = FAULTS[name]
    check(fault, complaint, torch.float32)


def test_a_missing_update_is_noticed_in_a_step_that_a_loss_scaler_would_leave_out() -> None:
    """Overflows as most first steps in float16 do: nothing moves in them."""
    check(leaves_out("weights of D_B"), "the weights of D_B end ", torch.float16)


def check(fault: Fault, complaint: str, dtype: torch.dtype) -> None:
    messages, recorder = train_both(dtype, fault)
    assert recorder.recorded == 1
    (message,) = messages
    assert message.startswith(f"no CUDA graph: replayed, a step differs from what it is ({complaint}")


def test_a_learning_rate_that_the_recording_took_from_the_host_is_noticed() -> None:
    """It would be right for all of an epoch's steps, and wrong from the first that has another."""
    messages, _ = train_both(torch.float32, with_values_of_its_own_time)
    assert len(messages) == 1
    assert "the weights of G_A end" in messages[0]


def test_a_learning_rate_that_is_no_tensor_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the rate as a number, which goes into the recording for good."""

    def as_a_number(step: TrainingStep, learning_rate: float) -> None:
        for descent in (step.generators, step.discriminators):
            descent.optimizer.param_groups[0]["lr"] = learning_rate

    monkeypatch.setattr(TrainingStep, "set_learning_rate", as_a_number)
    step, messages = step_of(CONFIG, torch.float32), list[str]()
    graphed = TrainingEngine(step, CONFIG, messages.append, OperatorRecorder(lambda: state_of(step)))
    for number in range(WARM_UP + 1):
        graphed(batch(1, number))
    assert len(messages) == 1
    assert "differs from what it is (the weights of G_A end " in messages[0]


def test_a_recording_that_holds_on_to_its_own_inputs_is_noticed() -> None:
    """Compared with the inputs that it was recorded with, it would look right."""

    class Holding(OperatorRecorder):
        def record(self, function: Callable[[], Outputs]) -> tuple[Replay, Outputs]:
            _, outputs = super().record(function)
            return (lambda: None), outputs

    reasons: list[str] = []
    graphed = GraphedFunction(double, Holding(list), CPU, reasons.append)
    for call in range(WARM_UP + 3):
        x = torch.full((2,), 1.0 + call)
        assert torch.equal(graphed({"x": x})["y"], 2 * x), call
    assert reasons == ["replayed, a step differs from what it is (the loss y is 0 instead of 8)"]


def test_under_on_a_wrong_recording_ends_the_run_with_the_state_before_it() -> None:
    config = replace(CONFIG, run=RunConfig(cuda_graph="on"))
    plain, recorded = step_of(config, torch.float32), step_of(config, torch.float32)
    eager = TrainingEngine(plain, replace(config, run=RunConfig(cuda_graph="off")), pytest.fail)
    graphed = TrainingEngine(recorded, config, pytest.fail, Faulty(recorded, FAULTS["no update of the generators"][0]))
    for number in range(WARM_UP):
        eager(batch(1, number))
        graphed(batch(1, number))
    with pytest.raises(UserError, match=r"--cuda-graph on: replayed, a step differs .* leave it at auto to train"):
        graphed(batch(1, 9))
    for found, expected in zip(state_of(recorded), state_of(plain), strict=True):
        assert torch.equal(found, expected)


def nearly_the_same(step: TrainingStep, replay: Replay, outputs: Outputs) -> Replay:
    """Sums in another order: each weight moves by up to 10 % more or less, each loss is off in its fourth digit."""

    def other() -> None:
        weights = [weight for of_network in step.networks.originals.values() for weight in of_network]
        before = [weight.clone() for weight in weights]
        replay()
        generator = torch.Generator().manual_seed(0)
        for weight, start in zip(weights, before, strict=True):
            noise = 0.2 * torch.rand(weight.shape, generator=generator) - 0.1
            weight.add_((weight - start) * noise)
        for loss in outputs.values():
            loss.mul_(1.0005)

    return other


def test_a_recording_that_leaves_copies_of_weights_behind_is_noticed() -> None:
    weight = torch.linspace(1, 2, 64)
    copy = weight.bfloat16()
    rehearsal = Rehearsal({"weights": [weight]}, weight.device, [(copy, weight)])

    def step(by: float) -> None:
        weight.add_(by)
        copy.copy_(weight)

    step(0.01)
    rehearsal.take_back({})
    assert torch.equal(copy, weight.bfloat16())
    step(0.0101)  # a rounding elsewhere, which takes some copies the other way
    assert rehearsal.difference({}) is None
    rehearsal.put_back()
    weight.add_(0.01)
    assert "weights differ from the copies" in (rehearsal.difference({}) or "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_rounding_does_is_no_difference(dtype: torch.dtype) -> None:
    step = step_of(CONFIG, dtype)
    graphed = TrainingEngine(step, CONFIG, pytest.fail, Faulty(step, nearly_the_same))
    for number in range(WARM_UP + 3):
        graphed(batch(1, number))
    assert graphed._graphed is not None
    assert len(graphed._graphed.recordings) == 1


def test_a_replayed_step_drops_what_the_step_as_it_is_drops() -> None:
    """Draws dropout in a U-Net, whose numbers the comparison must not use up; its batch norm has weights."""
    config = of_method(replace(CONFIG, networks=NetworkConfig(ngf=2, ndf=2, impl="reference")), "pix2pix")
    config = replace(
        config,
        data=DataConfig(load_size=128, crop_size=128),
        networks=NetworkConfig(generator="unet_128", ngf=2, ndf=2, norm="batch", dropout=True, impl="reference"),
    )

    def photos(number: int) -> Any:
        whole = batch(2, number)
        return replace(
            whole,
            pixels_A=whole.pixels_A.repeat(1, 5, 5, 1),
            pixels_B=whole.pixels_B.repeat(1, 5, 5, 1),
            size_A=(128, 128),
            size_B=(128, 128),
        )

    def seeded() -> TrainingStep:
        torch.manual_seed(0)
        return TrainingStep(Model(config), config, torch.float32, random.Random(3))

    plain = seeded()
    eager, expected = TrainingEngine(plain, replace(config, run=RunConfig(cuda_graph="off")), pytest.fail), []
    for number in range(WARM_UP + 3):
        expected.append(eager(photos(number)))
    drawn = torch.get_rng_state()
    recorded = seeded()
    graphed = TrainingEngine(recorded, config, pytest.fail, OperatorRecorder(lambda: state_of(recorded)))
    for number in range(WARM_UP + 3):
        found = graphed(photos(number))
        assert all(torch.equal(found[name], loss) for name, loss in expected[number].items()), number
    assert torch.equal(torch.get_rng_state(), drawn)
    for found_tensor, expected_tensor in zip(state_of(recorded), state_of(plain), strict=True):
        assert torch.equal(found_tensor, expected_tensor)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [(0, "another process could not record its step"), (1, "replayed, a step differs from what it is (on another pro")],
)
def test_processes_decide_alike_whether_they_replay(asked: int, reason: str) -> None:
    """Another one gives up at the first question, whether a recording failed, or at the second, whether it differs."""
    answers: list[bool] = []

    def agree(own: bool) -> bool:
        assert not own
        answers.append(len(answers) == asked)
        return answers[-1]

    reasons: list[str] = []
    recorder = OperatorRecorder(list)
    graphed = GraphedFunction(double, recorder, CPU, reasons.append, agree=agree)
    for call in range(WARM_UP + 3):
        x = torch.full((2,), 1.0 + call)
        assert torch.equal(graphed({"x": x})["y"], 2 * x)
    assert len(answers) == asked + 1
    assert not graphed.recordings
    assert len(reasons) == 1
    assert reasons[0].startswith(reason)


def test_the_engine_asks_the_ranks_of_its_step() -> None:
    class Counting(Ranks):
        questions = 0

        def any(self, flag: bool) -> bool:
            self.questions += 1
            return flag

    ranks = Counting()
    torch.manual_seed(0)
    step = TrainingStep(Model(CONFIG), CONFIG, torch.float32, random.Random(3), ranks)
    graphed = TrainingEngine(step, CONFIG, pytest.fail, OperatorRecorder(lambda: state_of(step)))
    for number in range(WARM_UP + 3):
        graphed(batch(1, number))
    assert ranks.questions == 2
