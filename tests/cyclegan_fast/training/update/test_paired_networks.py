"""Holds steps that compute both directions as one to those that compute them one after the other."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig, RunConfig
from cyclegan_fast.methods.model import Model
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update.paired_networks import PairedNetworks
from tests.slow import slow_but

TINY = NetworkConfig(generator="resnet_6", ngf=4, ndf=4, impl="reference")
CONFIG = Config(networks=TINY, loss=LossConfig(pool_size=2))
CASES: dict[str, dict[str, Any]] = {
    "upsampling by resizing, discriminators without norm": {
        "networks": replace(TINY, upsampling="resize", discriminator_norm="none")
    },
    "no norm, one layer": {"networks": replace(TINY, norm="none", discriminator="n_layers", n_layers=1)},
    "pixels": {"networks": replace(TINY, discriminator="pixel")},
    "cross entropy, no cycles": {"loss": LossConfig(gan_loss="vanilla", lambda_cycle=0, lambda_identity=0)},
    "cycles alone": {"loss": LossConfig(lambda_gan=0, pool_size=0)},
    "wgan without a penalty": {"loss": LossConfig(gan_loss="wgan-gp", lambda_penalty=0)},
    "averages, two parts": {
        "data": DataConfig(batch_size=2),
        "optimizer": OptimizerConfig(accumulate=2, ema=0.9),
        "loss": LossConfig(gan_loss="hinge", lambda_gan=0.5, lambda_cycle_a=3, lambda_cycle_b=3),
    },
}


def step_of(config: Config, dtype: torch.dtype = torch.float64, *, paired: bool) -> TrainingStep:
    torch.manual_seed(0)
    config = replace(config, run=RunConfig(paired=paired))
    return TrainingStep(Model(config).double(), config, dtype, random.Random(3))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    real_A, real_B = (torch.rand(2, 3, 24, 24, generator=generator, dtype=torch.float64) * 2 - 1 for _ in "AB")
    return real_A, real_B


def assert_same(ours: TrainingStep, other: TrainingStep, bound: float = 1e-9) -> None:
    expected = dict(other.model.named_parameters())
    for name, weight in ours.model.named_parameters():
        difference = (weight - expected[name]).abs().max()
        assert difference <= bound * expected[name].abs().max(), name


@pytest.mark.parametrize("case", slow_but((next(iter(CASES)), "averages, two parts"), CASES))
def test_steps_in_float64_are_the_same(case: dict[str, Any]) -> None:
    config = replace(CONFIG, **case)
    paired, apart = step_of(config, paired=True), step_of(config, paired=False)
    assert paired.directions_at_once == 1
    for number in range(4):
        found, expected = paired(*batch(number)), apart(*batch(number))
        assert list(found) == list(expected)
        for name, loss in found.items():
            assert float(loss) == pytest.approx(float(expected[name]), rel=1e-9), (number, name)
    assert_same(paired, apart)
    assert paired.random_source.getstate() == apart.random_source.getstate()


def test_there_and_back_have_one_memory_and_leaves_of_their_own() -> None:
    """Expects new weights everywhere after a refresh, and images of the way back in the order of its networks."""
    model = Model(CONFIG).double()
    networks = PairedNetworks(model, torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    networks.refresh(networks.by_name)
    (A, B), both = batch(0), torch.cat(batch(0), 1)
    expected = {"G_AB": ("G_A", "G_B"), "G_BA": ("G_B", "G_A"), "D_AB": ("D_A", "D_B")}
    assert networks.by_name.keys() == expected.keys()
    for name, (first, second) in expected.items():
        apart = torch.cat([model.get_submodule(first)(A), model.get_submodule(second)(B)], 1)
        torch.testing.assert_close(networks.by_name[name](both), apart, rtol=1e-12, atol=1e-13)
    for there, back in zip(networks.leaves["G_AB"], networks.leaves["G_BA"], strict=True):
        assert there is not back
        assert there.untyped_storage().data_ptr() == back.untyped_storage().data_ptr()


def test_a_run_goes_on_with_the_other_choice() -> None:
    """Expects four steps, two of them with each choice, to be four steps without it."""
    apart = step_of(CONFIG, paired=False)
    mixed = step_of(CONFIG, paired=True)
    for number in range(4):
        if number == 2:
            continued = step_of(CONFIG, paired=False)
            continued.model.load_state_dict(mixed.model.state_dict())
            continued.load_state_dict(mixed.state_dict())
            continued.load_rank_state_dict(mixed.rank_state_dict())
            mixed = continued
        mixed(*batch(number))
        apart(*batch(number))
    assert_same(mixed, apart)


def test_float16_scales_the_losses_of_both_directions_alike() -> None:
    """Expects gradients near those without the option, where a wrong scale would give a multiple of them."""
    gradients = []
    for paired in (True, False):
        torch.manual_seed(0)
        config = replace(CONFIG, run=RunConfig(paired=paired))
        step = TrainingStep(Model(config), config, torch.float16, random.Random(3))
        for side in (step.generators, step.discriminators):
            side.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        step(*(image.float() for image in batch(0)))
        named = step.model.named_parameters()
        gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
    found, expected = gradients
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert (gradient - expected[name]).norm() <= 0.05 * expected[name].norm(), name
