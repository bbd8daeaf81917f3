"""U-Nets equal a transcription of the original's nested blocks in values, gradients and files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan_fast.checkpoint.original import from_original, to_original
from cyclegan_fast.config.options import Norm
from cyclegan_fast.images.pixels import to_pixels, to_signed
from cyclegan_fast.networks.norms import BatchNorm
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translate import main
from cyclegan_fast.translation.trained import generator_from, load_generator
from export import to_onnx
from tests.cyclegan_fast.pictures import photo

StateDict = dict[str, Tensor]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
NORMS: tuple[Norm, ...] = ("instance", "batch")


class Block(nn.Module):
    """Holds one level with all that lies inside it, its modules where the original's Sequential has them."""

    def __init__(
        self, outer: int, middle: int, inside: "Block | None", norm: Norm, *, kind: str, dropout: bool = False
    ) -> None:
        super().__init__()
        is_outermost, biased = kind == "outermost", norm == "instance"
        self.is_outermost = is_outermost

        def make_norm(channels: int) -> nn.Module:
            return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels)

        layers: list[nn.Module] = [] if is_outermost else [nn.LeakyReLU(0.2, inplace=True)]
        layers.append(nn.Conv2d(3 if is_outermost else outer, middle, 4, 2, 1, bias=biased))
        if kind == "middle":
            layers.append(make_norm(middle))
        if inside is not None:
            layers.append(inside)
        layers.append(nn.ReLU(inplace=True))
        joined = middle if inside is None else 2 * middle
        layers.append(nn.ConvTranspose2d(joined, outer, 4, 2, 1, bias=biased or is_outermost))
        layers.append(nn.Tanh() if is_outermost else make_norm(outer))
        if dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Computes in place: what is concatenated is what the leaky ReLU made of x."""
        result: Tensor = self.model(x)
        return result if self.is_outermost else torch.cat([x, result], 1)


class Original(nn.Module):
    def __init__(self, width: int, halvings: int, norm: Norm, *, dropout: bool = False) -> None:
        super().__init__()
        block = Block(width * 8, width * 8, None, norm, kind="innermost")
        for _ in range(halvings - 5):
            block = Block(width * 8, width * 8, block, norm, kind="middle", dropout=dropout)
        for outer in (width * 4, width * 2, width):
            block = Block(outer, outer * 2, block, norm, kind="middle")
        self.model = Block(3, width, block, norm, kind="outermost")

    def forward(self, image: Tensor) -> Tensor:
        translated: Tensor = self.model(image)
        return translated


def original(halvings: int, norm: Norm, *, width: int = 2, dropout: bool = False, seed: int = 0) -> Original:
    """Return both networks in float64, every parameter random: initial ones would hide misplaced biases and scales."""
    torch.manual_seed(seed)
    network = Original(width, halvings, norm, dropout=dropout).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)  # small ones would leave ReLUs nothing
    return network


def ours_from(plain: Original, halvings: int, norm: Norm, *, width: int = 2, dropout: bool = False) -> UnetGenerator:
    ours = UnetGenerator(width=width, halvings=halvings, norm=norm, dropout=dropout, impl="reference").double()
    ours.load_state_dict(from_original(plain.state_dict()))
    return ours


def images(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1


# --- what it computes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [False, True], ids=["without dropout", "with dropout"])
@pytest.mark.parametrize("halvings", [5, 6, 7])
@pytest.mark.parametrize("norm", NORMS)
def test_values_and_gradients_are_those_of_the_transcription(norm: Norm, halvings: int, dropout: bool) -> None:
    """Runs in training mode; with dropout the same seed drops the same activations, in the same blocks."""
    plain = original(halvings, norm, dropout=dropout)
    ours = ours_from(plain, halvings, norm, dropout=dropout)
    side = 2**halvings
    image = images(2, 3, side, 2 * side if halvings < 7 else side).requires_grad_(True)
    outputs = []
    for network in (ours, plain):
        torch.manual_seed(3)
        outputs.append(network(image.clone()))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-10)
    if dropout and halvings > 5:
        assert not torch.allclose(outputs[0], ours(image))  # another draw

    cotangent = images(*outputs[0].shape, seed=2)
    trained = {name: parameter for name, parameter in ours.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(outputs[0], [image, *trained.values()], cotangent)
    theirs = torch.autograd.grad(outputs[1], [image, *plain.parameters()], cotangent)
    expected = from_original(dict(zip((name for name, _ in plain.named_parameters()), theirs[1:], strict=True)))
    assert set(expected) == set(ours.state_dict())  # which has running statistics, too
    for name, gradient, wanted in [
        ("image", found[0], theirs[0]),
        *((name, gradient, expected[name]) for name, gradient in zip(trained, found[1:], strict=True)),
    ]:
        scale = wanted.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-9 * scale, msg=name)


def test_dropout_is_in_the_blocks_between_the_innermost_and_the_four_outer_ones_while_training() -> None:
    for halvings in (5, 6):
        network = UnetGenerator(width=2, halvings=halvings, dropout=True)
        image = images(1, 3, 2**halvings, 2**halvings).float()
        assert torch.equal(network(image), network(image)) == (halvings == 5)
        network.eval()
        assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("norm", NORMS)
def test_a_translation_depends_on_its_own_image_only(norm: Norm) -> None:
    """Each is what the original makes of it, which translates one image at a time in training mode."""
    plain = original(5, norm)
    ours = ours_from(plain, 5, norm).eval()
    batch = images(3, 3, 32, 64)
    with torch.no_grad():
        together = ours(batch)
        for index in range(3):
            alone = batch[index : index + 1]
            torch.testing.assert_close(together[index : index + 1], plain(alone), rtol=1e-9, atol=1e-10)
        # In training mode the images of a batch share the statistics of a batch norm.
        is_shared = not torch.allclose(ours.train()(batch), together)
    assert is_shared == (norm == "batch")


def test_narrow_batch_norms_have_wide_statistics() -> None:
    """Has a mean of 17 deviations, which statistics in bfloat16 would blur: the error is that of one rounding."""
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 16, 16) + 17).bfloat16()
    norm = BatchNorm(3)
    expected = nn.BatchNorm2d(3, dtype=torch.float64)(x.double()).relu()
    for found in (norm(x, activation="relu", impl="auto"), norm.bfloat16()(x, activation="relu", impl="auto")):
        assert found.dtype == torch.bfloat16
        error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert error < 3e-3


@pytest.mark.parametrize(("norm", "millions"), [("batch", 54.414), ("instance", 54.410)])
def test_the_number_of_parameters_is_the_originals(norm: Norm, millions: float) -> None:
    with torch.device("meta"):
        networks = UnetGenerator(norm=norm), Original(64, 8, norm)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts[0] == counts[1]
    assert counts[0] / 1e6 == pytest.approx(millions, abs=5e-4)


def test_a_bias_in_front_of_an_instance_norm_is_kept_but_neither_trained_nor_added() -> None:
    network = UnetGenerator(width=2, halvings=5)
    biases = {name: bias for name, bias in network.named_parameters() if name.endswith("bias")}
    added = {"down.0.bias", "down.4.bias", "up.4.bias"}
    assert set(biases) == {name.replace("weight", "bias") for name in network.state_dict()}
    assert {name for name, bias in biases.items() if bias.requires_grad} == added
    image = images(1, 3, 32, 32).float()
    before = network(image)
    with torch.no_grad():
        for name in biases.keys() - added:
            biases[name].fill_(3.0)
    assert torch.equal(network(image), before)


def test_a_network_starts_as_the_originals() -> None:
    """Convolutions N(0, 0.02), scales of norms N(1, 0.02), all biases 0."""
    torch.manual_seed(0)
    network = UnetGenerator(width=16, halvings=6, norm="batch")
    scales = torch.cat([p for name, p in network.named_parameters() if "norms" in name and name.endswith("weight")])
    assert scales.mean().item() == pytest.approx(1.0, abs=0.005)
    assert scales.std().item() == pytest.approx(0.02, rel=0.15)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norms" not in name:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name


def test_what_cannot_be_built_or_translated_is_refused() -> None:
    for options, message in (
        ({"width": 0}, "width must be positive, got 0"),
        ({"halvings": 4}, "halvings must be at least 5, got 4"),
        ({"norm": "layer"}, "norm must be one of instance, batch, none, got 'layer'"),
    ):
        with pytest.raises(ValueError, match=message):
            UnetGenerator(**options)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="multiples of 32, got 32x48"):
        UnetGenerator(width=2, halvings=5)(torch.zeros(1, 3, 32, 48))


def test_a_conditional_discriminator_judges_six_channels() -> None:
    torch.manual_seed(0)
    ours = PatchDiscriminator(width=4, channels=6)
    assert ours(torch.zeros(1, 6, 32, 32)).shape == (1, 1, 2, 2)
    again = PatchDiscriminator(width=4, channels=6)
    again.load_state_dict(from_original(to_original(ours.state_dict())))
    pair = images(1, 6, 32, 32).float()
    assert torch.equal(again(pair), ours(pair))
    with pytest.raises(ValueError, match="channels must be positive, got 0"):
        PatchDiscriminator(channels=0)


def plain_discriminator(width: int, channels: int) -> nn.Sequential:
    """Return the original's conditional discriminator with batch norm: its modules in its order."""
    modules: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        convolution = nn.Conv2d(width * inputs, width * outputs, 4, stride, 1, bias=False)
        modules += [convolution, nn.BatchNorm2d(width * outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*modules, nn.Conv2d(width * 8, 1, 4, 1, 1))


def test_a_discriminator_with_batch_norm_is_the_originals_in_values_gradients_and_files() -> None:
    torch.manual_seed(0)
    plain = plain_discriminator(3, 6).double()
    for parameter in plain.parameters():
        nn.init.normal_(parameter, 0.2, 0.4)
    file = {f"model.{key}": value for key, value in plain.state_dict().items()}
    ours = PatchDiscriminator(width=3, channels=6, norm="batch", impl="reference").double()
    ours.load_state_dict(from_original(file))
    assert list(to_original(ours.state_dict())) == list(file)
    pair = images(2, 6, 40, 32)
    scores, expected = ours(pair), plain(pair)
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-12)
    cotangent = images(*scores.shape, seed=3)
    names_of_ours, parameters = zip(*ours.named_parameters(), strict=True)
    found = dict(zip(names_of_ours, torch.autograd.grad(scores, parameters, cotangent), strict=True))
    theirs = torch.autograd.grad(expected, list(plain.parameters()), cotangent)
    names = (f"model.{name}" for name, _ in plain.named_parameters())
    wanted = from_original(dict(zip(names, theirs, strict=True)))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12)
    fresh = PatchDiscriminator(width=64, channels=6, norm="batch").state_dict()
    assert abs(fresh["norms.2.weight"].std() - 0.02) < 0.002
    assert abs(fresh["norms.2.weight"].mean() - 1) < 0.003


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("halvings", [5, 8])
@pytest.mark.parametrize("norm", NORMS)
def test_files_of_the_original_go_there_and_back(norm: Norm, halvings: int) -> None:
    plain = original(halvings, norm, width=1, dropout=halvings == 8)
    for _ in range(2):  # gathers running statistics
        plain(images(2, 3, 2**halvings, 2**halvings))
    translated = from_original(plain.state_dict())
    back = to_original(translated)
    Original(1, halvings, norm).double().load_state_dict(back)  # strict
    assert list(back) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(back[name], value), name
        assert back[name].dtype == value.dtype
    # Weights of older versions here have none: those of a new network, without which the original refuses a file.
    older = {name: value for name, value in translated.items() if name.rpartition(".")[2] not in STATISTICS}
    new = Original(1, halvings, norm).double().state_dict()
    assert list(to_original(older)) == list(new)
    for name, value in to_original(older).items():
        if name.rpartition(".")[2] in STATISTICS:
            assert torch.equal(value, new[name]), name


