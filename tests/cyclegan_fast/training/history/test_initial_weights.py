"""Test runs that begin with trained weights: to the bit, with its networks, and without it later."""

import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cyclegan_fast import api, sample_photos, train
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config, DataConfig, LossConfig, MethodName, NetworkConfig, OptimizerConfig
from cyclegan_fast.data.training_images import open_data
from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.history.initial_weights import InitialWeights, begin_with
from cyclegan_fast.training.records import Records
from cyclegan_fast.training.step import TrainingStep
from tests.cyclegan_fast.conftest import TINY, contents
from tests.cyclegan_fast.original_networks import patch, pixel, resnet, unet
from tests.cyclegan_fast.training.test_train import assert_same_state, final_state, interrupt_at, metrics

SMALL = ["--load-size", "36", "--crop-size", "32", "--workers", "0", "--pool-size", "5", "--report-every", "1"]
"""Flags that say nothing of networks."""
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes two folders of images, and a run `source` of 4 epochs of one step, with averages and narrow networks."""
    root = tmp_path_factory.mktemp("initial")
    for name, count in (("data", "1"), ("other", "3")):
        sample_photos.main([str(root / name), "--side", "36", "--count", count])
        shutil.rmtree(root / name / "testA")
        shutil.rmtree(root / name / "testB")
    flags = ["--ema", "0.9", "--max-steps", "4", "--keep-every-epochs", "2", "--seed", "5", *SMALL]
    assert train.main([*given(root, "source", "data"), *TINY, *flags]) == 0
    return root


def given(root: Path, name: str, data: str = "other") -> list[str]:
    return ["--data", str(root / data), "--runs", str(root / "runs"), "--name", name, *SMALL]


def stop_before_the_first_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Records, "draw_samples", lambda self: signal.raise_signal(signal.SIGINT))


def assert_equal(one: State, other: State) -> None:
    assert {*one} == {*other}
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.mark.parametrize("place", ["runs/source@2", "runs/source/checkpoints/epoch_0002.pt", "runs/source"])
def test_after_no_step_the_weights_are_those_of_the_source(
    root: Path, place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begins with a run on other images; the settings of networks come from it."""
    stop_before_the_first_step(monkeypatch)
    flags = ["--init-from", str(root / place), "--ema", "0.5", "--runs", str(tmp_path), "--max-steps", "6"]
    assert train.main([*given(root, "new"), *flags]) == 130
    step = 4 if place == "runs/source" else 2
    assert (
        f"begins with G_A, G_B, D_A, D_B, G_A_ema, G_B_ema of {root / place} (step {step}): generator resnet_6, ngf 4, "
        "norm instance, discriminator patch, ndf 4\n"
    ) in capfd.readouterr().out
    kept = "last.pt" if place == "runs/source" else "epoch_0002.pt"
    source = checkpoint.load(root / "runs" / "source" / "checkpoints" / kept)
    begun = final_state(tmp_path / "new")
    assert begun["log"]["step"] == begun["step"]["steps_taken"] == 0
    assert begun["step"]["generators"]["optimizer"]["state"] == {}, "Adam's moments are not taken"
    assert_equal(begun["model"], source["model"])
    saved = values.load_config(tmp_path / "new" / "config.yaml")
    assert saved.networks == replace(
        values.from_dict(source["config"], "source").networks, init_from=(root / place).resolve()
    )


