"""Holds the networks of a step that computes both directions as one (`--paired`)."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cyclegan_fast.methods.base import BOTH_DIRECTIONS
from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks.paired import (
    PairableNetwork,
    lay_out_blocks,
    paired_network,
    paired_weights,
    trained_leaves,
)
from cyclegan_fast.networks.patchgan import Discriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.training.update.working_networks import WorkingNetworks


class PairedNetworks(WorkingNetworks):
    """Holds copies of the generators in one network, and of the discriminators in another.

    The generators' is there twice, on one memory: for the way there and for the way back, see `paired_network`. Weights
    are copied in any precision, since a layer's two lie one behind the other here, and apart in the model.

    Args:
        dtype: the precision that the networks compute in.
    """

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        self.model = model
        self.are_copies = True
        self.originals = {
            name: model.trainable([name]) for name in (*model.method.generators, *model.method.discriminators)
        }
        generators, discriminators = (
            [_pairable(model, name) for name in names]
            for names in (model.method.generators, model.method.discriminators)
        )
        weights = paired_weights(generators[0], generators[1], dtype)
        there, back, judge = BOTH_DIRECTIONS.there, BOTH_DIRECTIONS.back, BOTH_DIRECTIONS.judge
        pairs = {
            there: paired_network(generators[0], weights),
            back: paired_network(generators[0], weights, crossed=True),
            judge: paired_network(discriminators[0], paired_weights(discriminators[0], discriminators[1], dtype)),
        }
        self.by_name = {**pairs}
        firsts = {there: generators[0], back: generators[0], judge: discriminators[0]}
        self.leaves = {name: trained_leaves(firsts[name], network) for name, network in pairs.items()}
        self._owners = {
            there: model.method.generators,
            back: model.method.generators,
            judge: model.method.discriminators,
        }

    @torch.no_grad()
    def refresh(self, names: Iterable[str]) -> None:
        names = set(names)
        copies: list[Tensor] = []
        originals: list[Tensor] = []
        for name in names - {BOTH_DIRECTIONS.back}:  # which has the memory of the way there
            for network, of_network in self.shared_out(name, self.leaves[name]):
                copies += of_network
                originals += self.originals[network]
        torch._foreach_copy_(copies, originals)
        for name in names:
            lay_out_blocks(self.by_name[name])

    def freeze_discriminators(self, frozen: bool) -> None:
        for leaf in self.leaves[BOTH_DIRECTIONS.judge]:
            leaf.requires_grad_(not frozen)

    def shared_out(self, name: str, tensors: Sequence[Tensor]) -> Iterator[tuple[str, list[Tensor]]]:
        of_both = [tensor.detach().chunk(2) for tensor in tensors]
        for index, owner in enumerate(self._owners[name]):
            yield owner, [of_tensor[index] for of_tensor in of_both]

    def written(self) -> dict[str, list[Tensor]]:
        return {f"weights of {name}": list(parameters) for name, parameters in self.originals.items()}


def _pairable(model: Model, name: str) -> PairableNetwork:
    network = model.get_submodule(name)
    assert isinstance(network, ResnetGenerator | Discriminator)
    return network
