"""Discriminators with a norm of their own."""

import torch

from cyclegan_fast.config.options import Config, NetworkConfig
from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks.norms import InstanceNorm, NoNorm
from cyclegan_fast.networks.patchgan import PatchDiscriminator


def test_generators_keep_theirs() -> None:
    networks = NetworkConfig(
        generator="resnet_6", ngf=2, ndf=2, discriminator="n_layers", n_layers=2, discriminator_norm="none"
    )
    model = Model(Config(networks=networks))
    kinds = {
        name: {type(module) for module in network.modules() if isinstance(module, InstanceNorm | NoNorm)}
        for name, network in model.named_children()
    }
    assert kinds == {"G_A": {InstanceNorm}, "G_B": {InstanceNorm}, "D_A": {NoNorm}, "D_B": {NoNorm}}


def test_without_a_norm_a_discriminator_sees_how_bright_an_image_is() -> None:
    """Compares an image with a darker one of half the contrast, which an instance norm behind the first layer hides."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 48, 48)
    differences = {}
    for norm in ("instance", "none"):
        network = PatchDiscriminator(width=16, n_layers=2, norm=norm)  # type: ignore[arg-type]
        with torch.no_grad():
            network.layers[0].bias.zero_()  # type: ignore[union-attr,operator]
            scores, darker = network(image), network(image / 2)
        differences[norm] = float((scores - darker).abs().mean() / scores.abs().mean())
    assert differences["instance"] < 0.05
    assert differences["none"] > 0.3