def test_keys_are_written_out_once() -> None:
    """Holds the table against keys by hand, where test and table could share a mistake about nesting."""
    inner = "model.model.1.model.3.model.3.model"
    found = from_original(Original(1, 5, "batch").state_dict())
    state = to_original(found)
    for ours, theirs in (
        ("down.0.weight", "model.model.0.weight"),
        ("up.4.bias", "model.model.3.bias"),
        ("down.1.weight", "model.model.1.model.1.weight"),
        ("down_norms.0.bias", "model.model.1.model.2.bias"),
        ("up.3.weight", "model.model.1.model.5.weight"),
        ("up_norms.3.weight", "model.model.1.model.6.weight"),
        ("down_norms.2.weight", f"{inner}.2.weight"),
        ("down.4.weight", f"{inner}.3.model.1.weight"),
        ("up.0.weight", f"{inner}.3.model.3.weight"),
        ("up_norms.0.bias", f"{inner}.3.model.4.bias"),
    ):
        assert torch.equal(found[ours], state[theirs]), ours
        assert found[ours].shape == Original(1, 5, "batch").state_dict()[theirs].shape


@pytest.mark.parametrize("norm", NORMS)
def test_a_bare_file_is_recognised_and_translates_as_the_original_does(tmp_path: Path, norm: Norm) -> None:
    plain = original(6, norm, width=3).float()
    torch.save(plain.state_dict(), path := tmp_path / "latest_net_G.pth")
    network, config, *_ = load_generator(path, "a2b", [])
    assert isinstance(network, UnetGenerator)
    assert (network.width, network.halvings, network.norm, network.dropout) == (3, 6, norm, False)
    assert network.multiple == 64
    assert not config
    image = images(1, 3, 64, 64).float()
    torch.testing.assert_close(network.eval()(image), plain(image), rtol=1e-4, atol=1e-5)
    torch.save(network.state_dict(), path)  # in our names
    again = load_generator(path, "a2b", []).network.eval()
    assert torch.equal(again(image), network(image))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"model.model.3.bias": None},
            r"U-Net generator of 5 halvings with batch norm .*missing model\.model\.3\.bias",
        ),
        ({"model.model.1.model.2.weight": None}, r"missing model\.model\.1\.model\.2\.weight"),
        ({"model.model.1.model.1.bias": torch.zeros(2)}, r"unknown model\.model\.1\.model\.1\.bias"),
        ({"model.26.weight": torch.zeros(2)}, r"unknown model\.26\.weight"),
        ({"model.model.0.bias": torch.zeros(1)}, r"5 halvings with batch norm .*unknown model\.model\.0\.bias"),
    ],
)
def test_what_is_no_u_net_of_the_original_is_refused(change: dict[str, Tensor | None], named: str) -> None:
    state = {**Original(1, 5, "batch").state_dict(), **change}
    with pytest.raises(UserError, match=named):
        from_original({name: value for name, value in state.items() if value is not None})


