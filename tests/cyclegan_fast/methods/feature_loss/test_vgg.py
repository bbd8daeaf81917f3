"""VGG's activations are those of the published network, and every wrong file is explained."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cyclegan_fast.methods.feature_loss.vgg import Depth, Vgg, VggActivation, blank, load_vgg
from cyclegan_fast.system.errors import UserError

WIDTHS = (2, 3, 4, 5, 6)
# torchvision's own configurations "D" and "E", with M for a pooling, at a few channels.
COLUMNS: dict[Depth, list[int | str]] = {
    16: [2, 2, "M", 3, 3, "M", 4, 4, 4, "M", 5, 5, 5, "M", 6, 6, 6, "M"],
    19: [2, 2, "M", 3, 3, "M", 4, 4, 4, 4, "M", 5, 5, 5, 5, "M", 6, 6, 6, 6, "M"],
}
# Where torchvision's Sequential has the ReLUs that are usually called so.
KNOWN: dict[Depth, dict[str, int]] = {
    16: {"relu1_1": 1, "relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_2": 20, "relu4_3": 22, "relu5_3": 29},
    19: {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 20, "relu4_2": 22, "relu5_1": 29, "relu5_4": 35},
}


def plain(depth: Depth, pooling: nn.Module | None = None) -> nn.Sequential:
    """Return the network as torchvision builds it, random."""
    torch.manual_seed(depth)
    layers: list[nn.Module] = []
    channels = 3
    for entry in COLUMNS[depth]:
        if isinstance(entry, str):
            layers.append(pooling or nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
    return nn.Sequential(*layers)


def write(network: nn.Sequential, path: Path) -> Path:
    state = {f"features.{key}": value for key, value in network.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}, path)
    return path


def as_imagenet(images: Tensor) -> Tensor:
    """Return what torchvision's transforms give for [-1, 1]."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=images.dtype)[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225], dtype=images.dtype)[:, None, None]
    return ((images + 1) / 2 - mean) / deviation


@pytest.mark.parametrize("depth", [16, 19])
@pytest.mark.parametrize("average", [False, True])
def test_activations_are_those_of_the_published_network(tmp_path: Path, depth: Depth, average: bool) -> None:
    reference = plain(depth, nn.AvgPool2d(2, 2) if average else None)
    network = load_vgg(write(reference, tmp_path / "w.pth"), depth, "average" if average else "max").double()
    images = torch.rand(2, 3, 37, 48, dtype=torch.float64) * 2 - 1
    found = network(images, KNOWN[depth])
    assert list(found) == list(KNOWN[depth])
    reference.double()
    for name, index in KNOWN[depth].items():
        torch.testing.assert_close(found[name], reference[: index + 1](as_imagenet(images)), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(VggActivation(network, name)(images), found[name], rtol=0, atol=0)


def test_nothing_deeper_than_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Vgg((2, 2, 3, 3, 3), WIDTHS)
    computed: list[str] = []
    for place, convolution in network.convolutions.items():
        convolution.register_forward_hook(lambda *_, place=place: computed.append(place))
    assert network(torch.zeros(1, 3, 8, 8), ["relu2_1", "relu1_1"]).keys() == {"relu1_1", "relu2_1"}
    assert computed == ["1_1", "1_2", "2_1"]
    with pytest.raises(ValueError, match="no activation relu9_9: this network has relu1_1, relu1_2"):
        network(torch.zeros(1, 3, 8, 8), ["relu9_9"])


def test_low_precision_computes_the_input_in_full() -> None:
    """Subtracts the mean before rounding: what differs from float32 is of the size of bfloat16's rounding."""
    torch.manual_seed(0)
    network = Vgg((1,), (4,))
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    exact = network(images, ["relu1_1"])["relu1_1"]
    low = network.to(torch.bfloat16)(images, ["relu1_1"])["relu1_1"]
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().max() < 2**-8 * 4 * exact.abs().max()


def test_a_blank_network_draws_nothing() -> None:
    before = torch.get_rng_state()
    network = blank(Vgg, (1, 1), (2, 3))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())


def test_wrong_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*none\.pth.*download\.pytorch\.org/models/vgg16-397923af\.pth"):
        load_vgg(tmp_path / "none.pth", 16)
    nineteen = write(plain(19), tmp_path / "19.pth")
    with pytest.raises(UserError, match=r"holds a VGG-19, not the VGG-16 of torchvision: give vgg16-397923af\.pth"):
        load_vgg(nineteen, 16)
    torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"holds another network, not the VGG-19"):
        load_vgg(tmp_path / "other.pth", 19)
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match=r"holds another network"):
        load_vgg(tmp_path / "empty.pth", 19)
    whole = nineteen.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.pth is"):
        load_vgg(tmp_path / "cut.pth", 19)
    state = torch.load(nineteen)
    for change in ({"features.0.running_mean": torch.zeros(2)}, {"features.2.bias": torch.zeros(7)}):
        torch.save(state | change, tmp_path / "odd.pth")
        with pytest.raises(UserError, match=r"odd\.pth (holds another network|does not fit)"):
            load_vgg(tmp_path / "odd.pth", 19)
    for odd in ("scalar", 3.0):
        torch.save(state | {"features.0.weight": torch.tensor(1.0) if odd == "scalar" else odd}, tmp_path / "odd.pth")
        with pytest.raises(UserError, match=r"odd\.pth"):
            load_vgg(tmp_path / "odd.pth", 19)
