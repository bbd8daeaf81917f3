"""pix2pix's step against a straight transcription of the authors' update, and what --method pix2pix alone trains."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from cyclegan_fast.checkpoint import from_original
from cyclegan_fast.config import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig
from cyclegan_fast.model import Model
from cyclegan_fast.step import TrainingStep
from tests.cyclegan_fast.test_unet import Original, plain_discriminator

SIDE, WIDTH, HALVINGS = 128, 2, 7
STEPS = 20
CONFIG = Config(
    data=DataConfig(load_size=SIDE, crop_size=SIDE),
    networks=NetworkConfig(generator="unet_128", ngf=WIDTH, ndf=WIDTH, norm="batch", dropout=True, impl="reference"),
    loss=LossConfig(method="pix2pix", gan_loss="vanilla", pool_size=0),
    optimizer=OptimizerConfig(learning_rate=2e-4),
)


class OneDirection:
    """The authors' pix2pix, line by line: one generator, one conditional discriminator, an optimiser for each."""

    def __init__(self) -> None:
        self.G = Original(WIDTH, HALVINGS, "batch", dropout=True).double()
        self.D = plain_discriminator(WIDTH, 6).double()
        for module in chain(self.G.modules(), self.D.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.1)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.1)
        self.of_G = torch.optim.Adam(self.G.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.of_D = torch.optim.Adam(self.D.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.adversarial, self.l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def forward(self, source: Tensor) -> None:
        self.source, self.fake = source, self.G(source)

    def judged(self, translation: Tensor, label: float) -> Tensor:
        scores = self.D(torch.cat([self.source, translation], 1))
        loss: Tensor = self.adversarial(scores, torch.full_like(scores, label))
        return loss

    def train_D(self, target: Tensor) -> Tensor:
        loss = 0.5 * (self.judged(self.fake.detach(), 0.0) + self.judged(target, 1.0))
        self.of_D.zero_grad()
        torch.autograd.backward(loss)
        self.of_D.step()
        return loss.detach()

    def train_G(self, target: Tensor) -> tuple[Tensor, Tensor]:
        losses = self.judged(self.fake, 1.0), 100 * self.l1(self.fake, target)
        self.of_G.zero_grad()
        torch.autograd.backward(losses[0] + losses[1])
        self.of_G.step()
        return losses[0].detach(), losses[1].detach()


def batches(count: int, size: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        A, B = (torch.rand(size, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) * 2 - 1 for _ in "AB")
        yield A, B


def test_twenty_steps_in_float64_are_those_of_the_authors_code() -> None:
    """Both directions, with the same activations dropped: the discriminator first, then the generator against it."""
    torch.manual_seed(0)
    plain = {"A": OneDirection(), "B": OneDirection()}
    step = TrainingStep(Model(CONFIG).double(), CONFIG, torch.float64, random.Random(0))
    for suffix, one in plain.items():
        step.model.get_submodule(f"G_{suffix}").load_state_dict(from_original(one.G.state_dict()))
        of_D = {f"model.{key}": value for key, value in one.D.state_dict().items()}
        step.model.get_submodule(f"D_{suffix}").load_state_dict(from_original(of_D))
    start = {name: weight.clone() for name, weight in step.model.state_dict().items()}
    worst = 0.0
    for number, (A, B) in enumerate(batches(STEPS)):
        torch.manual_seed(number)
        losses = step(A, B)
        torch.manual_seed(number)
        expected: dict[str, Tensor] = {}
        pairs = {"A": (A, B), "B": (B, A)}
        for suffix, (source, _) in pairs.items():
            plain[suffix].forward(source)
        for suffix, (_, target) in pairs.items():
            expected[f"D_{suffix}"] = plain[suffix].train_D(target)
            expected[f"G_{suffix}"], expected[f"paired_{suffix}"] = plain[suffix].train_G(target)
        assert set(losses) == set(expected)
        for name, loss in expected.items():
            torch.testing.assert_close(losses[name], loss, rtol=1e-9, atol=0, msg=f"{name} at step {number}")
    for suffix, one in plain.items():
        of_D = {f"model.{key}": value for key, value in one.D.state_dict().items()}
        for name, state in ((f"G_{suffix}", one.G.state_dict()), (f"D_{suffix}", of_D)):
            found = step.model.get_submodule(name).state_dict()
            for key, weight in from_original(state).items():
                difference = ((found[key] - weight).abs().max() / weight.abs().max()).item()
                assert difference <= 1e-9, (name, key, difference)
                worst = max(worst, difference)
                assert not torch.equal(found[key], start[f"{name}.{key}"])
    print(f"worst relative difference of weights over {STEPS} steps: {worst:.1e}")


def test_translations_are_made_again_where_the_parts_of_a_batch_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, whose draws the second time are those of the first: gradients are those of what was judged."""
    networks = replace(CONFIG.networks, norm="instance")
    parts = replace(
        CONFIG, networks=networks, data=replace(CONFIG.data, batch_size=2), optimizer=OptimizerConfig(accumulate=2)
    )
    at_once = replace(parts, optimizer=OptimizerConfig())
    steps = []
    for config in (parts, at_once):
        torch.manual_seed(0)
        steps.append(TrainingStep(Model(config).double(), config, torch.float64, random.Random(0)))
    in_parts, whole = steps
    A, B = next(batches(1, 2))
    torch.manual_seed(5)
    found = in_parts(A, B)
    # One image after the other, each in both directions: so the parts draw.
    torch.manual_seed(5)
    made: dict[str, list[Tensor]] = {"G_A": [], "G_B": []}
    for index in range(2):
        for name, images in (("G_A", A), ("G_B", B)):
            made[name].append(whole.networks[name](images[index : index + 1]))
    whole._forward_of_parts = {
        "G_A": lambda images: torch.cat(made["G_A"]),
        "G_B": lambda images: torch.cat(made["G_B"]),
    }
    expected = whole(A, B)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-9, atol=1e-12)
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(in_parts.model.state_dict()[name], weight, rtol=1e-7, atol=1e-9)
