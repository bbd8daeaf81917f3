"""Test that all networks of a file of weights are found, by the names that a run has for them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cyclegan_fast.checkpoint.named_networks import named_networks
from cyclegan_fast.checkpoint.original import from_original
from cyclegan_fast.checkpoint.weights_file import WeightsFile
from cyclegan_fast.system.errors import UserError
from tests.cyclegan_fast.original_networks import patch, resnet, unet

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def originals() -> dict[str, State]:
    """Makes the four networks of a CycleGAN by the original's names, each with weights of its own."""
    torch.manual_seed(0)
    networks = {name: resnet(4, 6, "instance") for name in ("G_A", "G_B")}
    networks |= {name: patch(4, 3, "instance") for name in ("D_A", "D_B")}
    return {name: network.state_dict() for name, network in networks.items()}


def read(path: Path) -> tuple[dict[str, State], list[str]]:
    notes: list[str] = []
    return named_networks(WeightsFile.read(path, notes), notes), notes


def assert_are(found: dict[str, State], expected: dict[str, State]) -> None:
    """Compare with state dicts in the original's keys, to the bit."""
    assert {*found} == {*expected}
    for name, state in expected.items():
        ours = from_original(state)
        assert {*found[name]} == {*ours}
        assert all(torch.equal(found[name][key], value) for key, value in ours.items()), name


@pytest.mark.parametrize("given", ["G_A", "G_B", "D_A"])
@pytest.mark.parametrize(("epoch", "ending"), [("latest", ".pth"), ("100", ".safetensors")])
def test_a_file_of_the_original_brings_those_beside_it(
    originals: dict[str, State], given: str, epoch: str, ending: str, tmp_path: Path
) -> None:
    for name, state in originals.items():
        path = tmp_path / f"{epoch}_net_{name}{ending}"
        save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
        torch.save(originals["G_B"], tmp_path / f"5_net_{name}.pth")  # another epoch's
    found, notes = read(tmp_path / f"{epoch}_net_{given}{ending}")
    assert_are(found, originals)
    assert notes == []
    (tmp_path / f"{epoch}_net_D_B{ending}").unlink()
    found, _ = read(tmp_path / f"{epoch}_net_{given}{ending}")
    assert_are(found, {name: state for name, state in originals.items() if name != "D_B"})


def test_the_one_pair_of_a_pix2pix_maps_a_to_b(tmp_path: Path) -> None:
    states = {"G": unet(2, 7, "batch").state_dict(), "D": patch(2, 3, "batch", channels=6).state_dict()}
    for name, state in states.items():
        torch.save(state, tmp_path / f"latest_net_{name}.pth")
    found, _ = read(tmp_path / "latest_net_G.pth")
    assert_are(found, {"G_A": states["G"], "D_A": states["D"]})


def test_networks_in_one_file_are_told_by_their_names(originals: dict[str, State], tmp_path: Path) -> None:
    inside = {
        "netG_A2B": originals["G_A"],
        "netG_B2A": originals["G_B"],
        "netG_A2B_ema": originals["G_B"],
        "netD_A": originals["D_A"],
        "critic": originals["D_B"],
    }
    torch.save({"state_dict": inside, "epoch": 3}, tmp_path / "all.pt")
    found, notes = read(tmp_path / "all.pt")
    names = {"G_A": "G_A", "G_B": "G_B", "G_A_ema": "G_B", "D_A": "D_A"}
    assert_are(found, {ours: originals[theirs] for ours, theirs in names.items()})
    assert len(notes) == 1
    assert "critic of" in notes[0]
    assert "is left out: its name does not say what it judges" in notes[0]


@pytest.mark.parametrize(("name", "ours"), [("zebras", "G_A"), ("netG_B2A", "G_B"), ("latest_net_G_B_ema", "G_B")])
def test_a_generator_alone_goes_where_its_file_says(
    originals: dict[str, State], name: str, ours: str, tmp_path: Path
) -> None:
    torch.save(originals["G_A"], tmp_path / f"{name}.pth")
    found, notes = read(tmp_path / f"{name}.pth")
    assert_are(found, {ours: originals["G_A"]})
    assert [note.endswith("is taken for G_A, which maps A to B") for note in notes] == [True] * (name == "zebras")


def test_files_without_one_generator_for_a_direction_are_refused(originals: dict[str, State], tmp_path: Path) -> None:
    torch.save(originals["D_A"], tmp_path / "latest_net_D_A.pth")
    with pytest.raises(UserError, match=r"latest_net_D_A.pth holds no generator: give a run, or a file such as"):
        read(tmp_path / "latest_net_D_A.pth")
    torch.save({"first": originals["G_A"], "second": originals["G_B"]}, tmp_path / "two.pt")
    with pytest.raises(UserError, match=r"two.pt holds several networks for G_A \(first, second\)"):
        read(tmp_path / "two.pt")
    torch.save({"step": 3}, tmp_path / "nothing.pt")
    with pytest.raises(UserError, match=r"nothing\.pt holds no generator"):
        read(tmp_path / "nothing.pt")
