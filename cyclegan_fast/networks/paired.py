"""Makes one network of two of a kind, which computes both by convolutions with two groups (`--paired`).

The images of the two lie one behind the other along the channels, [N, 2 * 3, H, W], and so do all activations. A norm,
an activation or a pad works on each channel by itself, and takes them as they are; a convolution has a group for each
of the two networks. So each launch does the work of both, where one network's leaves half of a large GPU idle.

Convolutions from and to images are the exception. Tensor cores take channels by the 8, of which a group of 3 leaves
most idle. They are plain convolutions of both images at once, whose weights are blocks: those that would lead from one
network to the other are 0. That takes no more tiles than two groups do.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

from cyclegan_fast.networks.patchgan import Discriminator
from cyclegan_fast.networks.resnet import ResnetGenerator

PairableNetwork = ResnetGenerator | Discriminator


def paired_weights(first: PairableNetwork, second: PairableNetwork, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return memory for the trained parameters of both networks, by name: [2 * C, ...], as the parameters lie in it."""
    found = {}
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        if one.requires_grad:
            strides = (one[0].numel(), *one.stride()[1:])
            both = torch.empty_strided((2 * len(one), *one.shape[1:]), strides, dtype=dtype, device=one.device)
            for half, parameter in zip(both.chunk(2), (one, other), strict=True):
                half.copy_(parameter.detach())
            found[name] = both
    return found


def paired_network(first: PairableNetwork, weights: dict[str, Tensor], *, crossed: bool = False) -> PairableNetwork:
    """Return a network that maps [x of the first | x of the second] to [first(x) | second(x)].

    Args:
        first: the first network, which says what is computed.
        weights: those of `paired_weights`; the parameters of what is returned look at this memory.
        crossed: the images change places, in front and behind: [x of the second | x of the first] is mapped to
            [second(x) | first(x)]. Of two generators this is the way back: it takes what the way there gave, and its
            result compares with what that was given. It costs nothing, weights lie elsewhere in their blocks.
    """
    network = copy.deepcopy(first)
    image_convolutions = [network.stem, network.head] if isinstance(network, ResnetGenerator) else [network.layers[0]]
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        module.in_channels, module.out_channels = 2 * module.in_channels, 2 * module.out_channels
        module.weight = nn.Parameter(weights[f"{name}.weight"])
        bias = weights.get(f"{name}.bias")  # one in front of an instance norm is never added
        module.bias = None if bias is None else nn.Parameter(bias)
        if module not in image_convolutions:
            module.groups = 2
            continue
        ends = module is image_convolutions[0] and module is not image_convolutions[-1]
        blocks = WeightBlocks(module.weight, crosses_inputs=crossed and ends, crosses_outputs=crossed and not ends)
        parametrize.register_parametrization(module, "weight", blocks, unsafe=True)
        if crossed and not ends and module.bias is not None:
            parametrize.register_parametrization(module, "bias", ExchangedHalves())
    lay_out_blocks(network)
    return network


def trained_leaves(first: PairableNetwork, network: PairableNetwork) -> list[nn.Parameter]:
    """Return the parameters of a paired network in the order of those of `first` that are trained."""
    by_name = {name.replace("parametrizations.", "").split(".original")[0]: p for name, p in network.named_parameters()}
    return [by_name[name] for name, parameter in first.named_parameters() if parameter.requires_grad]


@torch.no_grad()
def lay_out_blocks(network: nn.Module) -> None:
    """Copy the newest weights of a paired network to where its convolutions from and to images read them."""
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], WeightBlocks):
            module[0].lay_out(module.original)


class WeightBlocks(nn.Module):
    """Gives a convolution weights for two images at once, [2 * C_out, 2 * C, K, K], made of [2 * C_out, C, K, K].

    Half of what it is given maps the first image to the first result, and half the second to the second; or, with
    `crosses_inputs`, the other image; or, with `crosses_outputs`, to the other result.
    """

    def __init__(self, weight: Tensor, *, crosses_inputs: bool, crosses_outputs: bool) -> None:
        super().__init__()
        self.crosses_inputs, self.crosses_outputs = crosses_inputs, crosses_outputs
        outputs, inputs, *kernel = weight.shape
        is_channels_last = not weight.is_contiguous()
        memory_format = torch.channels_last if is_channels_last else torch.contiguous_format
        self.laid_out: Tensor
        self.register_buffer(
            "laid_out", weight.new_zeros(outputs, 2 * inputs, *kernel).contiguous(memory_format=memory_format)
        )

    def lay_out(self, weight: Tensor) -> None:
        """Take over new weights."""
        for place, half in zip(self.places(self.laid_out), weight.chunk(2), strict=True):
            place.copy_(half)

    def places(self, laid_out: Tensor) -> Iterator[Tensor]:
        """Yield the blocks of the first and the second half, as views."""
        for half in (0, 1):
            block = laid_out.chunk(2)[half ^ self.crosses_outputs]
            yield block.chunk(2, 1)[half ^ self.crosses_inputs]

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights as they were laid out last; gradients are those of `weight`."""
        laid_out: Tensor = _LaidOut.apply(weight, self)  # type: ignore[no-untyped-call]  # torch's own lack
        return laid_out


class _LaidOut(torch.autograd.Function):
    """Stands for the copies into the blocks, which `WeightBlocks.lay_out` has made already."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, blocks: WeightBlocks) -> Tensor:
        ctx.blocks = blocks
        return blocks.laid_out.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.cat(list(ctx.blocks.places(gradient))), None


class ExchangedHalves(nn.Module):
    """Gives a convolution whose results change places its bias, [2 * C]."""

    def forward(self, bias: Tensor) -> Tensor:
        """Return the second half in front of the first."""
        return bias.roll(len(bias) // 2)
