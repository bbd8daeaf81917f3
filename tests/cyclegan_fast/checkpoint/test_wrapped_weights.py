"""Files of weights as trainers and wrappers write them: what is inside translates as the bare file does."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cyclegan_fast.checkpoint.original import from_original
from cyclegan_fast.checkpoint.wrapped_weights import direction_of, networks_in
from cyclegan_fast.conventions import Direction
from cyclegan_fast.networks.optimizers import EagerAdam
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.trained import load_generator, load_generators
from tests.cyclegan_fast import original_networks as original

StateDict = dict[str, Tensor]


def resnet(seed: int) -> StateDict:
    return dict(original.trained(original.resnet(2, 1, "batch"), seed, side=16).float().state_dict())


THERE, BACK, AVERAGE = resnet(0), resnet(1), resnet(2)
UNET = dict(original.trained(original.unet(1, 5, "batch")).float().state_dict())
JUDGE = dict(original.patch(2, 3, "batch").state_dict())
PIXEL_JUDGE = dict(original.pixel(2, "batch").state_dict())


def under(prefix: str, state: StateDict) -> StateDict:
    return {f"{prefix}{key}": value for key, value in state.items()}


def optimiser(state: StateDict) -> dict[str, Any]:
    adam = EagerAdam([nn.Parameter(value) for value in state.values() if value.dim() == 4])
    for parameter in adam.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    adam.step()
    return adam.state_dict()


def averaged_model(network: nn.Module) -> dict[str, Any]:
    """PyTorch's own, which counts beside the network."""
    return dict(torch.optim.swa_utils.AveragedModel(network).state_dict())


def wrappings(state: StateDict) -> dict[str, dict[str, Any]]:
    """Return files of one generator, wrapped in ways that were seen."""
    inner = {f"model.module.{key.removeprefix('model.')}": value for key, value in state.items()}
    return {
        "DataParallel": under("module.", state),
        "torch.compile": under("_orig_mod.", state),
        "both": under("module._orig_mod.", state),
        "both, the other way": under("_orig_mod.module.", state),
        "twice": under("module.module.", state),
        "DataParallel inside": inner,
        "nested": {"epoch": 3, "state_dict": state, "optimizer": optimiser(state), "lr": 2e-4},
        "nested, wrapped": {"iteration": torch.tensor(3), "model": under("module.", state), "loss": [1.0, 2.0]},
        "deeply nested": {"checkpoint": {"params": OrderedDict(netG=under("_orig_mod.", state)), "step": 3}},
        "a trainer's attribute": {"state_dict": under("model.generator.", state), "global_step": 5},
        "an attribute called model": under("model.", state),
        "an attribute called net": {"state_dict": under("net.", state)},
        "with its discriminator": {"G": state, "D": JUDGE, "pixel": PIXEL_JUDGE, "optG": optimiser(state)},
        "with its discriminator in one": {**under("netG.", state), **under("netD.", JUDGE)},
        "beside a number": {**state, "epoch": torch.tensor(7)},
        "beside a plain number": {**state, "epoch": 7},
        "beside a configuration": {"model": state, "config": {"lr": 2e-4}},
    }


@pytest.mark.parametrize("name", wrappings(THERE))
@pytest.mark.parametrize("state", [THERE, UNET], ids=["ResNet", "U-Net"])
def test_what_is_wrapped_is_unwrapped(name: str, state: StateDict, tmp_path: Path) -> None:
    content = wrappings(state)[name]
    torch.save(content, tmp_path / "x.pth")
    files = [tmp_path / "x.pth"]
    if all(isinstance(value, Tensor) for value in content.values()):
        save_file({key: value.contiguous() for key, value in content.items()}, tmp_path / "x.safetensors")
        files.append(tmp_path / "x.safetensors")
    for path in files:
        notes: list[str] = []
        loaded = load_generator(path, "a2b", notes)
        assert notes == []
        assert (loaded.config, loaded.direction) == ({}, None)
        assert_holds(loaded.network, state)
    assert_holds_state(from_original(content if "discriminator" not in name else state), state)


def assert_holds(network: nn.Module, state: StateDict) -> None:
    assert_holds_state(network.state_dict(), state)


def assert_holds_state(found: StateDict, state: StateDict) -> None:
    expected = from_original(state)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_pytorchs_averaged_model_and_our_own_names_are_unwrapped(tmp_path: Path) -> None:
    plain = original.trained(original.resnet(2, 1, "batch"), side=16).float()
    torch.save(averaged_model(plain), path := tmp_path / "x.pth")
    assert_holds(load_generator(path, "a2b", []).network, dict(plain.state_dict()))
    for norm in ("instance", "batch", "none"):
        ours = ResnetGenerator(width=2, blocks=2, norm=norm).state_dict()  # type: ignore[arg-type]  # of a loop
        torch.save({"params": under("module.", ours)}, path)
        network = load_generator(path, "a2b", []).network
        assert {key: value.tolist() for key, value in network.state_dict().items()} == {
            key: value.tolist() for key, value in ours.items()
        }


