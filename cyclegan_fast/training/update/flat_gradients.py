"""Keeps gradients of several networks in one tensor, in their parameters' precision and layout."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ALIGNMENT = 32  # numbers; each parameter's gradient begins at a multiple of this in the buffer, for vector loads


class FlatGradients:
    """Holds one buffer with a place for each parameter's gradient, network by network.

    Args:
        parameters: each network's parameters, by its name.
    """

    def __init__(self, parameters: dict[str, list[nn.Parameter]]) -> None:
        self.parameters = parameters
        sizes = {name: sum(_places(of_network)) for name, of_network in parameters.items()}
        self.everything = next(iter(parameters.values()))[0].new_zeros(sum(sizes.values()))
        """the whole buffer, as ranks average it; between the places are numbers that mean nothing"""
        self._parts = dict(zip(parameters, torch.split(self.everything, list(sizes.values())), strict=True))
        self._places = {name: self._places_in(part, name) for name, part in self._parts.items()}

    def _places_in(self, part: Tensor, network: str) -> list[Tensor]:
        """Return the places of a network's gradients in a tensor of the size of its part."""
        parameters = self.parameters[network]
        places = torch.split(part, _places(parameters))
        return [
            place.as_strided(parameter.shape, parameter.stride())
            for parameter, place in zip(parameters, places, strict=True)
        ]

    def become_gradients(self) -> None:
        """Let the places be the parameters' gradients, so that an optimiser finds them."""
        for network, of_network in self.parameters.items():
            for parameter, place in zip(of_network, self._places[network], strict=True):
                parameter.grad = place

    def write(self, network: str, gradients: Sequence[Tensor]) -> None:
        """Write a network's first gradients, in the order of its parameters; they may be of low precision."""
        torch._foreach_copy_(self._places[network], list(gradients))

    def add(self, network: str, found: Sequence[Tensor | None]) -> None:
        """Add further gradients of a network, in the order of its parameters; None where there is no further one.

        PyTorch adds lists of two precisions one tensor after the other. It copies them all at once, and widened in a
        buffer of their own they are added by one launch: two instead of 25 for a generator, and the same sums.
        """
        part = self._parts[network]
        gradients = [gradient for gradient in found if gradient is not None]
        places, widened = (
            [place for place, gradient in zip(all_places, found, strict=True) if gradient is not None]
            for all_places in (self._places[network], self._places_in(torch.empty_like(part), network))
        )
        if gradients[0].dtype == part.dtype:
            torch._foreach_add_(places, gradients)
            return
        torch._foreach_copy_(widened, gradients)
        torch._foreach_add_(places, widened)  # not the buffers as a whole: what lies between their places may be NaN


def _places(parameters: Sequence[nn.Parameter]) -> list[int]:
    """Return how many numbers the place of each gradient takes."""
    return [math.ceil(parameter.numel() / ALIGNMENT) * ALIGNMENT for parameter in parameters]
