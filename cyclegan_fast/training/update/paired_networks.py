"""Holds the networks of a step that computes both directions as one (`--paired`)."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cyclegan_fast.methods.base import BOTH_DIRECTIONS
from cyclegan_fast.methods.model import Model
from cyclegan_fast.networks.paired import (
    CrossedPair,
    ImageConvolutionPair,
    PairableNetwork,
    adjoining_weights,
    paired_network,
    trained_leaves,
)
from cyclegan_fast.networks.patchgan import Discriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.training.update.working_networks import WorkingNetworks


class PairedNetworks(WorkingNetworks):
    """Holds copies of the generators as one network, and of the discriminators as another.

    The way there is (G_A, G_B), and the way back (G_B, G_A), which takes what the way there gives. Both look at one
    memory, where G_A lies in front of G_B: on the way back images change places at both ends, so that activations lie
    as those of the way there, see `joined_uses.py`. Their parameters are different ones, so that autograd keeps their
    gradients apart and forms no sums. Weights are copied in any precision, since the model's own lie elsewhere.

    Args:
        dtype: the precision that the networks compute in.
    """

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        self.model = model
        self.are_copies = True
        G_A, G_B, D_A, D_B = (_pairable(model, name) for name in ("G_A", "G_B", "D_A", "D_B"))
        self.originals = {name: model.trainable([name]) for name in ("G_A", "G_B", "D_A", "D_B")}
        generators = adjoining_weights([G_A, G_B], dtype)
        there, back, judge = BOTH_DIRECTIONS.there, BOTH_DIRECTIONS.back, BOTH_DIRECTIONS.judge
        pairs = {
            there: paired_network(G_A, generators),
            back: paired_network(G_A, generators),
            judge: paired_network(D_A, adjoining_weights([D_A, D_B], dtype)),
        }
        self.by_name = {**pairs, back: CrossedPair(pairs[back])}
        self.leaves = {name: trained_leaves(D_A if name == judge else G_A, pair) for name, pair in pairs.items()}
        self._owners = {there: ("G_A", "G_B"), back: ("G_A", "G_B"), judge: ("D_A", "D_B")}

    def copies(self, names: Iterable[str]) -> dict[str, list[Tensor]]:
        return {
            network: [copy for copy in of_network if copy is not None]
            for name in names
            if name != BOTH_DIRECTIONS.back  # whose memory is that of the way there
            for network, of_network in self.shared_out(name, self.leaves[name])
        }

    def refresh(self, names: Iterable[str]) -> None:
        super().refresh(names)
        for pair in self.by_name.values():
            for module in pair.modules():
                if isinstance(module, ImageConvolutionPair):
                    module.weights_changed()

    def freeze_discriminators(self, frozen: bool) -> None:
        for leaf in self.leaves[BOTH_DIRECTIONS.judge]:
            leaf.requires_grad_(not frozen)

    def shared_out(self, name: str, tensors: Sequence[Tensor | None]) -> Iterator[tuple[str, list[Tensor | None]]]:
        halves = [(None, None) if tensor is None else tensor.detach().chunk(2) for tensor in tensors]
        for index, owner in enumerate(self._owners[name]):
            yield owner, [of_tensor[index] for of_tensor in halves]

    def written(self) -> dict[str, list[Tensor]]:
        weights: dict[str, list[Tensor]] = {f"weights of {name}": list(p) for name, p in self.originals.items()}
        return weights


def _pairable(model: Model, name: str) -> PairableNetwork:
    network = model.get_submodule(name)
    assert isinstance(network, ResnetGenerator | Discriminator)
    return network
