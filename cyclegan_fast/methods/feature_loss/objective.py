"""Defines feature loss + GAN: SimGAN with its L1 taken between deep features (Zhu et al. 2017, section 5.1.2).

The paper's features are those of VGG-16 at relu4_2, after Johnson et al. 2016 and Taigman et al. 2017.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from cyclegan_fast.config.options import Config
from cyclegan_fast.methods.base import (
    DirectionBatch,
    DirectionNetworks,
    LossesByName,
    Method,
    NetworkFunctions,
    PreparedMethod,
    Surroundings,
    Translated,
)
from cyclegan_fast.methods.losses import generator_loss

if TYPE_CHECKING:
    from cyclegan_fast.methods.feature_loss.network import FeatureNetwork


class FeatureLoss(Method):
    """Trains like `SimGan`, but compares images in the features of a frozen network.

    Args:
        features: a network from images [N, 3, H, W] in [-1, 1] to one activation, in the precision and on the device of
            training; by default the one that `prepare` reads or trains.
    """

    FILE = "features.pt"

    def __init__(self, config: Config, features: nn.Module | None = None) -> None:
        super().__init__(config)
        self.features = features

    def prepare(self, around: Surroundings) -> PreparedMethod:
        """Read the network, or train it on the images, by the first rank alone."""
        # Here, for what reads images and weights needs more than PyTorch, and every training imports this file.
        from cyclegan_fast.methods.feature_loss.network import feature_network

        def on_the_first() -> "FeatureNetwork":
            found = feature_network(
                self.config.loss.feature_network,
                images=around.images,
                size=self.config.data.crop_size,
                seed=self.config.run.seed,
                device=around.device,
                dtype=torch.float32,
                keep_as=around.folder / self.FILE,
            )
            return found._replace(network=found.network.cpu())  # ranks have other devices

        found = around.ranks.from_first(on_the_first)
        self.features = found.network.to(around.device, around.dtype)
        return PreparedMethod(found.description, found.digest)

    @property
    def losses(self) -> tuple[str, ...]:
        return ("G_A", "G_B", "feature_A", "feature_B", *self.judged)

    def generator_losses(
        self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch, made: Translated
    ) -> LossesByName:
        from cyclegan_fast.methods.feature_loss.network import feature_loss

        options, suffix, fake = self.config.loss, direction.suffix, made.translation
        if self.features is None:
            raise RuntimeError("the network of the feature loss was not set")
        return {
            f"G_{suffix}": generator_loss(
                forward[direction.judge](fake), options.gan_loss, impl=self.config.networks.impl
            ),
            f"feature_{suffix}": options.lambda_feature * feature_loss(self.features, batch.images, fake),
        }