def test_weights_that_belong_to_no_network_are_refused() -> None:
    state = UnetGenerator(width=1, halvings=5).state_dict()
    lacking = {name: value for name, value in state.items() if name != "up.2.bias"}
    with pytest.raises(UserError, match=r"not the weights of a U-Net generator of 5 halvings.*missing up\.2\.bias"):
        to_original(lacking)
    with pytest.raises(UserError, match=r"x\.pth does not fit this network: up\.2\.bias is missing"):
        generator_from(lacking, "x.pth")
    shallow = {name: value for name, value in state.items() if "4" not in name}
    with pytest.raises(UserError, match=r"down\.4\.bias is missing"):
        generator_from(shallow, "x.pth")
    with pytest.raises(UserError, match=r"no down\.0\.weight of a convolution"):
        generator_from(state | {"down.0.weight": torch.zeros(3)}, "x.pth")
    with pytest.raises(UserError, match=r"not the weights of a generator or discriminator: unknown encoder\.weight"):
        to_original({"encoder.weight": torch.zeros(3)})


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(original(6, "batch").float().state_dict(), path := tmp_path / "latest_net_G.pth")
    return path


def run(tmp_path: Path, checkpoint: Path, *flags: str, width: int = 64) -> int:
    photo(128, seed=0).resize((width, 64)).save(tmp_path / "photo.png")
    fixed = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--device", "cpu", "--no-contact-sheet"]
    return main([str(tmp_path / "photo.png"), *fixed, *flags])


