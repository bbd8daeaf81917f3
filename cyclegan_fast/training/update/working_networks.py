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
    `refresh` makes anew from the model's weights, unless updates write them as well (`are_kept`); they gather the
    running statistics of batch norms in the model's own.

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

    are_kept = False
    """whether each update writes the copies beside the model's weights"""
    _versions: tuple[int, ...] = ()

    def copies(self, names: Iterable[str]) -> dict[str, list[Tensor]]:
        """Return the copies that these networks compute with, by the model's networks, in the order of `originals`."""
        return {name: list(self.leaves[name]) for name in names}

    def refresh(self, names: Iterable[str]) -> None:
        """Cast the newest weights of these networks to the working precision, where that is not their own."""
        if self.are_copies and not self.are_kept:
            self._cast(names)

    @torch.no_grad()
    def _cast(self, names: Iterable[str]) -> None:
        copies = self.copies(names)
        originals: list[Tensor] = [p for name in copies for p in self.originals[name]]
        torch._foreach_copy_([copy for of_network in copies.values() for copy in of_network], originals)

    def refresh_kept(self) -> None:
        """Cast the weights anew if others than updates wrote them, such as who loads a checkpoint.

        For the host, in front of a step: a CUDA graph repeats what was done, and does not ask again. Writing through
        `.data` leaves no trace: the step behind it still computes with the copies of before.
        """
        if self.are_kept and self._versions != self._newest_versions():
            self._cast(self.by_name)
            self.know_versions()

    def know_versions(self) -> None:
        """Take the copies for those of the weights as they are now."""
        self._versions = self._newest_versions()

    def _newest_versions(self) -> tuple[int, ...]:
        return tuple(p._version for of_network in self.originals.values() for p in of_network)

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

    def kept_copies(self) -> list[tuple[Tensor, Tensor]]:
        """Return the copies that an update writes, each with the model's weight that it is a copy of."""
        if not self.are_kept:
            return []
        copies = self.copies(self.by_name)
        return [pair for name, them in copies.items() for pair in zip(them, self.originals[name], strict=True)]


def running_statistics(name: str, network: nn.Module) -> dict[str, list[Tensor]]:
    """Return a network's running statistics, and apart from them the numbers of batches that they are means of.

    Beside those numbers, which are large, a difference of the statistics would not count.
    """
    buffers = list(network.buffers())
    return {
        f"statistics of {name}": [buffer for buffer in buffers if buffer.is_floating_point()],
        f"batches counted by {name}": [buffer for buffer in buffers if not buffer.is_floating_point()],
    }
