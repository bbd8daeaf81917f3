"""Defines pix2pix: translation learnt from pairs (Isola et al. 2017, eqs. 1 to 4), in both directions at once.

Zhu et al. 2017, section 5.1.2, take it as the upper bound of what can be learnt without pairs.
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
from cyclegan_fast.methods.losses import generator_loss, paired_loss


class Pix2Pix(Method):
    """Shows discriminators an image and its translation, channel by channel; takes the L1 with the true translation.

    As in the authors' code, a step trains the discriminators first.
    """

    discriminators_first = True
    needs_pairs = True

    @property
    def losses(self) -> tuple[str, ...]:
        return ("G_A", "G_B", "paired_A", "paired_B", *self.judged)

    @property
    def shown_channels(self) -> tuple[int, int]:
        of_both = sum(self.config.channels)
        return of_both, of_both

    def translate(self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch) -> Translated:
        image = batch.low
        fake = forward[direction.there](image)
        return Translated(fake, torch.cat([image, fake], dim=1))  # condition, then translation

    def generator_losses(
        self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch, made: Translated
    ) -> LossesByName:
        options, suffix, impl = self.config.loss, direction.suffix, self.config.networks.impl
        score = forward[direction.judge](made.shown)
        return {
            f"G_{suffix}": generator_loss(score, options.gan_loss, impl=impl),
            f"paired_{suffix}": paired_loss(made.translation, batch.targets, weight=options.lambda_paired, impl=impl),
        }

    def judgements(self, real_A: Tensor, real_B: Tensor, shown_A: Tensor, shown_B: Tensor) -> list[Judgement]:
        return [
            Judgement("D_A", torch.cat([real_A, real_B], dim=1), shown_B),
            Judgement("D_B", torch.cat([real_B, real_A], dim=1), shown_A),
        ]
