"""Makes one network of two of a kind, which computes both by convolutions with two groups (`--paired`).

The images of the two lie one behind the other along the channels, [N, 2 * C, H, W], and so do all activations. A norm,
an activation or a pad works on each channel by itself, and takes them as they are; a convolution has a group for each
of the two networks. So each launch does the work of both, where one network's leaves half of a large GPU idle.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cyclegan_fast.networks.patchgan import Discriminator
from cyclegan_fast.networks.resnet import ResnetGenerator

PairableNetwork = ResnetGenerator | Discriminator


def adjoining_weights(networks: Sequence[PairableNetwork], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return memory for the trained parameters of networks of a kind, by name: [len(networks) * C, ...], with a copy.

    Each part lies in it as its parameter does, so that launches over lists of tensors take both side by side.
    """
    found = {}
    for (name, first), *others in zip(
        networks[0].named_parameters(), *(network.parameters() for network in networks[1:]), strict=True
    ):
        if first.requires_grad:
            strides = (first[0].numel(), *first.stride()[1:])
            shape = (len(networks) * len(first), *first.shape[1:])
            memory = torch.empty_strided(shape, strides, dtype=dtype, device=first.device)
            for part, parameter in zip(memory.chunk(len(networks)), (first, *others), strict=True):
                part.copy_(parameter.detach())
            found[name] = memory
    return found


def paired_network(first: PairableNetwork, weights: dict[str, Tensor]) -> PairableNetwork:
    """Return a network that maps [x of the first | x of the second] to [first(x) | second(x)].

    Args:
        first: the first network, which says what is computed.
        weights: those of both, as `adjoining_weights` lays them out; the result computes with this memory.
    """
    network = copy.deepcopy(first)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.in_channels, module.out_channels, module.groups = 2 * module.in_channels, 2 * module.out_channels, 2
            module.weight = nn.Parameter(weights[f"{name}.weight"])
            bias = weights.get(f"{name}.bias")  # one in front of an instance norm is never added
            module.bias = None if bias is None else nn.Parameter(bias)
    if isinstance(network, ResnetGenerator):
        network.stem, network.head = ImageConvolutionPair(network.stem), ImageConvolutionPair(network.head)
    else:
        first_layer = network.layers[0]
        assert isinstance(first_layer, nn.Conv2d)
        network.layers[0] = ImageConvolutionPair(first_layer)
    return network


class CrossedPair(nn.Module):
    """Maps [x of the second | x of the first] to [second(x) | first(x)] by the network of a pair.

    Args:
        pair: maps [x of the first | x of the second], as `paired_network` makes it.
    """

    def __init__(self, pair: PairableNetwork) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, image: Tensor) -> Tensor:
        return _crossed(self.pair(_crossed(image)))


def _crossed(image: Tensor) -> Tensor:
    """Return the halves of an image's channels in the other order."""
    first, second = image.chunk(2, 1)
    return torch.cat([second, first], 1)


def trained_leaves(first: PairableNetwork, network: PairableNetwork) -> list[nn.Parameter]:
    """Return the parameters of a paired network in the order of those of `first` that are trained."""
    return [network.get_parameter(name) for name, parameter in first.named_parameters() if parameter.requires_grad]


class ImageConvolutionPair(nn.Conv2d):
    """Convolves two images, or to two images, with two groups, which the library computes as one dense convolution.

    Tensor cores take channels by the 8, of which a group of 3 leaves most idle, and cuDNN has no fast kernels for such
    groups. The dense weights are blocks: those that would lead from one network to the other are 0. They take no more
    tiles than two groups do. They are written by the first pass behind `weights_changed` alone: others, perhaps on
    another stream, may still read them.

    Args:
        convolution: has two groups, and its weight and bias.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        channels = convolution.in_channels, convolution.out_channels
        options: dict[str, Any] = {"stride": convolution.stride, "padding": convolution.padding, "groups": 2}
        super().__init__(*channels, convolution.kernel_size, **options, device="meta")  # type: ignore[arg-type]  # pairs
        weight = convolution.weight
        self.weight, self.bias = weight, convolution.bias
        # Behind a [2 * C_out, C] there is a [2 * C_out, 2 * C] of the same layout.
        layout = torch.contiguous_format if weight.is_contiguous() else torch.channels_last
        dense = weight.detach().new_zeros(len(weight), 2 * weight.size(1), *weight.shape[2:])
        self.dense: Tensor
        self.register_buffer("dense", dense.contiguous(memory_format=layout), persistent=False)
        self._is_written = False

    def weights_changed(self) -> None:
        """Let the next pass write the dense weights anew."""
        self._is_written = False

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Take the place of `nn.Conv2d`'s, which `forward` calls."""
        is_compiled = torch.compiler.is_compiling()  # a graph that was traced always writes them
        is_written = self._is_written and not is_compiled
        dense = _Dense.apply(weight, self.dense, is_written)  # type: ignore[no-untyped-call]  # torch's own lack
        if not is_compiled:
            self._is_written = True
        return F.conv2d(input, dense, bias, self.stride, self.padding)


class _Dense(torch.autograd.Function):
    """Writes the weights of two groups into the blocks of dense ones that are 0 elsewhere; one copy each way.

    Where they are written already, they are taken as they are.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dense: Tensor, is_written: bool) -> Tensor:
        if not is_written:
            _blocks(dense).copy_(_by_group(weight))
        ctx.save_for_backward(weight)
        return dense.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_dense: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        d_weight = torch.empty_like(weight)
        _by_group(d_weight).copy_(_blocks(d_dense))
        return d_weight, None, None


def _by_group(weight: Tensor) -> Tensor:
    """Return [2 * C_out, C, K, K] as a view [2, C_out, C, K, K]."""
    return weight.view(2, -1, *weight.shape[1:])


def _blocks(dense: Tensor) -> Tensor:
    """Return the blocks on the diagonal of [2 * C_out, 2 * C, K, K] as a view [2, C_out, C, K, K]."""
    outputs, inputs, *kernel = dense.shape
    return dense.view(2, outputs // 2, 2, inputs // 2, *kernel).diagonal(dim1=0, dim2=2).movedim(-1, 0)
