"""The four networks of a CycleGAN (Zhu et al. 2017, section 3).

Names follow the original implementation: G_A maps A to B, G_B maps B to A, D_A judges B, D_B judges A.
"""

import copy
from collections.abc import Iterable

from torch import nn

from cyclegan_fast.config import Config
from cyclegan_fast.networks import PatchDiscriminator, ResnetGenerator

GENERATORS = ("G_A", "G_B")
DISCRIMINATORS = ("D_A", "D_B")
EMA_GENERATORS = ("G_A_ema", "G_B_ema")


class CycleGAN(nn.Module):
    """The four networks, and moving averages of the generators where `config.optimizer.ema` asks for them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        networks = config.networks
        # The gradient penalty needs second derivatives, which only the plain operators have.
        discriminator_impl = "reference" if config.loss.gan_loss == "wgan-gp" else networks.impl
        self.G_A, self.G_B = (
            ResnetGenerator(
                width=networks.ngf,
                blocks=networks.blocks,
                impl=networks.impl,
                checkpoint_blocks=networks.checkpoint_blocks,
            )
            for _ in GENERATORS
        )
        self.D_A = PatchDiscriminator(width=networks.ndf, impl=discriminator_impl)
        self.D_B = PatchDiscriminator(width=networks.ndf, impl=discriminator_impl)
        if config.optimizer.ema:
            self.G_A_ema = copy.deepcopy(self.G_A).requires_grad_(False)
            self.G_B_ema = copy.deepcopy(self.G_B).requires_grad_(False)

    def trainable(self, names: Iterable[str]) -> list[nn.Parameter]:
        """The parameters that an optimiser of these networks owns, in a fixed order."""
        return [p for name in names for p in self.get_submodule(name).parameters() if p.requires_grad]

    def translator(self, direction: str) -> ResnetGenerator:
        """The generator to translate with, "a2b" or "b2a": the moving average where there is one."""
        name = {"a2b": "G_A", "b2a": "G_B"}[direction]
        network = getattr(self, f"{name}_ema", None) or self.get_submodule(name)
        assert isinstance(network, ResnetGenerator)
        return network
