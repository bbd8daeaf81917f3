"""A paired network computes what its two do, and its gradients are theirs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cyclegan_fast.networks.paired import (
    PairableNetwork,
    lay_out_blocks,
    paired_network,
    paired_weights,
    trained_leaves,
)
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
CASES = {name: (kind, False) for name, kind in KINDS.items()} | {
    f"{name}, crossed": (kind, True) for name, kind in KINDS.items() if name.startswith("generator")
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
@pytest.mark.parametrize("case", slow_but(("generator", "generator, crossed", "patches"), CASES))
def test_results_and_gradients_are_those_of_the_two(
    case: tuple[Callable[[], PairableNetwork], bool], memory_format: torch.memory_format
) -> None:
    kind, crossed = case
    first, second = two(kind, memory_format)
    network = paired_network(first, paired_weights(first, second, torch.float64), crossed=crossed)
    images = [image(number).requires_grad_() for number in (0, 1)]
    expected = [first(images[0]), second(images[1])]
    both = network(torch.cat([image.detach() for image in images][:: -1 if crossed else 1], 1).requires_grad_())
    torch.testing.assert_close(both, torch.cat(expected[:: -1 if crossed else 1], 1), rtol=1e-12, atol=1e-13)

    slope = torch.rand_like(both)
    found = torch.autograd.grad(both, trained_leaves(first, network), slope)
    slopes = slope.chunk(2, 1)[:: -1 if crossed else 1]
    for index, (one, its_result, its_slope) in enumerate(zip((first, second), expected, slopes, strict=True)):
        trained = [(name, parameter) for name, parameter in one.named_parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(its_result, [parameter for _, parameter in trained], its_slope)
        for (name, _), gradient, of_both in zip(trained, gradients, found, strict=True):
            torch.testing.assert_close(of_both.chunk(2)[index], gradient, rtol=1e-10, atol=1e-11, msg=name)


def test_there_and_back_have_one_memory_and_leaves_of_their_own() -> None:
    first, second = two(KINDS["generator"])
    weights = paired_weights(first, second, torch.float64)
    there, back = paired_network(first, weights), paired_network(first, weights, crossed=True)
    with torch.no_grad():
        for weight in weights.values():
            weight.mul_(2)
        for network in (first, second):
            for parameter in network.parameters():
                parameter.mul_(2)
    for network in (there, back):
        lay_out_blocks(network)
    A, B = image(0), image(1)
    torch.testing.assert_close(there(torch.cat([A, B], 1)), torch.cat([first(A), second(B)], 1), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(back(torch.cat([A, B], 1)), torch.cat([second(A), first(B)], 1), rtol=1e-12, atol=1e-13)
    for one, other in zip(trained_leaves(first, there), trained_leaves(first, back), strict=True):
        assert one is not other
        assert one.data_ptr() == other.data_ptr()


def test_halves_lie_in_memory_as_their_parameters_do() -> None:
    """Launches over lists of tensors take each tensor by itself where two lie differently."""
    for kind in ("generator", "patches"):
        first, second = two(KINDS[kind], torch.channels_last)
        weights = paired_weights(first, second, torch.bfloat16)
        for name, parameter in first.named_parameters():
            if parameter.requires_grad:
                assert [half.stride() for half in weights[name].chunk(2)] == [parameter.stride()] * 2