def test_the_first_step_is_computed_from_the_weights(root: Path) -> None:
    """Compares with a step of a model that gets the weights otherwise, and averages with their definition."""
    flags = ["--init-from", str(root / "runs/source@2"), "--ema", "0.75", "--max-steps", "1"]
    assert train.main([*given(root, "first-step"), *flags]) == 0
    found = final_state(root / "runs" / "first-step")
    config = values.from_dict(found["config"], "first-step")
    source = checkpoint.load(root / "runs/source/checkpoints/epoch_0002.pt")["model"]
    model = Model(config)
    model.load_state_dict(source)
    step = TrainingStep(model, config, torch.float32)
    batch = next(open_data(config.data, config.run.seed).training.epoch(1))
    step.set_learning_rate(config.optimizer.learning_rate)
    step(*batch.to(torch.device("cpu")))
    state = model.state_dict()
    newest = {key: value for key, value in state.items() if "_ema." not in key}
    assert_equal({key: found["model"][key] for key in newest}, newest)
    assert any(not torch.equal(value, source[key]) for key, value in newest.items())
    for key in state.keys() - newest.keys():
        expected = 0.75 * source[key].double() + 0.25 * state[key.replace("_ema.", ".")].double()
        assert torch.allclose(found["model"][key].double(), expected, rtol=1e-5, atol=1e-8), key


