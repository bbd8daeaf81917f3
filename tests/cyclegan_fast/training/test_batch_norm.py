"""Training with batch norm, without norm and with other discriminators, against a plain update in PyTorch."""

import io
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from cyclegan_fast import train
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.original import from_original, to_original
from cyclegan_fast.config.options import Config, DiscriminatorName, LossConfig, NetworkConfig, Norm, OptimizerConfig
from cyclegan_fast.config.presets import of_method
from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks.norms import BatchNorm, batch_norms
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.translate import main
from cyclegan_fast.translation.on_device import translate_batch
from tests.cyclegan_fast import original_networks as original
from tests.cyclegan_fast.conftest import TINY

SIDE = 32
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Networks = dict[str, nn.Module]


def config_of(norm: Norm, discriminator: DiscriminatorName = "patch", n_layers: int = 3, **loss: Any) -> Config:
    networks = NetworkConfig(
        generator="resnet_6",
        ngf=2,
        ndf=2,
        impl="reference",
        norm=norm,
        discriminator=discriminator,
        n_layers=n_layers,
    )
    return Config(networks=networks, loss=LossConfig(pool_size=0, **loss))


def images(seed: int, count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = torch.rand(2, count, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) * 2 - 1
    return both[0], both[1]


def plain_networks(config: Config) -> Networks:
    options = config.networks
    made: Networks = {}
    for seed, name in enumerate(("G_A", "G_B", "D_A", "D_B")):
        if name.startswith("G"):
            network: nn.Module = original.resnet(options.ngf, options.blocks, options.norm)
        elif options.discriminator == "pixel":
            network = original.pixel(options.ndf, options.norm)
        else:
            network = original.patch(options.ndf, options.n_layers, options.norm)
        made[name] = original.trained(network, seed, SIDE)
    return made


def plain_steps(nets: Networks, config: Config, steps: int) -> None:
    """Updates as the original's `optimize_parameters` does, line by line, without pools."""
    G_A, G_B, D_A, D_B = nets.values()
    generators = torch.optim.Adam([*G_A.parameters(), *G_B.parameters()], lr=2e-4, betas=(0.5, 0.999))
    discriminators = torch.optim.Adam([*D_A.parameters(), *D_B.parameters()], lr=2e-4, betas=(0.5, 0.999))

    def judged(score: Tensor, real: bool) -> Tensor:
        return mse_loss(score, torch.full_like(score, float(real)))

    for step in range(steps):
        real_A, real_B = images(step)
        fake_B = G_A(real_A)
        rec_A = G_B(fake_B)
        fake_A = G_B(real_B)
        rec_B = G_A(fake_A)
        for judge in (D_A, D_B):
            judge.requires_grad_(False)
        loss = torch.zeros((), dtype=torch.float64)
        if config.loss.lambda_identity:
            loss = loss + 5 * l1_loss(G_A(real_B), real_B) + 5 * l1_loss(G_B(real_A), real_A)
        loss = loss + judged(D_A(fake_B), True) + judged(D_B(fake_A), True)
        loss = loss + 10 * l1_loss(rec_A, real_A) + 10 * l1_loss(rec_B, real_B)
        generators.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        generators.step()
        for judge in (D_A, D_B):
            judge.requires_grad_(True)
        discriminators.zero_grad()
        for judge, real, fake in ((D_A, real_B, fake_B), (D_B, real_A, fake_A)):
            (0.5 * (judged(judge(real), True) + judged(judge(fake.detach()), False))).backward()
        discriminators.step()


def model_with(nets: Networks, config: Config) -> Model:
    model = Model(config).double()
    for name, network in nets.items():
        model.get_submodule(name).load_state_dict(from_original(network.state_dict()))
        if config.optimizer.ema and name.startswith("G"):
            model.get_submodule(f"{name}_ema").load_state_dict(from_original(network.state_dict()))
    return model


CHOICES: list[tuple[Norm, DiscriminatorName, int]] = [
    ("batch", "patch", 3),
    ("batch", "n_layers", 2),
    ("batch", "pixel", 3),
    ("none", "n_layers", 1),
    ("none", "pixel", 3),
    ("instance", "n_layers", 2),
    ("instance", "pixel", 3),
]


@pytest.mark.parametrize("identity", [0.0, 0.5])
@pytest.mark.parametrize(("norm", "discriminator", "n_layers"), CHOICES)
def test_three_steps_leave_the_originals_weights_and_statistics(
    norm: Norm, discriminator: DiscriminatorName, n_layers: int, identity: float
) -> None:
    """Has an identity loss, for which G_A takes its three batches in another order; its statistics alone show it."""
    config = config_of(norm, discriminator, n_layers, lambda_identity=identity)
    nets = plain_networks(config)
    model = model_with(nets, config)
    step = TrainingStep(model, config, torch.float64, random.Random(0))
    step.set_learning_rate(2e-4)
    for number in range(3):
        step(*images(number))
    plain_steps(nets, config, 3)
    for name, network in nets.items():
        expected = from_original(network.state_dict())
        for key, value in model.get_submodule(name).state_dict().items():
            if norm == "instance" and key.endswith(".bias") and key not in trained_biases(model.get_submodule(name)):
                continue  # they have no effect, and Adam moves the original's by rounding
            is_reordered = identity > 0 and name == "G_A" and key.endswith(("running_mean", "running_var"))
            bound = {"rtol": 0.2, "atol": 0.05} if is_reordered else {"rtol": 1e-8, "atol": 1e-9}
            torch.testing.assert_close(value, expected[key], **bound, msg=lambda said, n=name, k=key: f"{n}.{k} {said}")


def trained_biases(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items() if key.endswith(STATISTICS)}


def test_statistics_stay_wide_in_low_precision_and_follow_that_of_the_batches() -> None:
    config = replace(config_of("batch"), optimizer=OptimizerConfig(ema=0.9))
    nets = plain_networks(config)
    found: dict[torch.dtype, Model] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = model_with(nets, config).float()
        step = TrainingStep(model, config, dtype, random.Random(0))
        step.set_learning_rate(0.0)
        for number in range(2):
            step(*(image.float() for image in images(number)))
        found[dtype] = model
    exact, low = found[torch.float32], found[torch.bfloat16]
    for name in nets:
        before = from_original(nets[name].state_dict())
        for key, value in statistics(low.get_submodule(name)).items():
            wanted = exact.get_submodule(name).state_dict()[key]
            assert value.dtype == wanted.dtype
            assert not torch.equal(value, before[key].to(value.dtype)), (name, key)
            scale = wanted.abs().max().item()
            torch.testing.assert_close(value, wanted, rtol=0, atol=0.03 * scale, msg=f"{name}.{key}")
    for model in found.values():  # the moving averages have the newest
        for name in ("G_A", "G_B"):
            newest = statistics(model.get_submodule(name))
            for key, value in statistics(model.get_submodule(f"{name}_ema")).items():
                assert torch.equal(value, newest[key]), (name, key)


def test_moving_a_network_to_low_precision_and_back_leaves_its_statistics() -> None:
    norm = BatchNorm(3)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1.001, 2.002, 3.003]))
    before = norm.running_mean.clone()
    norm.bfloat16()
    assert norm.weight.dtype == torch.bfloat16
    assert torch.equal(norm.running_mean, before)
    assert norm.running_mean.dtype == torch.float32
    assert norm.double().running_mean.dtype == torch.float64


