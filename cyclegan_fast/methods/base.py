"""Defines what a method of training two translators consists of: networks, losses, and what discriminators judge.

`training/step.py` does the rest, alike for all methods: precision, gradients, pools, optimisers, averages, ranks.

Names follow the original implementation: G_A maps A to B, G_B maps B to A, D_A judges B, D_B judges A.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from cyclegan_fast.config.options import Config
from cyclegan_fast.conventions import GENERATOR_OF, Direction
from cyclegan_fast.kernels import Impl
from cyclegan_fast.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.system.distributed import Ranks

if TYPE_CHECKING:
    from cyclegan_fast.data.image_lists import Images

NetworkFunction = Callable[[Tensor], Tensor]
NetworkFunctions = Mapping[str, NetworkFunction]
LossesByName = dict[str, Tensor]


@dataclass(frozen=True)
class DirectionNetworks:
    """Names the networks that take part in one of the two translations, and the suffix of its losses.

    Where both directions are computed as one, the suffix has a letter for each, and so many numbers has each loss.
    """

    there: str
    back: str
    judge: str
    suffix: str

    @property
    def directions(self) -> int:
        """Return how many directions are computed as one."""
        return len(self.suffix)


DIRECTION_NETWORKS = (DirectionNetworks("G_A", "G_B", "D_A", "A"), DirectionNetworks("G_B", "G_A", "D_B", "B"))
BOTH_DIRECTIONS = DirectionNetworks("G_AB", "G_BA", "D_AB", "AB")
"""Names the networks of `--paired`, see `networks/paired.py`: each is two of the model's."""


@dataclass(frozen=True)
class DirectionBatch:
    """Holds what a direction is given of a batch: real images of both domains, [N, C, H, W] in [-1, 1], C of each.

    Those of both directions at once are [N, 2 * C, H, W], those of the first one in front.

    images: real images of the domain that is translated.
    targets: real images of the domain that they are translated to.
    low: `images` in the networks' precision; losses compare with the images as they came.
    low_targets: `targets` in the networks' precision.
    latent: the latent codes that the host drew, [N, C]; None where the method has none.
    """

    images: Tensor
    targets: Tensor
    low: Tensor
    low_targets: Tensor
    latent: Tensor | None = None


@dataclass(frozen=True)
class Translated:
    """Holds what the generators made of a direction's images, [N, C, H, W] each.

    shown: what the direction's discriminator sees: the translation, or the translation with its source image.
    identity: what the generator made of images of its own target domain; None without the identity loss.
    """

    translation: Tensor
    shown: Tensor
    identity: Tensor | None = None


@dataclass(frozen=True)
class Judgement:
    """Holds real and generated images, both [N, C, H, W], that a discriminator has to tell apart.

    name: the name of the judgement and of its loss.
    directions: the number of discriminators that judge as one, each its part of the channels.
    """

    name: str
    real: Tensor
    fake: Tensor
    directions: int = 1


@dataclass(frozen=True)
class Surroundings:
    """Holds what a method may need to prepare its losses: the training images, the run's folder and the device."""

    images: "tuple[Images, Images]"
    """all training images of A and of B"""
    folder: Path
    """the run's folder"""
    device: torch.device
    dtype: torch.dtype
    ranks: Ranks


@dataclass(frozen=True)
class PreparedMethod:
    """Describes what a method prepared for its losses."""

    description: str
    """a phrase that the user reads"""
    digest: str
    """a digest of what the losses depend on besides the trained networks: a run continues with the same only"""


