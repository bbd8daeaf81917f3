"""Every network that the original builds: recognised, the same function, and its file back bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cyclegan_fast.checkpoint.original import channels_by_shapes, from_original, to_original
from cyclegan_fast.config.options import Norm
from cyclegan_fast.networks.norms import use_running_statistics
from cyclegan_fast.networks.patchgan import Discriminator, PatchDiscriminator, PixelDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.trained import load_generator
from tests.cyclegan_fast import original_networks as original

NORMS: tuple[Norm, ...] = ("instance", "batch", "none")

Make = Callable[[Norm], nn.Module]

RESNETS: dict[str, tuple[Make, Make, bool]] = {
    f"{blocks} blocks{', dropout' if dropout else ''}": (
        lambda norm, blocks=blocks, dropout=dropout: original.resnet(2, blocks, norm, dropout=dropout),  # type: ignore[misc]
        lambda norm, blocks=blocks, dropout=dropout: ResnetGenerator(  # type: ignore[misc]
            width=2, blocks=blocks, norm=norm, dropout=dropout, impl="reference"
        ),
        dropout,
    )
    for blocks, dropout in ((1, False), (6, True), (9, False))
}
OTHERS: dict[str, tuple[Make, Make, bool]] = {
    **{
        f"U-Net of {halvings}": (
            lambda norm, halvings=halvings: original.unet(2, halvings, norm, dropout=True),  # type: ignore[misc]
            lambda norm, halvings=halvings: UnetGenerator(  # type: ignore[misc]
                width=2, halvings=halvings, norm=norm, dropout=True, impl="reference"
            ),
            False,
        )
        for halvings in (5, 7)
    },
    **{
        f"PatchGAN of {n_layers}": (
            lambda norm, n=n_layers: original.patch(2, n, norm, channels=6),  # type: ignore[misc]
            lambda norm, n=n_layers: PatchDiscriminator(  # type: ignore[misc]
                width=2, channels=6, n_layers=n, norm=norm, impl="reference"
            ),
            False,
        )
        for n_layers in range(1, 6)
    },
    "PixelGAN": (
        lambda norm: original.pixel(2, norm),
        lambda norm: PixelDiscriminator(width=2, norm=norm, impl="reference"),
        False,
    ),
}
KINDS = {**RESNETS, **OTHERS}
OF_CHANNELS: dict[str, tuple[Make, Make, bool]] = {
    "ResNet of 1 to 3 channels": (
        lambda norm: original.resnet(2, 1, norm, channels=(1, 3)),
        lambda norm: ResnetGenerator(inputs=1, outputs=3, width=2, blocks=1, norm=norm, impl="reference"),
        False,
    ),
    "U-Net of 6 to 1 channels": (
        lambda norm: original.unet(2, 5, norm, channels=(6, 1)),
        lambda norm: UnetGenerator(inputs=6, outputs=1, width=2, halvings=5, norm=norm, impl="reference"),
        False,
    ),
}


def taken_by(network: nn.Module) -> int:
    if isinstance(network, ResnetGenerator | UnetGenerator):
        return channels_by_shapes(network.state_dict())[0]
    first = network.layers[0] if isinstance(network, Discriminator) else None
    assert isinstance(first, nn.Conv2d)
    return first.in_channels


def image_for(network: nn.Module, count: int = 2) -> Tensor:
    side = 128 if isinstance(network, Discriminator | UnetGenerator) else 24
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, taken_by(network), side, side, generator=generator, dtype=torch.float64) * 2 - 1


def pair(kind: str, norm: Norm) -> tuple[nn.Module, nn.Module, bool]:
    """Gives the original's network, ours with its weights, and whether its file's names are those of dropout."""
    make_original, make_ours, dropout = {**KINDS, **OF_CHANNELS}[kind]
    ours = make_ours(norm).double()
    plain = original.trained(make_original(norm), side=image_for(ours).size(2), channels=taken_by(ours))
    ours.load_state_dict(from_original(plain.state_dict()))  # strict
    return plain, ours, dropout


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [*KINDS, *OF_CHANNELS])
def test_values_gradients_statistics_and_files_are_the_originals(kind: str, norm: Norm) -> None:
    plain, ours, dropout = pair(kind, norm)
    assert_same_file(to_original(ours.state_dict(), dropout=dropout), plain.state_dict())

    image = image_for(ours)
    outputs = []
    for network in (ours, plain):
        torch.manual_seed(3)  # the same activations are dropped
        outputs.append(network(image.clone()))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-10)
    cotangent = torch.rand_like(outputs[0])
    found, expected = (
        {
            name: gradient
            for (name, _), gradient in zip(
                named, torch.autograd.grad(out, [p for _, p in named], cotangent), strict=True
            )
        }
        for out, named in (
            (outputs[0], [(n, p) for n, p in ours.named_parameters() if p.requires_grad]),
            (outputs[1], list(plain.named_parameters())),
        )
    )
    expected = from_original(expected)
    for name, gradient in found.items():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-9 * scale + 1e-12, msg=name)
    # The running statistics that this pass gathered, too.
    after = from_original(plain.state_dict())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, after[name], rtol=1e-10, atol=1e-12, msg=name)


def assert_same_file(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype, name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "GAN" not in kind])
def test_in_evaluation_mode_a_batch_norm_takes_each_image_or_what_it_gathered(kind: str) -> None:
    """Translates as the original's test.py, one image at a time: without --eval, and with it (without dropout then)."""
    plain, ours, _ = pair(kind, "batch")
    image = image_for(ours)
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        expected = plain.eval()(image)
        by_image = torch.cat([plain.train()(one[None]) for one in image])
        ours.eval()
        torch.testing.assert_close(ours(image), by_image, rtol=1e-9, atol=1e-10)
        use_running_statistics(ours, "x")
        torch.testing.assert_close(ours(image), expected, rtol=1e-9, atol=1e-10)
    assert not torch.allclose(expected, by_image, atol=1e-3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "GAN" not in kind])