PAIRS = [
    ("netG_A2B", "netG_B2A"),
    ("G_A2B", "G_B2A"),
    ("G_A", "G_B"),
    ("netG_A", "netG_B"),
    ("G_AB", "G_BA"),
    ("genAtoB", "genBtoA"),
    ("G_XtoY", "G_YtoX"),
    ("generator_a", "generator_b"),
]


@pytest.mark.parametrize("names", PAIRS, ids=[pair[0] for pair in PAIRS])
def test_the_names_of_two_generators_say_their_directions(names: tuple[str, str], tmp_path: Path) -> None:
    torch.save(dict(zip(names, (THERE, BACK), strict=True)), path := tmp_path / "x.pth")
    assert_holds(load_generator(path, "a2b", []).network, THERE)
    assert_holds(load_generator(path, "b2a", []).network, BACK)


def test_of_two_generators_that_of_the_direction_is_used(tmp_path: Path) -> None:
    there, back = PAIRS[0]
    contents: list[dict[str, Any]] = [
        {there: THERE, back: BACK, "netD_A": JUDGE, "epoch": 3},
        {"state_dict": {**under(f"{back}.", BACK), **under(f"{there}.module.", THERE), **under("D_A.", JUDGE)}},
        {back: {"state_dict": BACK, "optimizer": optimiser(BACK)}, there: {"state_dict": under("module.", THERE)}},
        {there: THERE, back: BACK, "ema": {there: AVERAGE, back: BACK}},
        {there: THERE, back: BACK, f"{there}_ema": AVERAGE, f"{back}_ema": BACK},
    ]
    for index, content in enumerate(contents):
        torch.save(content, path := tmp_path / "x.pth")
        first = AVERAGE if index > 2 else THERE
        wanted: tuple[tuple[Direction, StateDict], ...] = (("a2b", first), ("b2a", BACK))
        for direction, state in wanted:
            notes: list[str] = []
            loaded = load_generator(path, direction, notes)
            assert_holds(loaded.network, state)
            assert loaded.direction == direction
            assert len(notes) == 1
            assert f"is used for {direction}, another one with --network NAME" in notes[0]
        both = load_generators(path, ("a2b", "b2a"), [])
        assert [loaded.direction for loaded in both] == ["a2b", "b2a"]
        assert_holds(both[0].network, first)
        assert_holds(both[1].network, BACK)
        if index < 3:
            assert_holds(load_generator(path, "a2b", [], back).network, BACK)


def test_where_the_names_do_not_say_it_the_user_does(tmp_path: Path) -> None:
    torch.save({"first": THERE, "second": BACK}, path := tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"several generators \(first, second\): say which with --network NAME"):
        load_generator(path, "a2b", [])
    (loaded,) = load_generators(path, ("a2b", "b2a"), [], "second")
    assert_holds(loaded.network, BACK)
    with pytest.raises(UserError, match=r"no one generator third: --network names one of first, second"):
        load_generator(path, "a2b", [], "third")
    torch.save({"params": THERE, "params_ema": AVERAGE}, path)
    for directions in (("a2b",), ("a2b", "b2a")):
        (loaded,) = load_generators(path, directions, notes := [])  # type: ignore[arg-type, var-annotated]  # of a loop
        assert_holds(loaded.network, AVERAGE)
        assert loaded.direction is None
        assert "params_ema is used" in notes[0]


def test_a_file_without_a_generator_says_what_it_holds(tmp_path: Path) -> None:
    for content, said in (
        ({"netD_A": JUDGE, "epoch": 3}, "holds no generator but a discriminator"),
        (PIXEL_JUDGE, "holds no generator but a discriminator"),
        ({"optimizer": optimiser(THERE)}, r"no stem\.weight of a convolution among its keys \(optimizer\)"),
        ({"state_dict": {"vgg.features.0.weight": torch.zeros(2, 2)}}, "holds no generator"),
    ):
        torch.save(content, path := tmp_path / "x.pth")
        with pytest.raises(UserError, match=said):
            load_generator(path, "a2b", [])


def test_names_of_networks_and_their_directions() -> None:
    content = {"G": THERE, "nested": {"state_dict": under("D.", JUDGE)}, "optimizer": optimiser(THERE)}
    assert list(networks_in(content)) == ["G", "nested.state_dict.D"]
    assert networks_in({"ours": ResnetGenerator(width=1, blocks=1).state_dict()}).keys() == {"ours"}
    for name, direction in (("netG", None), ("G_A_ema", "a2b"), ("ema.G_B2A.state_dict", "b2a"), ("params", None)):
        assert direction_of(name) == direction
