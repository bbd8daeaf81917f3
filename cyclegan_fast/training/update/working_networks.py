"""Holds the networks that a step differentiates: the model's own, or copies of them in low precision."""

import copy
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks.norms import share_statistics


class WorkingNetworks:
    """Holds the networks that are computed with, and the model's parameters that are updated.

    Where the model's precision is the working one, both are the same tensors. Otherwise the networks are copies, which
    `refresh` makes anew from the model's weights; they gather the running statistics of batch norms in the model's own.

    Args:
        dtype: the precision that the networks compute in.
    """

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        self.model = model
        self.are_copies = next(model.parameters()).dtype != dtype
        names = (*model.method.generators, *model.method.discriminators)
        self.by_name: dict[str, nn.Module] = {name: model.get_submodule(name) for name in names}
        self.originals = {name: model.trainable([name]) for name in names}
        """the model's trainable parameters, by network"""
        if self.are_copies:
            self.by_name = {name: copy.deepcopy(network).to(dtype) for name, network in self.by_name.items()}
            for name, network in self.by_name.items():
                share_statistics(network, model.get_submodule(name))
        self.leaves = {name: [p for p in net.parameters() if p.requires_grad] for name, net in self.by_name.items()}
        """the parameters that gradients are taken by, by network"""

    @torch.no_grad()
    def refresh(self, names: Iterable[str]) -> None:
        """Cast the newest weights of these networks to the working precision, where that is not their own."""
        if not self.are_copies:
            return
        names = list(names)
        copies: list[Tensor] = [p for name in names for p in self.leaves[name]]
        originals: list[Tensor] = [p for name in names for p in self.originals[name]]
        torch._foreach_copy_(copies, originals)

    def freeze_discriminators(self, frozen: bool) -> None:
        """Let gradients pass through frozen discriminators to the images only; or thaw them."""
        for name in self.model.method.discriminators:
            for leaf in self.leaves[name]:
                leaf.requires_grad_(not frozen)

    def shared_out(self, name: str, tensors: Sequence[Tensor | None]) -> Iterator[tuple[str, list[Tensor | None]]]:
        """Yield what belongs to the model's networks of tensors that `leaves[name]` has, such as gradients, by name."""
        yield name, list(tensors)

    def written(self) -> dict[str, list[Tensor]]:
        """Return the weights and running statistics that an update writes, by a description of each group."""
        found: dict[str, list[Tensor]] = {}
        for name, network in self.by_name.items():
            found[f"weights of {name}"] = list(self.originals[name])
            found |= running_statistics(name, network)
        return found


def running_statistics(name: str, network: nn.Module) -> dict[str, list[Tensor]]:
    """Return a network's running statistics, and apart from them the numbers of batches that they are means of.

    Beside those numbers, which are large, a difference of the statistics would not count.
    """
    buffers = list(network.buffers())
    return {
        f"statistics of {name}": [buffer for buffer in buffers if buffer.is_floating_point()],
        f"batches counted by {name}": [buffer for buffer in buffers if not buffer.is_floating_point()],
    }
