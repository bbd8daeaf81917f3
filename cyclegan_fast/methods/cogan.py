"""Defines CoGAN: two generators of one latent code that share their first layers (Liu & Tuzel 2016).

Zhu et al. 2017, section 5.1.2: an image of A is translated by finding the code that renders it in A, and rendering that
code in B. It is the one method with networks of its own, here a generator in the manner of DCGAN (Radford et al. 2016),
and PatchGANs whose last layers are shared.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast.config.options import NetworkConfig
from cyclegan_fast.conventions import GENERATOR_OF, OPPOSITE, Direction
from cyclegan_fast.kernels import Impl, instance_norm
from cyclegan_fast.methods.base import (
    DirectionBatch,
    DirectionNetworks,
    LossesByName,
    Method,
    NetworkFunction,
    NetworkFunctions,
    Translated,
)
from cyclegan_fast.methods.losses import generator_loss
from cyclegan_fast.networks.layers import NormalisedConv2d, NormalisedConvTranspose2d, initialise
from cyclegan_fast.networks.optimizers import EagerAdam
from cyclegan_fast.system.errors import UserError

LATENT = 128
_SMALLEST, _WIDEST = 8, 8
"""The side in pixels below which a generator's first map is not halved any more; and its most channels, in widths."""
DRAWS_AT_ONCE = 8
OWN_LAYERS = 2
"""The number of a generator's last, and of a discriminator's first layers that each domain has for itself."""


def stages(side: int) -> int:
    """Return how often a generator doubles its first map to make images of `side` pixels."""
    count = 0
    while side % 2 == 0 and side >= _SMALLEST:
        side, count = side // 2, count + 1
    return count


def width_at(stage: int, width: int) -> int:
    """Return the channels of a map that is still to be doubled `stage` times."""
    return width * min(_WIDEST, 1 << max(0, stage - 1))


class SharedTrunk(nn.Module):
    """Turns codes [N, LATENT] into maps [N, C, h, w]: what is seen, before either domain decides how it looks."""

    def __init__(self, side: int, width: int, impl: Impl) -> None:
        super().__init__()
        self.impl: Impl = impl
        count = stages(side)
        self.start = side // 2**count
        self.channels = width_at(count, width)
        self.project = nn.Linear(LATENT, self.channels * self.start**2)
        self.up = nn.ModuleList(
            NormalisedConvTranspose2d(width_at(stage, width), width_at(stage - 1, width))
            for stage in range(count, OWN_LAYERS, -1)
        )
        initialise(self)
        # One code differs from another by what this layer makes of it: at 0.02 all images of a new network are alike.
        nn.init.normal_(self.project.weight, 0.0, LATENT**-0.5)
        nn.init.zeros_(self.project.bias)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.project(latent).unflatten(1, (self.channels, self.start, self.start))
        x = F.relu(x)
        for layer in self.up:
            x = instance_norm(layer(x), activation="relu", impl=self.impl)
        return x