def test_a_checkpoint_continues_with_its_statistics_and_evaluation_leaves_them(tmp_path: Path) -> None:
    config = config_of("batch")
    model = model_with(plain_networks(config), config).float()
    step = TrainingStep(model, config, torch.float32, random.Random(0))
    step(*(image.float() for image in images(0)))
    before = statistics(model)
    translate_batch(model.translator("a2b"), torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8))
    assert all(torch.equal(value, before[key]) for key, value in statistics(model).items())
    torch.save(dict(model.state_dict()), buffer := io.BytesIO())
    buffer.seek(0)
    again = Model(config)
    checkpoint.load_weights(again, torch.load(buffer, weights_only=True), "x")
    assert before.keys() == statistics(again).keys()
    assert all(torch.equal(value, before[key]) for key, value in statistics(again).items())
    # Older versions here kept none.
    older = {key: value for key, value in model.state_dict().items() if not key.endswith(STATISTICS)}
    checkpoint.load_weights(again := Model(config), older, "x")
    assert all(torch.equal(norm.running_var, torch.ones_like(norm.running_var)) for norm in batch_norms(again))


def test_configurations_that_cannot_be_trained_are_refused() -> None:
    for options, said in (
        ({"n_layers": 4}, "n_layers 4 is of discriminator n_layers, not of patch"),
        ({"n_layers": 0, "discriminator": "n_layers"}, "n_layers must be a whole number from 1 to 8"),
        ({"checkpoint_blocks": True, "norm": "batch"}, "would count their statistics twice"),
        ({"checkpoint_blocks": True, "dropout": True}, "draw twice"),
        ({"norm": "layer"}, "norm must be one of instance, batch, none"),
        ({"discriminator": "basic"}, "discriminator must be one of patch, n_layers, pixel"),
    ):
        with pytest.raises(ValueError, match=said):
            NetworkConfig(**options)  # type: ignore[arg-type]  # wrong on purpose
    deep = NetworkConfig(discriminator="n_layers", n_layers=5)
    with pytest.raises(ValueError, match="crop_size must be at least 96 for a discriminator of 5 layers, got 64"):
        replace(Config(networks=deep), data=replace(Config().data, crop_size=64))
    with pytest.raises(ValueError, match="preprocess 'none' does not promise that"):
        replace(Config(networks=deep), data=replace(Config().data, preprocess="none"))
    Config(
        networks=NetworkConfig(norm="none"),
        data=replace(Config().data, batch_size=2),
        optimizer=OptimizerConfig(accumulate=2),
    )