@pytest.mark.parametrize(("flag", "width"), [("--size=64", 64), ("--keep-size", 64), ("--overwrite", 100)])
def test_images_are_padded_to_what_the_network_takes(tmp_path: Path, checkpoint: Path, flag: str, width: int) -> None:
    assert run(tmp_path, checkpoint, flag, width=width) == 0
    source = np.asarray(Image.open(tmp_path / "photo.png"))
    padded = np.pad(source, ((0, 0), (0, -width % 64), (0, 0)), mode="reflect")
    network = load_generator(checkpoint, "a2b", []).network.eval()
    with torch.no_grad():
        expected = to_pixels(network(to_signed(torch.from_numpy(padded.copy())[None])))[0, :, :width]
    found = np.asarray(Image.open(tmp_path / "out" / "photo.png"))
    assert found.shape == source.shape
    assert found.std() > 10
    assert np.abs(found.astype(int) - expected).max() <= 1  # memory formats differ


def test_sizes_that_a_u_net_cannot_halve_are_refused_in_one_sentence(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, checkpoint, "--size", "100") == 2
    assert "takes images whose sides are multiples of 64, not 100: give another --size" in capsys.readouterr().err


def test_that_a_u_net_cannot_be_exported_is_said_in_one_sentence(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    assert to_onnx.main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds a U-Net, and only ResNet generators can be exported" in error
    assert not (tmp_path / "out").exists()
