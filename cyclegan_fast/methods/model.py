"""Holds the networks that a run trains; CycleGAN's are G_A, G_B, D_A and D_B (Zhu et al. 2017, section 3).

Names follow the original implementation: G_A maps A to B, G_B maps B to A, D_A judges B, D_B judges A.
"""

import copy
from collections.abc import Iterable

from torch import nn

from cyclegan_fast.config.options import Config, NetworkConfig
from cyclegan_fast.conventions import Direction
from cyclegan_fast.methods.registry import method_of
from cyclegan_fast.networks.layers import initialise


def average_of(name: str) -> str:
    """Return the name of a generator's moving average."""
    return f"{name}_ema"


class Model(nn.Module):
    """Holds a method's networks, and moving averages of its generators where `config.optimizer.ema` asks for them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.method = method_of(config)
        options = config.networks
        has_own_init = (options.init_type, options.init_gain) != (NetworkConfig.init_type, NetworkConfig.init_gain)
        for name, network in self.method.networks().items():
            if has_own_init:
                initialise(network, options.init_type, options.init_gain)
            self.add_module(name, network)
        if config.optimizer.ema:
            for name in self.method.generators:
                average = copy.deepcopy(self.get_submodule(name)).requires_grad_(False)
                self.add_module(average_of(name), average)

    def trainable(self, names: Iterable[str]) -> list[nn.Parameter]:
        """Return the parameters that an optimiser of these networks owns, in a fixed order."""
        return [p for name in names for p in self.get_submodule(name).parameters() if p.requires_grad]

    def translator(self, direction: Direction) -> nn.Module:
        """Return the module that translates in a direction, made of moving averages where there are any."""
        names = self.method.generators
        generators = {name: getattr(self, average_of(name), None) or self.get_submodule(name) for name in names}
        return self.method.translator(generators, direction)