def test_a_run_goes_on_without_its_source_to_the_same_bits(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copytree(root / "runs" / "source", tmp_path / "source")
    flags = ["--init-from", str(source), "--ema", "0.9", "--max-steps", "5", "--runs", str(tmp_path)]
    assert train.main([*given(root, "whole"), *flags]) == 0
    with monkeypatch.context() as patched:
        interrupt_at(2, patched)
        assert train.main([*given(root, "stopped"), *flags]) == 130
    shutil.rmtree(source)
    assert train.main([*given(root, "stopped"), *flags]) == 0
    assert "begins with" not in capfd.readouterr().out.split("steps 2 to 5")[1]
    assert_same_state(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    before = contents(tmp_path / "stopped")
    flags[1] = str(root / "runs" / "source")
    assert train.main([*given(root, "stopped"), *flags]) == 2
    assert f"(init_from: {source} -> {root / 'runs' / 'source'}); give --name NEW" in capfd.readouterr().err
    assert contents(tmp_path / "stopped") == before


def test_from_python_a_run_begins_with_the_originals_files(root: Path, tmp_path: Path) -> None:
    """Writes three of the four networks as the original does; the fourth is that of a new run."""
    source = final_state(root / "runs" / "source")["model"]
    for name in ("G_A", "G_B", "D_A"):
        state = {key.removeprefix(f"{name}."): value for key, value in source.items() if key.startswith(f"{name}.")}
        torch.save(to_original(state), tmp_path / f"latest_net_{name}.pth")
    flags = {"load_size": 36, "crop_size": 32, "max_steps": 1}
    common = {"data": root / "other", "runs": tmp_path, "learning_rate": 1e-30, **flags}  # too small to move a weight
    folder = api.train(name="begun", init_from=tmp_path / "latest_net_G_B.pth", **common)
    anew = api.train(name="anew", generator="resnet_6", ngf=4, ndf=4, **common)
    found, new = final_state(folder), final_state(anew)["model"]
    assert found["begun_with"] == ["G_A", "G_B", "D_A"]
    expected = {key: (new if key.startswith("D_B.") else source)[key] for key in found["model"]}
    moved = {key for key, value in found["model"].items() if not torch.allclose(value, expected[key], atol=1e-12)}
    assert moved == set()
    assert not torch.equal(source["D_B.layers.0.weight"], new["D_B.layers.0.weight"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--ngf", "8", "--norm", "batch"], "discriminator_norm instance and not batch: leave these flags out"),
        (["--discriminator", "pixel"], "or give --discriminator patch"),
        (["--method", "cogan"], "those of cogan are others"),
        (["--init-from", "runs/source@3"], "source keeps no checkpoint @3, but @latest, @2, @4"),
        (["--init-from", "nowhere.pth"], "no checkpoint at"),
        (["--init-from", "hub:b"], "hub:b is no name on the hub"),
    ],
)
def test_weights_that_do_not_fit_are_one_line_and_leave_nothing(
    root: Path, flags: list[str], said: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert train.main([*given(root, "refused"), "--init-from", "runs/source", *flags]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (root / "runs" / "refused").exists()


# --- models alone ----------------------------------------------------------------------------------------------------

NARROW = NetworkConfig(generator="resnet_6", ngf=4, ndf=4)


def config_of(method: MethodName = "cyclegan", ema: float = 0.0, **networks: Any) -> Config:
    return Config(
        networks=replace(NARROW, **networks), loss=LossConfig(method=method), optimizer=OptimizerConfig(ema=ema)
    )


def written(config: Config, path: Path) -> State:
    """Write what a run's checkpoint has of weights; returns them."""
    torch.manual_seed(1)
    state = Model(config).state_dict()
    torch.save({"config": values.to_dict(config), "model": state}, path)
    return state


def test_averages_that_the_source_has_not_begin_as_the_generators(tmp_path: Path) -> None:
    source = written(config_of(), tmp_path / "x.pt")
    model = Model(config_of(ema=0.9))
    kept, _ = begin_with(InitialWeights.read(tmp_path / "x.pt"), model, config_of(ema=0.9))
    assert kept == ["G_A", "G_B", "D_A", "D_B"]
    assert_equal(model.state_dict(), source | {k.replace(".", "_ema.", 1): v for k, v in source.items() if k[0] == "G"})


def test_averages_that_the_run_does_not_keep_are_left_out_and_said(tmp_path: Path) -> None:
    source = written(config_of(ema=0.9), tmp_path / "x.pt")
    model = Model(config_of())
    _, said = begin_with(InitialWeights.read(tmp_path / "x.pt"), model, config_of())
    assert_equal(model.state_dict(), {key: value for key, value in source.items() if "_ema." not in key})
    assert said.endswith("; left out: G_A_ema, G_B_ema (--ema DECAY goes on with moving averages)")


@pytest.mark.parametrize(
    ("method", "taken", "said"),
    [
        ("simgan", ["G_A", "G_B", "D_A", "D_B"], "n"),
        (
            "pix2pix",
            ["G_A", "G_B"],
            "; new, as they are not there or judged something else: D_A, D_B; left out: D_A, D_B",
        ),
        ("bigan", ["G_A", "G_B"], "; new, as they are not there or judged something else: D_A, D_B; left out: D"),
    ],
)
def test_discriminators_of_another_task_begin_anew(
    method: MethodName, taken: list[str], said: str, tmp_path: Path
) -> None:
    source = written(config_of(method), tmp_path / "x.pt")
    torch.manual_seed(2)
    model = Model(config_of())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kept, found = begin_with(InitialWeights.read(tmp_path / "x.pt"), model, config_of())
    assert kept == taken
    assert found.partition("norm instance")[2].endswith(said.removeprefix("n"))
    assert_equal(model.state_dict(), {k: (source if k.partition(".")[0] in taken else before)[k] for k in before})


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: {"G": resnet(4, 9, "batch"), "D": patch(6, 2, "batch")}, "resnet_9 4 batch transposed n_layers 2 6"),
        (
            lambda: {"G": resnet(5, 6, "none", dropout=True), "D": pixel(6, "none")},
            "resnet_6 5 none transposed pixel 3 6",
        ),
        (lambda: {"G": ResnetGenerator(width=3, blocks=6, upsampling="resize")}, "resnet_6 3 instance resize"),
        (lambda: {"G": unet(2, 7, "instance"), "D": patch(4, 3, "instance")}, "unet_128 2 instance patch 3 4"),
        (lambda: {"G": unet(2, 8, "batch")}, "unet_256 2 batch"),
    ],
)
def test_the_settings_of_bare_networks_are_told_by_their_weights(
    make: Callable[[], dict[str, torch.nn.Module]], expected: str, tmp_path: Path
) -> None:
    for name, network in make().items():
        torch.save(network.state_dict(), tmp_path / f"latest_net_{name}.pth")
    found = InitialWeights.read(tmp_path / "latest_net_G.pth").settings
    names = ("generator", "ngf", "norm", "upsampling", "discriminator", "n_layers", "ndf")
    assert " ".join(str(found[name]) for name in names if name in found) == expected
    config = Config(networks=NetworkConfig(**found))
    model = Model(config)
    if "D" in make():
        begin_with(InitialWeights.read(tmp_path / "latest_net_G.pth"), model, config)


@pytest.mark.parametrize("source", ["a run", "G_A", "G_B"])
def test_weights_for_images_of_other_channels_are_refused_and_those_of_the_same_taken(
    source: str, tmp_path: Path
) -> None:
    grey, colour = (replace(config_of(), data=DataConfig(channels_a=channels)) for channels in (1, None))
    state = written(grey, tmp_path / "x.pt")
    path = tmp_path / "x.pt"
    if source != "a run":
        path = tmp_path / f"latest_net_{source}.pth"
        torch.save({key.partition(".")[2]: value for key, value in state.items() if key.startswith(source)}, path)
    found = InitialWeights.read(path)
    assert found.channels == (1, 3)
    with pytest.raises(UserError) as refusal:
        begin_with(found, Model(colour), colour)
    assert str(refusal.value) == (
        f"--init-from {path} has networks for images of 1 channel in A and 3 in B, and those to train on have 3 "
        "channels in A and 3 in B: give other weights, or --channels-a 1 --channels-b 3"
    )
    model = Model(grey)
    taken, _ = begin_with(found, model, grey)
    assert source in ("a run", *taken)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if key[:3] in taken)