def test_every_method_trains_with_batch_norm_and_other_discriminators() -> None:
    for method in ("simgan", "bigan", "pix2pix"):
        config = of_method(config_of("batch", "pixel"), method)  # type: ignore[arg-type]  # of a loop
        torch.manual_seed(0)
        step = TrainingStep(Model(config), config, torch.float32, random.Random(0))
        losses = step(*(image.float() for image in images(0)))
        assert all(bool(loss.isfinite()) for loss in losses.values())
        assert all(int(norm.num_batches_tracked) > 0 for norm in batch_norms(step.model))


def test_a_run_with_batch_norm_translates_by_either_statistics(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compares --running-statistics with what the original computes in evaluation mode from the run's own weights."""
    import numpy as np
    from PIL import Image

    flags = ["--norm", "batch", "--discriminator", "n_layers", "--n-layers", "2", "--max-steps", "3"]
    arguments = ["--data", str(folder), "--runs", str(tmp_path), "--name", "x", "--device", "cpu"]
    assert train.main([*arguments, *TINY, *flags]) == 0
    assert capsys.readouterr().out.count("norm batch runs on PyTorch's own operators") == 1
    state = checkpoint.load(tmp_path / "x" / "checkpoints" / "last.pt")["model"]
    generator = {key.removeprefix("G_A."): value for key, value in state.items() if key.startswith("G_A.")}
    plain = original.resnet(4, 6, "batch")
    plain.load_state_dict(to_original(generator))
    pixels = np.asarray(Image.open(folder / "testA" / "0.png").resize((32, 32), Image.Resampling.BICUBIC))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    results = {}
    for name, more, training in (("own", [], True), ("running", ["--running-statistics"], False)):
        out = tmp_path / name
        call = [str(folder / "testA" / "0.png"), "--checkpoint", str(tmp_path / "x"), "--size", "32", "--device", "cpu"]
        assert main([*call, "--out", str(out), *more]) == 0
        with torch.no_grad():
            expected = ((plain.train(training)(image)[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
        results[name] = np.asarray(Image.open(out / "0.png")).astype(int)
        assert np.abs(results[name] - expected.numpy()).max() <= 1, name
        plain.load_state_dict(to_original(generator))
    assert np.abs(results["own"] - results["running"]).max() > 1
    instance = [*arguments[:4], "--name", "y", "--device", "cpu", *TINY, "--max-steps", "1"]
    assert train.main(instance) == 0
    call = [str(folder / "testA"), "--checkpoint", str(tmp_path / "y"), "--out", str(tmp_path / "none")]
    assert main([*call, "--device", "cpu", "--running-statistics"]) == 2
    assert "has no batch norm, and so no running statistics" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
