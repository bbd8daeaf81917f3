"""Learning rates of all policies are those of torch's schedulers, and a run continues with them to the bit."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from cyclegan_fast import train
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.config import command as settings
from cyclegan_fast.config.options import OptimizerConfig, Policy
from cyclegan_fast.system.distributed import ALONE
from cyclegan_fast.training import loop, session
from cyclegan_fast.training.schedule import Schedule, linear_factor
from tests.cyclegan_fast.conftest import TINY
from tests.slow import slow_but

RATE, EPOCHS, DECAY = 2e-4, 7, 6

DEFINITIONS: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "linear": lambda o: lr_scheduler.LambdaLR(o, lambda e: 1 - max(0, e + 1 - EPOCHS) / float(DECAY + 1)),
    "step": lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.1),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=EPOCHS, eta_min=0),
}
"""The original makes them so, and steps at the end of each epoch."""


def options(policy: Policy, **changes: Any) -> OptimizerConfig:
    own = {"step_epochs": 3} if policy == "step" else {}
    return OptimizerConfig(
        learning_rate=RATE, learning_rate_policy=policy, epochs=EPOCHS, decay_epochs=DECAY, **own, **changes
    )


@pytest.mark.parametrize("policy", DEFINITIONS)
def test_the_rate_of_every_epoch_is_that_of_torchs_scheduler(policy: Policy) -> None:
    optimizer = torch.optim.SGD([torch.zeros(())], lr=RATE)
    scheduler, schedule = DEFINITIONS[policy](optimizer), Schedule(options(policy), [])
    seen = []
    for epoch in range(1, EPOCHS + DECAY + 1):
        assert schedule.rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-19), epoch
        seen.append(schedule.rate(epoch))
        optimizer.step()
        scheduler.step()
    assert len({*seen}) > 3


def test_the_linear_rate_of_every_epoch_is_the_contracts_formula() -> None:
    for epoch in range(1, 201):
        exact = 1 - Fraction(max(0, epoch - 100), 101)
        assert linear_factor(epoch, 100, 100) == pytest.approx(float(exact), rel=1e-14), epoch
    known = {1: 1.0, 100: 1.0, 101: 100 / 101, 150: 51 / 101, 200: 1 / 101}
    assert {epoch: linear_factor(epoch, 100, 100) for epoch in known} == pytest.approx(known, rel=1e-14)
    assert [linear_factor(epoch, 3, 0) for epoch in (1, 2, 3)] == [1.0, 1.0, 1.0]


def losses_of(value: float) -> dict[str, Tensor]:
    """Return two losses whose sum is the value, and one of a discriminator, which nobody watches."""
    return {"G_A": torch.tensor(value - 1), "cycle_A": torch.tensor(1.0), "D_A": torch.tensor(100 * value)}


def test_plateau_falls_where_torchs_scheduler_falls_from_the_means_of_epochs() -> None:
    """Losses that fall, stay, fall by less than a hundredth, and rise; continued from a file in each epoch's middle."""
    optimizer = torch.optim.SGD([torch.zeros(())], lr=RATE)
    definition = lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.2, threshold=0.01, patience=5)
    means = [5.0, 4.0, *[4.0] * 4, *[3.99] * 4, 3.9, *[3.9] * 5, 3.95, 4.2, *[4.0] * 8]
    schedule, seen = Schedule(options("plateau"), ["G_A", "cycle_A"]), []
    for epoch, mean in enumerate(means, 1):
        assert schedule.rate(epoch) == optimizer.param_groups[0]["lr"], epoch
        seen.append(schedule.rate(epoch))
        schedule.hear(losses_of(mean - 0.5))
        state = schedule.state_dict()
        schedule = Schedule(options("plateau"), ["G_A", "cycle_A"])
        schedule.load_state_dict(state, torch.device("cpu"))
        schedule.hear(losses_of(mean + 0.5))
        schedule.end_epoch(ALONE)
        definition.step(mean)
    assert len({*seen}) == 4


@pytest.mark.parametrize("policy", slow_but(["linear"], [*DEFINITIONS, "plateau"]))
def test_a_run_that_is_interrupted_continues_with_the_same_rates_and_bits(
    policy: Policy, folder: Path, tmp_path: Path
) -> None:
    """Trains two epochs and a half of three steps, stopped in the middle of one and at the end of one."""
    flags = ["--data", str(folder), *TINY, "--batch-size", "2", "--learning-rate-policy", policy, "--epochs", "2"]
    flags += ["--decay-epochs", "1", "--report-every", "1", "--checkpoint-every", "1", "--cuda-graph", "off"]
    flags += ["--step-epochs", "1"] if policy == "step" else []
    runs = {}
    for name, stops in (("whole", ()), ("parted", (3, 5))):
        arguments = [*flags, "--runs", str(tmp_path), "--name", name]
        patch = pytest.MonkeyPatch()
        for stop in stops:
            keep = loop.Training.keep_records

            def interrupted(self: loop.Training, *due: Any, stop: int = stop, keep: Any = keep) -> None:
                keep(self, *due)
                if self.log.step == stop:
                    raise KeyboardInterrupt

            patch.setattr(loop.Training, "keep_records", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.train(*settings.parse_training(arguments))
            patch.undo()
        assert train.main(arguments) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
        runs[name] = rates, checkpoint.load(tmp_path / name / "checkpoints" / "last.pt")
    assert runs["whole"][0] == runs["parted"][0]
    assert len(runs["whole"][0]) == 9
    for key, weight in runs["whole"][1]["model"].items():
        assert torch.equal(weight, runs["parted"][1]["model"][key]), key
    assert runs["whole"][1]["ranks"][0]["schedule"] == runs["parted"][1]["ranks"][0]["schedule"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate_policy": "exponential"}, "learning_rate_policy must be one of linear, step, plateau, cosine"),
        ({"step_epochs": 3}, "step_epochs is of learning_rate_policy step: it has no effect on linear"),
        ({"learning_rate_policy": "step", "step_epochs": 0}, "step_epochs must be a whole number from 1"),
        ({"learning_rate_policy": "cosine", "epochs": 0}, "cosine needs epochs above 0"),
    ],
)
def test_what_makes_no_schedule_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**changes)
