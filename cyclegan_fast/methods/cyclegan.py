"""Defines the objective of CycleGAN and the paper's ablations (Zhu et al. 2017, eq. 3; sections 5.1.4 and 5.2)."""

import torch
from torch import Tensor

from cyclegan_fast.config.options import Config
from cyclegan_fast.methods.base import (
    DirectionBatch,
    DirectionNetworks,
    LossesByName,
    Method,
    NetworkFunction,
    NetworkFunctions,
    Translated,
)
from cyclegan_fast.methods.losses import cycle_loss, generator_loss, identity_loss
from cyclegan_fast.system.words import counted


def translate_with_identity(
    generator: NetworkFunction, source: Tensor, target: Tensor | None, *, together: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Return G(source) and, where `target` is given, G(target).

    Instance norm couples nothing across samples, so that images of one size go through in one batch; the results differ
    from two passes by rounding only. Batch norm does: images of two domains must not go `together` then.
    """
    if target is None:
        return generator(source), None
    if together and source.shape[1:] == target.shape[1:]:
        # The gradient of a split is one `cat`, that of two slices zeros, a copy of each into them, and a sum.
        made, made_of_target = torch.split(generator(torch.cat([source, target])), [len(source), len(target)])
        return made, made_of_target
    return generator(source), generator(target)


class CycleGan(Method):
    """Sums adversarial, cycle and identity losses, each with its weight.

    A weight of 0 leaves a term out, with the passes that only it needs; `cycle_from` leaves one of the two cycles out.
    Without adversarial losses the discriminators stay as they were made.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.options = config.loss

    @property
    def judged(self) -> tuple[str, ...]:
        return super().judged if self.options.lambda_gan else ()

    @property
    def losses(self) -> tuple[str, ...]:
        cycles = [f"cycle_{suffix}" for suffix in "AB" if self.has_cycle(suffix)]
        identities = [f"idt_{suffix}" for suffix in "AB" if self.identity_weight(suffix)]
        return (*(["G_A", "G_B"] if self.judged else []), *cycles, *identities, *self.judged)

    # Directions that are computed as one, of suffix "AB", have the same weights and both a cycle or neither: the
    # configuration refuses `paired` otherwise.

    def has_cycle(self, suffix: str) -> bool:
        """Tell whether images of the domain "A" or "B" have a cycle loss."""
        return self.options.cycle_weight(suffix) > 0 and self.options.cycle_from in ("both", suffix)

    @property
    def remark(self) -> str | None:
        if self.config.has_equal_channels or not self.options.lambda_identity:
            return None
        of_A, of_B = self.config.channels
        return (
            f"the identity losses are left out: they give a generator images of its target domain, and those of A have "
            f"{counted(of_A, 'channel')}, those of B {of_B}"
        )

    def identity_weight(self, suffix: str) -> float:
        """Return the weight of G_A's identity loss for "A", in units of the cycle of B, its images'.

        It is 0 where A and B have other channels: no generator takes images of its target domain then.
        """
        if not self.config.has_equal_channels:
            return 0.0
        return self.options.lambda_identity * self.options.cycle_weight("B" if suffix == "A" else "A")

    def trained_generators(self, direction: DirectionNetworks) -> tuple[str, ...]:
        return (direction.there, direction.back) if self.has_cycle(direction.suffix) else (direction.there,)

    def translate(self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch) -> Translated:
        targets = batch.low_targets if self.identity_weight(direction.suffix) else None
        fake, identity = translate_with_identity(
            forward[direction.there], batch.low, targets, together=self.config.networks.norm != "batch"
        )
        return Translated(fake, fake, identity)

    def generator_losses(
        self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch, made: Translated
    ) -> LossesByName:
        options, suffix, directions = self.options, direction.suffix, direction.directions
        losses: LossesByName = {}
        # The judge comes first: on a stream of its own it is computed beside the way back.
        score = forward[direction.judge](made.translation) if self.judged else None
        reconstructed = forward[direction.back](made.translation) if self.has_cycle(suffix) else None
        impl = self.config.networks.impl
        if score is not None:
            losses[f"G_{suffix}"] = generator_loss(
                score, options.gan_loss, weight=options.lambda_gan, directions=directions, impl=impl
            )
        if reconstructed is not None:
            # Against the images as they came, not as the working precision rounds them.
            weight = options.cycle_weight(suffix)
            losses[f"cycle_{suffix}"] = cycle_loss(
                reconstructed, batch.images, weight=weight, directions=directions, impl=impl
            )
        if made.identity is not None:
            weight = self.identity_weight(suffix)
            losses[f"idt_{suffix}"] = identity_loss(
                made.identity, batch.targets, weight=weight, directions=directions, impl=impl
            )
        return losses