class Method(ABC):
    """Defines the networks and losses that train G_A and G_B, or what takes their place.

    Both directions may be computed at the same time, and so may all judgements: what they share is only read meanwhile.

    Args:
        config: widths, weights and the adversarial loss are read from it.
    """

    generators: ClassVar[tuple[str, ...]] = ("G_A", "G_B")
    """The networks of the generators' optimiser, each with a moving average where averages are kept."""
    discriminators: ClassVar[tuple[str, ...]] = ("D_A", "D_B")
    """The networks of the discriminators' optimiser."""
    discriminators_first: ClassVar[bool] = False
    """True where a step trains the discriminators before the generators, which then meet the new ones. Otherwise the
    generators are trained first, against the discriminators of the step before."""
    needs_pairs: ClassVar[bool] = False
    """True where A and B of a batch must show the same views."""
    searches: ClassVar[bool] = False
    """True where a translation is found by a search, which takes long."""
    latent_channels: ClassVar[int] = 0
    """The length of the latent code that the host draws for each image of a step; 0 without."""

    def __init__(self, config: Config) -> None:
        self.config = config

    # --- networks ---

    def networks(self) -> dict[str, nn.Module]:
        """Make new networks by name, generators first; PyTorch's generator draws their weights in this order."""
        of_A, of_B = self.config.channels
        translated = {"G_A": (of_A, of_B), "G_B": (of_B, of_A)}
        made: dict[str, nn.Module] = {name: self.new_generator(*translated[name]) for name in self.generators}
        return made | {name: self.new_discriminator(self.judged_channels(name)) for name in self.discriminators}

    @property
    def shown_channels(self) -> tuple[int, int]:
        """Return the channels of what `translate` shows of domain A and of domain B."""
        return self.config.channels

    def judged_channels(self, discriminator: str) -> int:
        """Return the channels of what a discriminator judges: D_B what is shown of A, all others what is of B."""
        of_A, of_B = self.shown_channels
        return of_A if discriminator == "D_B" else of_B

    def new_generator(self, inputs: int, outputs: int) -> nn.Module:
        """Make a ResNet or U-Net generator as configured, from images of some channels to those of others."""
        networks = self.config.networks
        if networks.blocks:
            return ResnetGenerator(
                inputs=inputs,
                outputs=outputs,
                width=networks.ngf,
                blocks=networks.blocks,
                norm=networks.norm,
                upsampling=networks.upsampling,
                dropout=networks.dropout,
                impl=networks.impl,
                checkpoint_blocks=networks.checkpoint_blocks,
            )
        return UnetGenerator(
            inputs=inputs,
            outputs=outputs,
            width=networks.ngf,
            halvings=networks.halvings,
            norm=networks.norm,
            dropout=networks.dropout,
            impl=networks.impl,
        )

    def new_discriminator(self, channels: int) -> nn.Module:
        """Make a PatchGAN or pixel discriminator of images with so many channels, as configured."""
        networks, impl = self.config.networks, self.discriminator_impl
        if networks.discriminator == "pixel":
            return PixelDiscriminator(
                width=networks.ndf, channels=channels, norm=networks.norm_of_discriminators, impl=impl
            )
        return PatchDiscriminator(
            width=networks.ndf,
            channels=channels,
            n_layers=networks.n_layers,
            norm=networks.norm_of_discriminators,
            impl=impl,
        )

    @property
    def discriminator_impl(self) -> Impl:
        """Return how discriminators compute: only the reference has the second derivatives of a gradient penalty."""
        return "reference" if self.config.loss.has_penalty else self.config.networks.impl

    def translator(self, networks: Mapping[str, nn.Module], direction: Direction) -> nn.Module:
        """Return the module that translates images in a direction, made of trained networks by their names."""
        return networks[GENERATOR_OF[direction]]

    def prepare(self, around: Surroundings) -> PreparedMethod | None:
        """Prepare, once before training and on every rank, what the losses need besides the networks, if anything."""
        return None

    # --- losses ---

    @property
    def judged(self) -> tuple[str, ...]:
        """Return the names of a step's judgements."""
        return ("D_A", "D_B")

    @property
    @abstractmethod
    def losses(self) -> tuple[str, ...]:
        """Return the names of all losses, in the order in which they are reported."""

    @property
    def remark(self) -> str | None:
        """Return what a user should know of these losses before they are trained with, if anything."""
        return None

    def trained_generators(self, direction: DirectionNetworks) -> tuple[str, ...]:
        """Return the names of the generators that the losses of a direction train."""
        return (direction.there,)

    def translate(self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch) -> Translated:
        """Translate the images of a direction."""
        translation = forward[direction.there](batch.low)
        return Translated(translation, translation)

    @abstractmethod
    def generator_losses(
        self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch, made: Translated
    ) -> LossesByName:
        """Return the generators' losses on what `translate` made; the discriminators are frozen meanwhile."""

    def judgements(self, real_A: Tensor, real_B: Tensor, shown_A: Tensor, shown_B: Tensor) -> list[Judgement]:
        """Return the images that discriminators have to tell apart, in the order of `judged`.

        Args:
            real_A: the batch's images of A, in the networks' precision.
            real_B: the batch's images of B, likewise.
            shown_A: what `translate` shows of domain A (by G_B), or showed in an earlier step.
            shown_B: what `translate` shows of domain B (by G_A), or showed in an earlier step.
        """
        return [Judgement("D_A", real_B, shown_B), Judgement("D_B", real_A, shown_A)]

    def judge(self, forward: NetworkFunctions, name: str) -> NetworkFunction:
        """Return the function that gives the scores of a judgement."""
        return forward[name]

    def trained_discriminators(self, name: str) -> tuple[str, ...]:
        """Return the names of the discriminators that a judgement's loss trains."""
        return (name,)
