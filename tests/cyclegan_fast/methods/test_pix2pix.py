"""pix2pix's step against a straight transcription of the authors' update, and what --method pix2pix alone trains."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from cyclegan_fast.checkpoint.original import from_original
from cyclegan_fast.config import command as settings, values
from cyclegan_fast.config.options import Config, DataConfig, InitType, LossConfig, NetworkConfig, OptimizerConfig
from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks.layers import initialise
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.step import TrainingStep
from tests.cyclegan_fast.networks.test_unet import Original, plain_discriminator

SIDE, WIDTH, HALVINGS = 128, 2, 7
STEPS = 20
CONFIG = Config(
    data=DataConfig(load_size=SIDE, crop_size=SIDE),
    networks=NetworkConfig(generator="unet_128", ngf=WIDTH, ndf=WIDTH, norm="batch", dropout=True, impl="reference"),
    loss=LossConfig(method="pix2pix", gan_loss="vanilla", pool_size=0),
    optimizer=OptimizerConfig(learning_rate=2e-4),
)


class OneDirection:
    """Trains as the authors' pix2pix, line by line: a generator, a conditional discriminator, an optimiser for each."""

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
    """Draws the same dropout the second time as the first: gradients are those of what was judged."""
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
            made[name].append(whole.networks.by_name[name](images[index : index + 1]))
    whole.passes.forward_of_parts = {
        "G_A": lambda images: torch.cat(made["G_A"]),
        "G_B": lambda images: torch.cat(made["G_B"]),
    }
    expected = whole(A, B)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-9, atol=1e-12)
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(in_parts.model.state_dict()[name], weight, rtol=1e-7, atol=1e-9)


# --- the command line ------------------------------------------------------------------------------------------------


def parsed(*flags: str) -> Config:
    return settings.parse_training(["--data", "pairs", "--method", "pix2pix", *flags])[0]


def test_the_method_alone_is_what_the_authors_train() -> None:
    config = parsed()
    assert config.networks == NetworkConfig(generator="unet_256", norm="batch", dropout=True)
    assert config.loss == LossConfig(method="pix2pix", gan_loss="vanilla", lambda_paired=100.0, pool_size=0)
    assert config.data == DataConfig(data=Path("pairs"), load_size=286, crop_size=256, batch_size=1)
    assert config.optimizer == OptimizerConfig(learning_rate=2e-4, beta1=0.5, epochs=100, decay_epochs=100)
    with torch.device("meta"):
        networks = Model(config).method.networks()
    # The sizes of the authors' networks, which people know from their logs: 54.414 M and 2.769 M.
    assert sum(p.numel() for p in networks["G_A"].parameters()) == 54_413_955
    assert sum(p.numel() for p in networks["D_A"].parameters()) == 2_768_705


def test_flags_win_over_what_the_method_brings() -> None:
    assert parsed("--gan-loss", "lsgan", "--pool-size", "50").loss.gan_loss == "lsgan"
    assert not parsed("--no-dropout").networks.dropout
    assert parsed("--norm", "instance", "--batch-size", "4", "--accumulate", "2").networks.norm == "instance"
    resnet = parsed("--generator", "resnet_9").networks
    assert (resnet.generator, resnet.norm, resnet.dropout) == ("resnet_9", "batch", True)
    assert parsed("--preset", "paper128").networks.generator == "unet_128"
    assert parsed("--preset", "demo").networks.generator == "resnet_6"  # no U-Net takes 64x64
    assert parsed("--crop-size", "128").networks.generator == "unet_128"
    for generator in ((), ("--generator", "unet_128")):
        sides = parsed("--preset", "demo", "--load_size", "143", "--crop-size", "128", *generator)
        assert (sides.networks.generator, sides.data.crop_size, sides.data.load_size) == ("unet_128", 128, 143)
    with pytest.raises(UserError, match=r"crop_size must be a multiple of 256 .* got 128; unet_128 needs 128"):
        parsed("--generator", "unet_256", "--crop-size", "128")


def test_another_method_does_not_keep_what_pix2pix_brought(tmp_path: Path) -> None:
    values.save_config(parsed(), tmp_path / "run.yaml")
    again = settings.parse_training(["--config", str(tmp_path / "run.yaml"), "--method", "pix2pix", "--no-dropout"])[0]
    assert (again.networks.norm, again.networks.dropout, again.loss.gan_loss) == ("batch", False, "vanilla")
    other = settings.parse_training(["--config", str(tmp_path / "run.yaml"), "--method", "cyclegan"])[0]
    assert (other.loss.gan_loss, other.loss.pool_size) == ("lsgan", 50)


@pytest.mark.parametrize("init_type", get_args(InitType))
def test_new_weights_are_drawn_as_torch_draws_them(init_type: InitType) -> None:
    draw: dict[str, Callable[[Tensor], Tensor]] = {
        "normal": lambda w: nn.init.normal_(w, 0.0, 0.5),
        "xavier": lambda w: nn.init.xavier_normal_(w, 0.5),
        "kaiming": lambda w: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
        "orthogonal": lambda w: nn.init.orthogonal_(w, 0.5),
    }
    network = PatchDiscriminator(width=8, norm="batch")
    torch.manual_seed(0)
    initialise(network, init_type, 0.5)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            expected = nn.init.normal_(torch.empty_like(module.weight), 1.0, 0.5)
        elif isinstance(module, nn.Conv2d):
            expected = draw[init_type](torch.empty_like(module.weight))
        else:
            continue
        assert torch.equal(module.weight, expected)
        assert module.bias is None or not module.bias.any()
    config = replace(CONFIG, networks=replace(CONFIG.networks, init_type=init_type, init_gain=0.5))
    torch.manual_seed(0)
    drawn = Model(config).get_submodule("D_B").state_dict()["layers.2.weight"]
    fan_in = drawn[0].numel()
    deviation = {"normal": 0.5, "kaiming": (2 / fan_in) ** 0.5}.get(init_type)
    assert deviation is None or drawn.std().item() == pytest.approx(deviation, rel=0.15)
    assert abs(drawn.std().item() - 0.02) > 0.01
