"""Folds batch norms with running statistics, which are affine, into the convolutions in front of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cyclegan_fast.images.pixel_type import RGB

if TYPE_CHECKING:
    from cyclegan_fast.config.options import Upsampling
    from cyclegan_fast.networks.resnet import ResnetGenerator


def without_norms(
    width: int, blocks: int, upsampling: "Upsampling", channels: tuple[int, int] = (RGB.channels, RGB.channels)
) -> "ResnetGenerator":
    """Return a new generator that has no norms, and a bias in every convolution instead.

    `channels` are those of the images that it takes and gives.
    """
    import torch
    from torch import nn

    from cyclegan_fast.networks.resnet import ResnetGenerator

    inputs, outputs = channels
    network = ResnetGenerator(
        inputs=inputs, outputs=outputs, width=width, blocks=blocks, norm="none", upsampling=upsampling
    ).eval()
    for name, _ in _pairs(blocks):
        convolution = network.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
        convolution.bias = nn.Parameter(torch.ones(convolution.out_channels))
    return network


def fold_norms(network: "ResnetGenerator") -> "ResnetGenerator":
    """Return a generator without norms that computes what `network` does by its batch norms' running statistics.

        (w * x - mean) * s + shift = (s w) * x + (shift - s mean),    s = scale / sqrt(variance + eps)

    The new weights are computed in float64 and stored in float32.
    """
    import torch
    from torch import nn

    from cyclegan_fast.translation.trained import channels_of

    result = without_norms(network.stem.out_channels, len(network.blocks), network.upsampling, channels_of(network))
    state = {key: value.detach().double() for key, value in network.state_dict().items()}
    with torch.no_grad():
        for name, of_norm in _pairs(len(network.blocks)):
            norm = network.get_submodule(of_norm)
            assert isinstance(norm.eps, float)
            scale = state[f"{of_norm}.weight"] * (state[f"{of_norm}.running_var"] + norm.eps).rsqrt()
            # A transposed convolution has its outputs in the second dimension.
            is_transposed = isinstance(network.get_submodule(name), nn.ConvTranspose2d)
            sides = (1, -1, 1, 1) if is_transposed else (-1, 1, 1, 1)
            result.get_parameter(f"{name}.weight").copy_(state[f"{name}.weight"] * scale.view(sides))
            shift = state[f"{of_norm}.bias"] - scale * state[f"{of_norm}.running_mean"]
            result.get_parameter(f"{name}.bias").copy_(shift)
        for key in ("head.weight", "head.bias"):
            result.get_parameter(key).copy_(state[key])
    return result


def _pairs(blocks: int) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution and of the norm behind it."""
    yield "stem", "stem_norm"
    for level in (0, 1):
        yield f"down.{level}", f"down_norms.{level}"
        yield f"up.{level}", f"up_norms.{level}"
    for block in range(blocks):
        for half in (1, 2):
            yield f"blocks.{block}.conv{half}", f"blocks.{block}.norm{half}"
