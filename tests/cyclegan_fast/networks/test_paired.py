"""Checks that a paired network computes what its two do, and that its gradients are theirs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cyclegan_fast.networks.paired import PairableNetwork, adjoining_weights, paired_network, trained_leaves
from cyclegan_fast.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from tests.slow import slow_but

KINDS: dict[str, Callable[[], PairableNetwork]] = {
    "generator": lambda: ResnetGenerator(width=4, blocks=1, impl="reference"),
    "generator of 3 channels": lambda: ResnetGenerator(width=3, blocks=1, impl="reference"),
    "generator that resizes": lambda: ResnetGenerator(width=4, blocks=1, upsampling="resize", impl="reference"),
    "generator without norms": lambda: ResnetGenerator(width=4, blocks=1, norm="none", impl="reference"),
    "patches": lambda: PatchDiscriminator(width=4, impl="reference"),
    "patches of one layer, without norms": lambda: PatchDiscriminator(
        width=4, n_layers=1, norm="none", impl="reference"
    ),
    "pixels": lambda: PixelDiscriminator(width=4, impl="reference"),
}


def two(
    kind: Callable[[], PairableNetwork], memory_format: torch.memory_format = torch.contiguous_format
) -> tuple[PairableNetwork, ...]:
    """Return two networks of a kind in float64, with biases that count."""
    torch.manual_seed(0)
    networks = kind(), kind()
    for network in networks:
        network.double().to(memory_format=memory_format)  # type: ignore[call-overload]  # absent from torch's stubs
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, 0.0, 0.1)
    return networks


def image(seed: int) -> Tensor:
    return torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("kind", slow_but(("generator", "patches"), KINDS))
def test_results_and_gradients_are_those_of_the_two(
    kind: Callable[[], PairableNetwork], memory_format: torch.memory_format
) -> None:
    both_networks = two(kind, memory_format)
    network = paired_network(both_networks[0], adjoining_weights(both_networks, torch.float64))
    images = [image(number).requires_grad_() for number in (0, 1)]
    expected = [one(its_image) for one, its_image in zip(both_networks, images, strict=True)]
    beside = torch.cat(images, 1).detach().requires_grad_()
    both = network(beside)
    torch.testing.assert_close(both, torch.cat(expected, 1), rtol=1e-12, atol=1e-13)

    slope = torch.rand_like(both)
    d_images, *found = torch.autograd.grad(both, [beside, *trained_leaves(both_networks[0], network)], slope)
    for index, one in enumerate(both_networks):
        trained = [(name, parameter) for name, parameter in one.named_parameters() if parameter.requires_grad]
        leaves = [images[index], *(parameter for _, parameter in trained)]
        d_image, *gradients = torch.autograd.grad(expected[index], leaves, slope.chunk(2, 1)[index])
        torch.testing.assert_close(d_images.chunk(2, 1)[index], d_image, rtol=1e-10, atol=1e-11)
        for (name, _), gradient, of_both in zip(trained, gradients, found, strict=True):
            torch.testing.assert_close(of_both.chunk(2)[index], gradient, rtol=1e-10, atol=1e-11, msg=name)


def test_parts_lie_in_memory_as_their_parameters_and_gradients_do() -> None:
    """Launches over lists of tensors take each tensor by itself where two lie differently."""
    for kind in ("generator", "patches"):
        first, second = two(KINDS[kind], torch.channels_last)
        weights = adjoining_weights([first, second, first], torch.float64)
        network = paired_network(first, {name: memory[: len(memory) // 3 * 2] for name, memory in weights.items()})
        leaves = trained_leaves(first, network)
        x = torch.cat([image(0), image(1)], 1).contiguous(memory_format=torch.channels_last)
        gradients = torch.autograd.grad(network(x).sum(), leaves)
        trained = [(name, parameter) for name, parameter in first.named_parameters() if parameter.requires_grad]
        for (name, parameter), leaf, gradient in zip(trained, leaves, gradients, strict=True):
            assert [part.stride() for part in weights[name].chunk(3)] == [parameter.stride()] * 3
            assert [part.stride() for part in leaf.chunk(2)] == [parameter.stride()] * 2
            assert [part.stride() for part in gradient.chunk(2)] == [parameter.stride()] * 2, name