def test_images_of_another_range_are_told_of(tmp_path: Path) -> None:
    known, other = (
        replace(config_of(), data=DataConfig(dtype_a="uint16", range_a=(0.0, high))) for high in (4095.0, 65535.0)
    )
    written(known, tmp_path / "x.pt")
    found = InitialWeights.read(tmp_path / "x.pt")
    assert "images of" not in begin_with(found, Model(known), known)[1]
    assert begin_with(found, Model(other), other)[1].endswith(
        "; its images of A were of 3 channels, uint16, 0 to 4095, these are of 3 channels, uint16, 0 to 65535: "
        "--range-a 0 4095 keeps that range"
    )


def test_a_depth_without_a_name_is_refused(tmp_path: Path) -> None:
    torch.save(resnet(4, 3, "instance").state_dict(), tmp_path / "latest_net_G.pth")
    with pytest.raises(UserError, match=r"latest_net_G.pth: generator must be one of .* got 'resnet_3'"):
        InitialWeights.read(tmp_path / "latest_net_G.pth")


def test_a_patch_of_three_layers_is_the_usual_one(tmp_path: Path) -> None:
    written(config_of(discriminator="n_layers"), tmp_path / "x.pt")
    assert len(begin_with(InitialWeights.read(tmp_path / "x.pt"), Model(config_of()), config_of())[0]) == 4


def test_the_norm_of_discriminators_is_taken_over_and_held_against_the_flags(tmp_path: Path) -> None:
    config = config_of(discriminator_norm="none")
    state = written(config, tmp_path / "x.pt")
    found = InitialWeights.read(tmp_path / "x.pt")
    assert found.settings["discriminator_norm"] == "none"
    model = Model(config)
    _, said = begin_with(found, model, config)
    assert_equal(model.state_dict(), state)
    assert "norm instance, discriminator patch, ndf 4, discriminator_norm none" in said
    with pytest.raises(UserError, match=r"discriminator_norm none and not instance: .* --discriminator-norm none"):
        begin_with(found, Model(config_of()), config_of())
    named = config_of(discriminator_norm="instance")
    written(config_of(), tmp_path / "x.pt")
    assert len(begin_with(InitialWeights.read(tmp_path / "x.pt"), Model(named), named)[0]) == 4


def test_a_cogan_begins_with_a_cogan(tmp_path: Path) -> None:
    source = written(config_of("cogan"), tmp_path / "x.pt")
    model = Model(config_of("cogan"))
    begin_with(InitialWeights.read(tmp_path / "x.pt"), model, config_of("cogan"))
    assert_equal(model.state_dict(), source)
