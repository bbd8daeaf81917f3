"""Holds updates that write the copies of weights to those that do not, on one stream and on two."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from cyclegan_fast.config.options import Config, OptimizerConfig, RunConfig
from cyclegan_fast.kernels.launching import Grid, launching_with
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.distributed import ALONE
from cyclegan_fast.training import step as module
from cyclegan_fast.training.rehearsal import Rehearsal
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update import second_stream
from cyclegan_fast.training.update.choice import updates_directly
from cyclegan_fast.training.update.step_parts import StepParts
from tests.cyclegan_fast.stream_watch import PretendStreams, Watch
from tests.cyclegan_fast.training.test_cuda_graph import state_of
from tests.cyclegan_fast.training.update.test_direction_streams import images, of_method, step_on, tiny

PAIRED = tiny(Config(run=RunConfig(paired=True)))


@pytest.fixture
def directly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let steps of a CPU update as those of a GPU do."""
    monkeypatch.setattr(module, "updates_directly", lambda *arguments, **options: True)
    return


def new_step(config: Config, dtype: torch.dtype) -> TrainingStep:
    """Return a new step, whose weights are in float64 unless it computes in bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(before if dtype == torch.bfloat16 else torch.float64)
    try:
        return step_on(StepParts(), config, dtype)
    finally:
        torch.set_default_dtype(before)


def batch(number: int, dtype: torch.dtype) -> list[torch.Tensor]:
    return [each.double() if dtype == torch.float64 else each for each in images(number, 2)]


def trained(step: TrainingStep, steps: range = range(3)) -> TrainingStep:
    for number in steps:
        step(*batch(number, step.dtype))
    return step


def farthest(one: TrainingStep, other: TrainingStep) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(state_of(one), state_of(other), strict=True))


CASES = {
    "paired": (PAIRED, torch.bfloat16, 1e-6),
    "apart": (tiny(Config()), torch.bfloat16, 1e-6),
    "moving average": (tiny(Config(optimizer=OptimizerConfig(ema=0.5))), torch.bfloat16, 1e-6),
    "simgan": (tiny(of_method(Config(), "simgan")), torch.bfloat16, 1e-6),
    "discriminators first": (tiny(of_method(Config(), "pix2pix")), torch.float32, 1e-9),
    "contract": (PAIRED, torch.float64, 1e-9),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_steps_are_those_of_pytorchs_adam(
    case: tuple[Config, torch.dtype, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, dtype, tolerance = case
    is_exact = dtype != torch.bfloat16
    steps = range(3) if is_exact else range(1)  # roundings of bfloat16 go different ways behind the first one
    expected = new_step(config, dtype)
    expected_losses = [expected(*batch(number, dtype)) for number in steps]
    monkeypatch.setattr(module, "updates_directly", lambda *arguments, **options: True)
    found = new_step(config, dtype)
    assert found.generators.is_direct
    assert found.generators._flat is None
    found_losses = [found(*batch(number, dtype)) for number in steps]
    assert farthest(found, expected) < tolerance
    for ours, theirs in zip(found_losses, expected_losses, strict=True):
        assert {name: float(loss) for name, loss in ours.items()} == pytest.approx(
            {name: float(loss) for name, loss in theirs.items()}, abs=1e-9
        )
    copies = [copy for them in found.networks.copies(found.networks.by_name).values() for copy in them]
    originals = [p for name in found.networks.copies(found.networks.by_name) for p in found.networks.originals[name]]
    for copy, original in zip(copies, originals, strict=True):
        assert torch.equal(copy, original.to(dtype))


@pytest.mark.usefixtures("directly")
def test_discriminators_updated_behind_the_backward_pass_leave_one_streams_bits() -> None:
    one = trained(step_on(StepParts(), PAIRED, torch.bfloat16))
    streams = PretendStreams()
    two = step_on(StepParts(), PAIRED, torch.bfloat16)
    two.take_streams(streams)
    with Watch(streams) as watch:
        trained(two)
    assert watch.reports == []
    assert farthest(one, two) == 0


def launches(step: TrainingStep) -> list[int]:
    """Return how many weights each update of a step's weights has; kernels write nothing."""
    found = []

    def count(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        if kernel.fn.__name__ == "adam_moments_and_weights":
            found.append(len(arguments["weight_ptrs"]))

    with launching_with(count):
        trained(step, range(1))
    return found


@pytest.mark.usefixtures("directly")
@pytest.mark.parametrize("late", [2, 0, 100])
@pytest.mark.parametrize("without", [None, "join_mark", "join"])
def test_updates_wait_for_what_the_second_stream_computes(
    late: int, without: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goes through a step whose kernels write nothing: only the order counts here."""
    monkeypatch.setattr(second_stream, "LATE_GRADIENTS", late)
    streams = PretendStreams(without)
    config = replace(PAIRED, networks=replace(PAIRED.networks, impl="triton"))
    with launching_with(lambda *launch: None):
        step = step_on(StepParts(), config, torch.bfloat16)
    step.take_streams(streams)
    with Watch(streams) as watch:
        weights = launches(step)
    assert bool(watch.reports) == (without is not None)
    assert sum(weights) == sum(map(len, step.networks.originals.values()))
    if without is None and late == 2:
        assert weights[-1] == 2 * late  # of both generators


@pytest.mark.usefixtures("directly")
def test_weights_that_others_wrote_are_cast_in_front_of_the_next_step() -> None:
    step = trained(step_on(StepParts(), PAIRED, torch.bfloat16))
    versions = step.networks._versions
    step.draw(2)
    assert step.networks._versions is versions
    with torch.no_grad():
        for parameter in step.model.parameters():
            parameter.mul_(0.5)
    step.draw(2)
    copies = step.networks.copies(step.networks.by_name)
    for name, of_network in copies.items():
        for copy, original in zip(of_network, step.networks.originals[name], strict=True):
            assert torch.equal(copy, original.bfloat16())


def test_a_training_goes_on_with_the_other_update(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch.float64
    expected = trained(new_step(PAIRED, exact), range(2))
    monkeypatch.setattr(module, "updates_directly", lambda *arguments, **options: True)
    first = trained(new_step(PAIRED, exact), range(1))
    monkeypatch.undo()
    second = new_step(PAIRED, exact)
    second.model.load_state_dict(first.model.state_dict())
    second.generators.load_state_dict(first.generators.state_dict())
    second.discriminators.load_state_dict(first.discriminators.state_dict())
    second.pool_A, second.pool_B = first.pool_A, first.pool_B
    second.random_source.setstate(first.random_source.getstate())
    trained(second, range(1, 2))
    assert farthest(second, expected) < 1e-9


@pytest.mark.usefixtures("directly")
def test_what_a_rehearsal_takes_back_has_the_copies() -> None:
    step = trained(step_on(StepParts(), PAIRED, torch.bfloat16), range(1))
    rehearsal = Rehearsal(step.written(), step.device, step.networks.kept_copies())
    before = [copy.clone() for copy, _ in step.networks.kept_copies()]
    assert len(before) > 0
    trained(step, range(1, 2))
    rehearsal.put_back()
    for (copy, original), value in zip(step.networks.kept_copies(), before, strict=True):
        assert torch.equal(copy, value)
        assert torch.equal(copy, original.bfloat16())


def test_updates_are_direct_only_where_nothing_else_needs_the_gradients() -> None:
    config = replace(PAIRED, networks=replace(PAIRED.networks, impl="triton"))
    with torch.device("meta"):
        model = Model(config)
    assert updates_directly(config, model, ALONE, scaled=False)
    assert not updates_directly(config, model, ALONE, scaled=True)
    assert not updates_directly(PAIRED, model, ALONE, scaled=False)  # reference
    in_parts = replace(config, data=replace(config.data, batch_size=2), optimizer=OptimizerConfig(accumulate=2))
    assert not updates_directly(in_parts, model, ALONE, scaled=False)
    assert not updates_directly(config, Model(config), ALONE, scaled=False)  # on a CPU
