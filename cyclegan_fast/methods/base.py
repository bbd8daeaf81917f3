"""What tells one way of training two translators from another: its networks, its losses, and who judges what.

`step.TrainingStep` does the rest, alike for all: precision, gradients, pools, optimisers, averages, ranks, graphs.

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
from cyclegan_fast.conventions import GENERATOR_OF, Direction as Way
from cyclegan_fast.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import UnetGenerator
from cyclegan_fast.system.distributed import Ranks
from kernels import Impl

if TYPE_CHECKING:
    from cyclegan_fast.data.image_lists import Images

Network = Callable[[Tensor], Tensor]
Forward = Mapping[str, Network]
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Direction:
    """One of the two translations: the networks that take part in it, and the suffix of its losses."""

    there: str
    back: str
    judge: str
    suffix: str


DIRECTIONS = (Direction("G_A", "G_B", "D_A", "A"), Direction("G_B", "G_A", "D_B", "B"))


@dataclass(frozen=True)
class Source:
    """What a direction is given of a batch: real images of both domains, [N, 3, H, W] in [-1, 1].

    dtype: what the networks compute in; images are as they came, and losses compare with them so.
    latent: drawn on the host where the method has one, [N, C].
    """

    images: Tensor
    targets: Tensor
    dtype: torch.dtype
    latent: Tensor | None = None

    @property
    def low(self) -> Tensor:
        """The images in the networks' precision."""
        return self.images.to(self.dtype)


@dataclass(frozen=True)
class Translated:
    """Holds what a direction made of its images, [N, C, H, W] each.

    shown: what the discriminator of the direction is shown, the translation or more than that.
    identity: the generator's images of its target domain, where the identity loss wants them.
    """

    translation: Tensor
    shown: Tensor
    identity: Tensor | None = None


@dataclass(frozen=True)
class Judgement:
    """What a discriminator has to tell apart. `name` is also its loss's; both [N, C, H, W]."""

    name: str
    real: Tensor
    fake: Tensor


@dataclass(frozen=True)
class Surroundings:
    """Where a method is trained, and on what."""

    images: "tuple[Images, Images]"
    """all training images of A and of B"""
    folder: Path
    """of the run"""
    device: torch.device
    dtype: torch.dtype
    ranks: Ranks


@dataclass(frozen=True)
class Prepared:
    """What a method got ready."""

    description: str
    """for people"""
    digest: str
    """of what its losses depend on besides the networks that are trained: a run goes on with the same only"""


class Method(ABC):
    """Networks and losses of a way to train G_A and G_B, or what takes their place.

    Args:
        config: widths, weights and the adversarial loss are read from it.
    """

    generators: ClassVar[tuple[str, ...]] = ("G_A", "G_B")
    """Networks that one optimiser owns, each with a moving average where there are any."""
    discriminators: ClassVar[tuple[str, ...]] = ("D_A", "D_B")
    """Networks that the other one owns."""
    discriminators_first: ClassVar[bool] = False
    """Whether a step trains the discriminators before the generators, which then meet the new ones; otherwise the
    generators are first, and meet those of the step before."""
    needs_pairs: ClassVar[bool] = False
    """Whether A and B of a batch must show the same views."""
    searches: ClassVar[bool] = False
    """Whether a translation is the end of a search, and takes that long."""
    latent_channels: ClassVar[int] = 0
    """Random numbers that the host draws for each image of a step."""

    def __init__(self, config: Config) -> None:
        self.config = config

    # --- networks ---

    def networks(self) -> dict[str, nn.Module]:
        """New networks by name, generators before discriminators; seeded by torch's generator, in this order."""
        made: dict[str, nn.Module] = {name: self.new_generator() for name in self.generators}
        return made | {name: self.new_discriminator() for name in self.discriminators}

    def new_generator(self) -> nn.Module:
        networks = self.config.networks
        if networks.blocks:
            return ResnetGenerator(
                width=networks.ngf,
                blocks=networks.blocks,
                norm=networks.norm,
                dropout=networks.dropout,
                impl=networks.impl,
                checkpoint_blocks=networks.checkpoint_blocks,
            )
        return UnetGenerator(
            width=networks.ngf,
            halvings=networks.halvings,
            norm=networks.norm,
            dropout=networks.dropout,
            impl=networks.impl,
        )

    def new_discriminator(self, channels: int = 3) -> nn.Module:
        networks, impl = self.config.networks, self.discriminator_impl
        if networks.discriminator == "pixel":
            return PixelDiscriminator(width=networks.ndf, channels=channels, norm=networks.norm, impl=impl)
        return PatchDiscriminator(
            width=networks.ndf, channels=channels, n_layers=networks.n_layers, norm=networks.norm, impl=impl
        )

    @property
    def discriminator_impl(self) -> Impl:
        """The gradient penalty needs second derivatives, which only the plain operators have."""
        return "reference" if self.config.loss.has_penalty else self.config.networks.impl

    def translator(self, networks: Mapping[str, nn.Module], way: Way) -> nn.Module:
        """What translates images, made of trained networks by their names."""
        return networks[GENERATOR_OF[way]]

    def prepare(self, around: Surroundings) -> Prepared | None:
        """Get ready what the losses need besides the networks, once before training, on every rank."""
        return None

    # --- losses ---

    @property
    def judged(self) -> tuple[str, ...]:
        """The judgements of a step, by name."""
        return ("D_A", "D_B")

    @property
    @abstractmethod
    def losses(self) -> tuple[str, ...]:
        """The names of all losses, in the order in which they are reported."""

    def reached(self, direction: Direction) -> tuple[str, ...]:
        """The generators that the losses of a direction are differentiated by."""
        return (direction.there,)

    def translate(self, forward: Forward, direction: Direction, source: Source) -> Translated:
        """Translate the images of a direction."""
        translation = forward[direction.there](source.low)
        return Translated(translation, translation)

    @abstractmethod
    def generator_losses(self, forward: Forward, direction: Direction, source: Source, made: Translated) -> Losses:
        """Return what the generators minimise of what `translate` made; discriminators are frozen meanwhile."""

    def judgements(self, real_A: Tensor, real_B: Tensor, shown_A: Tensor, shown_B: Tensor) -> list[Judgement]:
        """What discriminators are to tell apart, in the order of `judged`.

        real_A, real_B: the images of the batch, in the precision of what is shown.
        shown_A, shown_B: what `translate` shows of domain A (by G_B) and of B (by G_A), or images of earlier steps.
        """
        return [Judgement("D_A", real_B, shown_B), Judgement("D_B", real_A, shown_A)]

    def judge(self, forward: Forward, name: str) -> Network:
        """What gives the scores of a judgement."""
        return forward[name]

    def judges(self, name: str) -> tuple[str, ...]:
        """The discriminators that a judgement's loss is differentiated by."""
        return (name,)


def weighted(weight: float, loss: Tensor) -> Tensor:
    """weight * loss, and no operation for a weight of 1."""
    return loss if weight == 1 else weight * loss
