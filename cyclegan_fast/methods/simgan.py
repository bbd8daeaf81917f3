"""Defines SimGAN, "pixel loss + GAN" (Shrivastava et al. 2017, eqs. 1 to 3; Zhu et al. 2017, section 5.1.2)."""

from cyclegan_fast.methods.base import (
    DirectionBatch,
    DirectionNetworks,
    LossesByName,
    Method,
    NetworkFunctions,
    Translated,
)
from cyclegan_fast.methods.losses import generator_loss, pixel_loss


class SimGan(Method):
    """Trains each generator by itself: its images shall be taken for real ones and stay near their source images."""

    @property
    def losses(self) -> tuple[str, ...]:
        return ("G_A", "G_B", "pixel_A", "pixel_B", *self.judged)

    def generator_losses(
        self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch, made: Translated
    ) -> LossesByName:
        options, suffix, fake = self.config.loss, direction.suffix, made.translation
        impl, score = self.config.networks.impl, forward[direction.judge](fake)
        return {
            f"G_{suffix}": generator_loss(score, options.gan_loss, impl=impl),
            f"pixel_{suffix}": pixel_loss(fake, batch.images, weight=options.lambda_pixel, impl=impl),
        }