def test_a_generators_file_says_itself_what_it_holds(kind: str, norm: Norm, tmp_path: Path) -> None:
    plain, ours, _ = pair(kind, norm)
    torch.save(plain.float().state_dict(), path := tmp_path / "latest_net_G.pth")
    loaded = load_generator(path, "b2a", []).network
    assert type(loaded) is type(ours)
    assert loaded.norm == norm
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, ours.float().state_dict()[name]), name
    torch.save(loaded.state_dict(), path)  # in our names
    assert load_generator(path, "b2a", []).network.norm == norm


def test_keys_of_batch_norm_none_and_other_discriminators_are_written_out_once() -> None:
    """Against keys by hand, where transcription and table could share a mistake."""

    def keys(network: nn.Module) -> list[str]:
        return [key for key in to_original(network.state_dict()) if not key.endswith("num_batches_tracked")]

    def batch_norm(place: str) -> list[str]:
        return [f"{place}.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")]

    assert keys(ResnetGenerator(width=1, blocks=1, norm="none")) == [
        "model.1.weight",
        "model.4.weight",
        "model.7.weight",
        "model.10.conv_block.1.weight",
        "model.10.conv_block.5.weight",
        "model.11.weight",
        "model.14.weight",
        "model.18.weight",
        "model.18.bias",
    ]
    block = keys(ResnetGenerator(width=1, blocks=6, norm="batch"))[15:]
    inside = "model.10.conv_block"
    assert block[:10] == [
        f"{inside}.1.weight",
        *batch_norm(f"{inside}.2"),
        f"{inside}.5.weight",
        *batch_norm(f"{inside}.6"),
    ]
    assert keys(PatchDiscriminator(width=1, n_layers=1, norm="batch")) == [
        "model.0.weight",
        "model.0.bias",
        "model.2.weight",
        *batch_norm("model.3"),
        "model.5.weight",
        "model.5.bias",
    ]
    assert keys(PixelDiscriminator(width=1, norm="batch")) == [
        "net.0.weight",
        "net.0.bias",
        "net.2.weight",
        *batch_norm("net.3"),
        "net.5.weight",
    ]
    assert keys(PixelDiscriminator(width=1))[-2:] == ["net.5.weight", "net.5.bias"]


def without(state: dict[str, Tensor], *endings: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith(endings)}


def test_files_of_batch_norms_without_statistics_get_those_of_a_new_network() -> None:
    """Reads files from before PyTorch 0.4.1, which count no batches, and of training without running statistics."""
    state = original.trained(original.resnet(1, 1, "batch")).state_dict()
    kept = from_original(without(state, "num_batches_tracked"))
    assert torch.equal(kept["stem_norm.running_var"], state["model.2.running_var"])
    assert kept["stem_norm.num_batches_tracked"] == 0
    network = ResnetGenerator(width=1, blocks=1, norm="batch").double()
    network.load_state_dict(from_original(without(state, "running_mean", "running_var", "num_batches_tracked")))
    assert torch.equal(network.get_buffer("up_norms.1.running_var"), torch.ones(1, dtype=torch.float64))
    with pytest.raises(UserError, match="x holds no running statistics"):
        use_running_statistics(network, "x")
    with pytest.raises(UserError, match="x has no batch norm"):
        use_running_statistics(ResnetGenerator(width=1, blocks=1), "x")
    with pytest.raises(UserError, match=r"missing model\.2\.running_var"):
        from_original({key: value for key, value in state.items() if key != "model.2.running_var"})


@pytest.mark.parametrize("norm", NORMS)
def test_what_does_not_fit_a_generator_names_its_keys_and_never_a_discriminator(norm: Norm, tmp_path: Path) -> None:
    state = dict(original.trained(original.resnet(2, 6, norm), side=16).float().state_dict())
    path = tmp_path / "G.pth"

    def error_of(changed: dict[str, Tensor]) -> str:
        torch.save(changed, path)
        with pytest.raises(UserError) as caught:
            load_generator(path, "a2b", [])
        assert str(path) in str(caught.value)
        assert "discriminator" not in str(caught.value)
        return str(caught.value)

    called = {"instance": "instance", "batch": "batch", "none": "no"}[norm]
    renamed = error_of({key.replace("conv_block", "block"): value for key, value in state.items()})
    assert f"not a ResNet generator of 6 blocks with {called} norm of the original" in renamed
    assert "unknown model.10.block." in renamed
    assert "missing model.10.conv_block." in renamed
    assert error_of(without(state, "model.4.weight")).endswith("missing model.4.weight")
    assert "unknown model.28.weight" in error_of({**state, "model.28.weight": torch.zeros(1)})
    narrow = {**state, "model.1.weight": state["model.1.weight"][:, :, :5]}
    assert "model.1.weight is (2, 3, 5, 7) instead of (2, 3, 7, 7)" in error_of(narrow)
    torch.save({**state, "model.1.weight": state["model.1.weight"][:, :1]}, path)  # of other images
    assert load_generator(path, "a2b", []).source.channels == 1
    for place in ("model.4.weight", "model.10.conv_block.1.weight", "model.16.weight"):
        assert f"{place} is (3,) instead of" in error_of({**state, place: torch.zeros(3)})
