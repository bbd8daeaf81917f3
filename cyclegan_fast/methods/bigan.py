"""Defines BiGAN / ALI, whose latent codes are images here (Donahue et al. 2017, eq. 3; Dumoulin et al. 2017, eq. 2).

Zhu et al. 2017, section 5.1.2: G_A: A -> B and G_B: B -> A, and one discriminator that tells the pairs (a, G_A(a)) from
the pairs (G_B(b), b). Nothing else binds a translation to its image.
"""

import torch
from torch import Tensor

from cyclegan_fast.methods.base import (
    DirectionBatch,
    DirectionNetworks,
    Judgement,
    LossesByName,
    Method,
    NetworkFunctions,
    Translated,
)
from cyclegan_fast.methods.losses import Taken, generator_loss


class BiGan(Method):
    """Takes pairs with a real image of A for real and those with a real image of B for generated, as the authors do."""

    discriminators = ("D",)

    @property
    def judged(self) -> tuple[str, ...]:
        return ("D",)

    @property
    def losses(self) -> tuple[str, ...]:
        return ("G_A", "G_B", "D")

    @property
    def shown_channels(self) -> tuple[int, int]:
        of_both = sum(self.config.channels)
        return of_both, of_both

    def translate(self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch) -> Translated:
        image = batch.low
        fake = forward[direction.there](image)
        in_order = [image, fake] if direction.suffix == "A" else [fake, image]
        return Translated(fake, torch.cat(in_order, dim=1))  # A, then B

    def generator_losses(
        self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch, made: Translated
    ) -> LossesByName:
        taken: Taken = "fake" if direction.suffix == "A" else "real"
        score, config = forward["D"](made.shown), self.config
        loss = generator_loss(score, config.loss.gan_loss, to_be_taken_for=taken, impl=config.networks.impl)
        return {f"G_{direction.suffix}": loss}

    def judgements(self, real_A: Tensor, real_B: Tensor, shown_A: Tensor, shown_B: Tensor) -> list[Judgement]:
        return [Judgement("D", shown_B, shown_A)]