class DomainHead(nn.Module):
    """Turns the trunk's map into images [N, channels, H, W] in [-1, 1] of one domain."""

    def __init__(self, side: int, width: int, channels: int, impl: Impl) -> None:
        super().__init__()
        self.impl: Impl = impl
        own = range(min(OWN_LAYERS, stages(side)), 0, -1)
        self.up = nn.ModuleList(
            NormalisedConvTranspose2d(width_at(stage, width), width_at(stage - 1, width)) for stage in own
        )
        self.last = nn.Conv2d(width_at(0, width), channels, 3, padding=1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.up:
            x = instance_norm(layer(x), activation="relu", impl=self.impl)
        return torch.tanh(self.last(x))


class DomainStem(nn.Module):
    """Computes a PatchGAN's first two layers for one domain: [N, channels, H, W] -> [N, 2 * width, H/4, W/4]."""

    def __init__(self, width: int, channels: int, impl: Impl) -> None:
        super().__init__()
        self.impl: Impl = impl
        self.first = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.second = NormalisedConv2d(width, width * 2, 4, stride=2, padding=1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(image), 0.2)
        return instance_norm(self.second(x), activation="leaky_relu", negative_slope=0.2, impl=self.impl)


class SharedJudge(nn.Module):
    """Computes a PatchGAN's last three layers, which judge both domains: [N, 2 * width, h, w] -> scores."""

    def __init__(self, width: int, impl: Impl) -> None:
        super().__init__()
        self.impl: Impl = impl
        self.third = NormalisedConv2d(width * 2, width * 4, 4, stride=2, padding=1)
        self.fourth = NormalisedConv2d(width * 4, width * 8, 4, padding=1)
        self.last = nn.Conv2d(width * 8, 1, 4, padding=1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.third, self.fourth):
            x = instance_norm(layer(x), activation="leaky_relu", negative_slope=0.2, impl=self.impl)
        scores: Tensor = self.last(x)
        return scores


class CoGan(Method):
    """Renders a code in both domains: G_shared turns it into a map, G_A renders that in B and G_B in A.

    D_A judges B, D_B judges A; both end in D_shared.
    """

    generators = ("G_shared", "G_A", "G_B")
    discriminators = ("D_A", "D_B", "D_shared")
    latent_channels = LATENT
    searches = True

    @property
    def losses(self) -> tuple[str, ...]:
        return ("G_A", "G_B", *self.judged)

    def networks(self) -> dict[str, nn.Module]:
        options: NetworkConfig = self.config.networks
        side, impl = self.config.data.crop_size, options.impl
        of_A, of_B = self.config.channels
        return {
            "G_shared": SharedTrunk(side, options.ngf, impl),
            "G_A": DomainHead(side, options.ngf, of_B, impl),
            "G_B": DomainHead(side, options.ngf, of_A, impl),
            "D_A": DomainStem(options.ndf, of_B, self.discriminator_impl),
            "D_B": DomainStem(options.ndf, of_A, self.discriminator_impl),
            "D_shared": SharedJudge(options.ndf, self.discriminator_impl),
        }

    def translator(self, networks: Mapping[str, nn.Module], direction: Direction) -> "LatentSearch":
        opposite = OPPOSITE[direction]
        # The generator that renders the source's domain is the one of the opposite translation.
        return LatentSearch(networks["G_shared"], networks[GENERATOR_OF[opposite]], networks[GENERATOR_OF[direction]])

    def trained_generators(self, direction: DirectionNetworks) -> tuple[str, ...]:
        return ("G_shared", direction.there)

    def translate(self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch) -> Translated:
        assert batch.latent is not None
        fake = forward[direction.there](forward["G_shared"](batch.latent.to(batch.low.dtype)))
        return Translated(fake, fake)

    def generator_losses(
        self, forward: NetworkFunctions, direction: DirectionNetworks, batch: DirectionBatch, made: Translated
    ) -> LossesByName:
        score = self.judge(forward, direction.judge)(made.translation)
        return {
            f"G_{direction.suffix}": generator_loss(score, self.config.loss.gan_loss, impl=self.config.networks.impl)
        }

    def judge(self, forward: NetworkFunctions, name: str) -> NetworkFunction:
        return lambda images: forward["D_shared"](forward[name](images))

    def trained_discriminators(self, name: str) -> tuple[str, ...]:
        return (name, "D_shared")


class LatentSearch(nn.Module):
    """Translates an image by the code that renders it best: Adam on the rendering's L1, from the best of some draws.

    The code with the lowest error of all steps counts.

    Args:
        trunk: turns a code into the map that both heads render.
        source: renders the domain that images come from.
        target: renders the domain that they go to.
        steps: Adam's steps, for all images of a batch at once.
        draws: the number of codes that are tried first, the same ones for every image.
        learning_rate: Adam's step size.
    """

    multiple = 4
    """The sides of images must be multiples of this."""

    def __init__(
        self,
        trunk: nn.Module,
        source: nn.Module,
        target: nn.Module,
        *,
        steps: int = 100,
        draws: int = 64,
        learning_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.trunk, self.source, self.target = trunk, source, target
        self.steps, self.draws, self.learning_rate = steps, draws, learning_rate

    def forward(self, images: Tensor) -> Tensor:
        """Translate images [N, C, H, W] in [-1, 1]; H and W must be those of the images that the networks render."""
        latent = self.search(images)
        translation: Tensor = self.target(self.trunk(latent))
        return translation

    def search(self, images: Tensor) -> Tensor:
        """Find the codes [N, LATENT] of images [N, C, H, W]; an image's code does not depend on its batch."""
        with torch.inference_mode(False), torch.no_grad():
            images = images.clone()  # one that was made in inference mode could take no part in a gradient
            codes = torch.randn(self.draws, LATENT, generator=torch.Generator().manual_seed(0)).to(images)
            errors = torch.cat([self._errors_of(images, some) for some in torch.split(codes, DRAWS_AT_ONCE)], dim=1)
            latent = codes[errors.argmin(1)].float()
        best, lowest = latent.clone(), errors.min(1).values
        with torch.inference_mode(False), torch.enable_grad():
            latent.requires_grad_(True)
            optimizer = EagerAdam([latent], self.learning_rate)
            for step in range(self.steps + 1):
                rendered = self.source(self.trunk(latent.to(images.dtype)))
                # Sums: each image has a gradient, and an update, of its own, and float16 does not lose it.
                error = (rendered.float() - images.float()).abs().sum((1, 2, 3))
                with torch.no_grad():
                    mean = error / images[0].numel()
                    best = torch.where((mean < lowest)[:, None], latent, best)
                    lowest = torch.minimum(mean, lowest)
                if step < self.steps:
                    (latent.grad,) = torch.autograd.grad(error.sum(), latent)
                    optimizer.step()
        return best.to(images.dtype)

    def _errors_of(self, images: Tensor, codes: Tensor) -> Tensor:
        """Return the mean absolute error of what each code renders against each image [N, C, H, W]: [N, codes]."""
        rendered = self.source(self.trunk(codes))
        if rendered.shape[1:] != images.shape[1:]:
            raise UserError(
                f"this CoGAN renders images of {rendered.size(2)}x{rendered.size(3)}, "
                f"not {images.size(2)}x{images.size(3)}: it translates no other size"
            )
        return torch.stack([(rendered.float() - image.float()).abs().mean((1, 2, 3)) for image in images])
