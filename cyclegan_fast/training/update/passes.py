"""Computes a step's forward and backward passes, each of one direction or one discriminator, on part of a batch.

`step.py` calls them in the order of the method and updates the networks.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cyclegan_fast.config.options import Config
from cyclegan_fast.methods.base import (
    DirectionBatch,
    DirectionNetworks,
    Judgement,
    LossesByName,
    Method,
    NetworkFunction,
    NetworkFunctions,
    Translated,
)
from cyclegan_fast.methods.losses import discriminator_loss, gradient_penalty
from cyclegan_fast.training.update.joined_uses import JoinedUses, joins_uses
from cyclegan_fast.training.update.second_stream import SecondStream
from cyclegan_fast.training.update.working_networks import WorkingNetworks

StepPhase = Callable[[str], AbstractContextManager[Any]]
"""Makes a context around the phase of that name, such as "G forward"."""


@dataclass(frozen=True)
class Translation:
    """Describes what is to be translated: part of a batch, in one direction, and which share of the batch it is."""

    direction: DirectionNetworks
    batch: DirectionBatch
    share: float


PartOfBatch = tuple[Translation, ...]
"""Part of a batch, which is in memory by itself, in both directions: two translations, or both as one."""


@dataclass(frozen=True)
class Learned:
    """Holds what one backward pass leaves: its losses, and gradients by the working network's name."""

    losses: LossesByName
    gradients: dict[str, list[Tensor | None]]
    """in the order of the network's leaves; None where another network's includes it, see `joined_uses.py`"""


class StepPasses:
    """Computes what the networks give and the gradients of their losses.

    Args:
        method: says what is computed.
        networks: the networks that are differentiated.
    """

    def __init__(self, config: Config, method: Method, networks: WorkingNetworks) -> None:
        self.config, self.method, self.networks = config, method, networks
        self.phase: StepPhase = lambda name: nullcontext()
        self.second_stream: SecondStream | None = None
        """what computes beside the generators' backward pass"""
        self.uses = JoinedUses() if joins_uses(config) else None
        self.forward: dict[str, NetworkFunction] = {
            name: torch.compile(network, dynamic=False) if config.run.compile else network
            for name, network in networks.by_name.items()
        }
        # Where the translations of all parts wait for the discriminators, only their inputs do: each is made once more
        # in its backward pass (Chen et al. 2016, arXiv 1604.06174).
        waits = method.discriminators_first and config.optimizer.accumulate > 1
        self.forward_of_parts: dict[str, NetworkFunction] = (
            {
                name: partial(checkpoint, network, use_reentrant=False, preserve_rng_state=config.networks.dropout)
                for name, network in self.forward.items()
            }
            if waits
            else self.forward
        )

    def _in_forward(self) -> AbstractContextManager[None]:
        return self.uses.forward() if self.uses else nullcontext()

    def translate(self, part: Translation) -> Translated:
        """Translate part of a batch in one direction."""
        if self.uses:
            self.uses.begin(len(part.batch.images))
        with self.phase("G forward"), self._in_forward():
            return self.method.translate(self.forward_of_parts, part.direction, part.batch)

    def learn(
        self,
        part: Translation,
        made: Translated,
        scaler: torch.amp.GradScaler,
        beside: Callable[[], None] | None = None,
        use_first: Callable[[Learned, Callable[[Tensor], bool]], None] | None = None,
    ) -> Learned:
        """Differentiate the generators' losses on what they made of part of a batch in one direction.

        Args:
            beside: computes something that the backward pass does not need, on the second stream, which there must be.
            use_first: is told the gradients while the second stream still computes some of them, and which ones.
        """
        if self.second_stream is None:
            losses = self._losses(self.forward, part, made)
            return self._differentiate_generators(losses, part, scaler)
        stream = self.second_stream
        with stream.joined():
            goes_back = len(self.method.trained_generators(part.direction)) > 1
            forward = stream.scoring_beside(self.forward, part.direction) if goes_back else self.forward
            losses = self._losses(forward, part, made)
            if beside:
                stream.compute(beside)
            with stream.weight_gradients():
                learned = self._differentiate_generators(losses, part, scaler)
            if use_first:
                stream.join_most()
                use_first(learned, stream.is_late)
            return learned

    def _losses(self, forward: NetworkFunctions, part: Translation, made: Translated) -> LossesByName:
        with self.phase("G forward"), self._in_forward():
            return self.method.generator_losses(forward, part.direction, part.batch, made)

    def _differentiate_generators(
        self, losses: LossesByName, part: Translation, scaler: torch.amp.GradScaler
    ) -> Learned:
        with self.phase("G backward"), self.uses.backward() if self.uses else nullcontext():
            return self._differentiate(losses, part.share, self.method.trained_generators(part.direction), scaler)

    def judge(self, judgement: Judgement, mix: Tensor | None, share: float, scaler: torch.amp.GradScaler) -> Learned:
        """Differentiate a discriminator's loss on part of a batch of real and pooled images.

        Args:
            mix: shares of the real images in those that the gradient penalty is taken at, [N, 1, 1, 1]; None without.
            share: which part of the batch it is.
        """
        name, real, fake = judgement.name, judgement.real, judgement.fake
        network, gan_loss = self.method.judge(self.forward, name), self.config.loss.gan_loss
        with self.phase("D"):
            # Real and generated images have statistics of their own in a batch norm.
            if real.shape[1:] == fake.shape[1:] and self.config.networks.norm_of_discriminators != "batch":
                real_score, fake_score = torch.split(network(torch.cat([real, fake])), [len(real), len(fake)])
            elif self.method.discriminators_first:  # the authors' order: running statistics weigh the last one most
                fake_score, real_score = network(fake), network(real)
            else:
                real_score, fake_score = network(real), network(fake)
            loss = discriminator_loss(
                real_score, fake_score, gan_loss, directions=judgement.directions, impl=self.config.networks.impl
            )
            if mix is not None:
                loss = loss + gradient_penalty(network, real, fake, mix.to(real), self.config.loss.lambda_penalty)
            return self._differentiate({name: loss}, share, self.method.trained_discriminators(name), scaler)

    def _differentiate(
        self, losses: LossesByName, share: float, names: tuple[str, ...], scaler: torch.amp.GradScaler
    ) -> Learned:
        """Differentiate the losses' sum, weighted by the part's share of the step, by the leaves of these networks."""
        weighted = losses if share == 1 else {name: share * loss for name, loss in losses.items()}
        outputs, leaves = [loss for loss in weighted.values() if loss.requires_grad], self.networks.leaves
        # The gradient of their sum by each loss is 1, and so is what the scaler makes of 1: neither sum is computed.
        seed = scaler.scale(torch.ones_like(outputs[0]))
        wanted = [leaf for name in names for leaf in leaves[name]]
        # Gradients that are joined are missing on one of the ways.
        is_joined = self.uses is not None
        found = iter(torch.autograd.grad(outputs, wanted, [seed] * len(outputs), allow_unused=is_joined))
        gradients: dict[str, list[Tensor | None]] = {name: [next(found) for _ in leaves[name]] for name in names}
        return Learned({name: loss.detach() for name, loss in weighted.items()}, gradients)
