"""Loads trained networks to translate with: from runs, their checkpoints, and bare weights.

translator.py and strips/ run them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import nn

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.original import (
    StateDict,
    count,
    from_original,
    is_discriminator,
    is_original,
    is_unet,
    norm_of,
    table_of_original,
    upsampling_of,
)
from cyclegan_fast.checkpoint.weights_file import WeightsFile
from cyclegan_fast.checkpoint.wrapped_weights import chosen, direction_of, networks_in
from cyclegan_fast.config.values import from_dict, pixels_of_run
from cyclegan_fast.conventions import GENERATOR_OF, Direction
from cyclegan_fast.images.pixel_type import RGB, PixelType
from cyclegan_fast.methods.base import Method
from cyclegan_fast.methods.cyclegan import CycleGan
from cyclegan_fast.methods.registry import METHODS
from cyclegan_fast.methods.saved_networks import check_own_networks
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import LEAST_HALVINGS, AnyGenerator, UnetGenerator
from cyclegan_fast.system.errors import UserError

_Network = TypeVar("_Network", bound=nn.Module, covariant=True)


class Loaded(NamedTuple, Generic[_Network]):
    """Holds a trained network that translates, its run's configuration, and the file that it was read from.

    The configuration is empty for bare weights. `direction` is what the network translates, None for bare weights that
    do not say so.
    """

    network: _Network
    config: dict[str, Any]
    file: Path
    direction: Direction | None

    @property
    def source(self) -> PixelType:
        """Return the type of the pixels that the network takes: the run's, or 8 bits for bare weights."""
        return self._pixel_types()[0]

    @property
    def target(self) -> PixelType:
        """Return the type of the pixels that the network gives, see `source`."""
        return self._pixel_types()[1]

    def _pixel_types(self) -> tuple[PixelType, PixelType]:
        if self.direction is not None and self.config:
            return types_of_run(self.config, self.direction, str(self.file))
        inputs, outputs = channels_of(self.network)
        return PixelType.with_full_range(inputs, "uint8"), PixelType.with_full_range(outputs, "uint8")


def load_generator(
    path: Path, direction: Direction, warnings: list[str], name: str | None = None
) -> Loaded[AnyGenerator]:
    """Load one generator to translate with, "a2b" or "b2a"; see `load_generators`."""
    return load_generators(path, (direction,), warnings, name)[0]


def load_generators(
    path: Path, directions: Sequence[Direction], warnings: list[str], name: str | None = None
) -> list[Loaded[AnyGenerator]]:
    """Load trained generators to translate with, from a file that is read once.

    Args:
        path: a run's folder, a checkpoint of one (a file, or a name as "RUN@120", see `find_weights`), or a generator
            of the original implementation (`latest_net_G.pth`, `latest_net_G_A.pth`), as .pth or .safetensors, however
            wrapped or nested.
        directions: "a2b" or "b2a", or both: a generator for each. Bare weights with only one give it, and ignore these.
        warnings: damaged checkpoints of a run that were passed over, and choices that were made, are appended.
        name: of the network to use, of bare weights that hold several generators.

    Raises UserError for what is no such file, and for a run of a CoGAN, which has no generator that takes an image.
    """
    return _generators(WeightsFile.read(path, warnings, check_own_networks), directions, warnings, name)


def load_translators(
    path: Path, directions: Sequence[Direction], warnings: list[str], name: str | None = None
) -> list[Loaded[nn.Module]]:
    """Load what translates, of every method: generators as `load_generators` does, and a CoGAN's search for a code."""
    weights = WeightsFile.read(path, warnings, check_own_networks)
    if not weights.is_run or not _method_of(weights).searches:
        return [*_generators(weights, directions, warnings, name)]
    config = from_dict(weights.content["config"], str(path))
    method = _method_of(weights)(replace(config, networks=replace(config.networks, impl="auto")))
    with torch.random.fork_rng(devices=[]):  # their initial weights are of no use
        networks = {name: network for name, network in method.networks().items() if name in method.generators}
    for name, network in networks.items():
        checkpoint.load_weights(network, weights.generator_state(name), str(path))
    return [
        Loaded[nn.Module](method.translator(networks, way), weights.content["config"], weights.file, way)
        for way in directions
    ]


def _method_of(weights: WeightsFile) -> type[Method]:
    return METHODS.get(weights.method_name, CycleGan)


def _generators(
    weights: WeightsFile, directions: Sequence[Direction], warnings: list[str], name: str | None
) -> list[Loaded[AnyGenerator]]:
    path = weights.given
    if not weights.is_run:
        return _bare_generators(weights, directions, warnings, name)
    if name is not None:
        raise UserError(f"--network is for weights of several networks in one file, and {path} is a run: --direction")
    if _method_of(weights).searches:
        raise UserError(
            f"{path} is a CoGAN, whose generators take a latent code: `python -m cyclegan_fast.evaluate` searches "
            "for the code of each image, and nothing else can translate with it"
        )
    states = {direction: weights.generator_state(GENERATOR_OF[direction]) for direction in directions}
    return [
        Loaded(generator_from(state, str(path)), weights.content["config"], weights.file, direction)
        for direction, state in states.items()
    ]


def _bare_generators(
    weights: WeightsFile, directions: Sequence[Direction], warnings: list[str], name: str | None
) -> list[Loaded[AnyGenerator]]:
    """Return the one generator of a file of bare weights, or one for each direction where it holds several."""
    path = weights.given
    found = networks_in(weights.content)
    generators = {named: state for named, state in found.items() if not is_discriminator(state)}
    if not generators:
        if found:
            raise UserError(
                f"{path} holds no generator but a discriminator, which translates nothing: give a generator's file, "
                "such as latest_net_G_A.pth"
            )
        raise UserError(_no_generator(weights.content, str(path)))
    names = [chosen([*generators], direction, name, str(path), warnings) for direction in directions]
    if len({*names}) == 1 and (name is not None or len(generators) == 1 or direction_of(names[0]) is None):
        return [Loaded(bare_generator(generators[names[0]], str(path)), {}, weights.file, None)]
    return [
        Loaded(bare_generator(generators[named], str(path)), {}, weights.file, direction)
        for named, direction in zip(names, directions, strict=True)
    ]


# --- networks from their weights -----------------------------------------------------------------------------------


def generator_from(state: StateDict, origin: str, names: Mapping[str, str] | None = None) -> AnyGenerator:
    """Make the ResNet or U-Net generator of the width, depth and norm that `state`, in our names, has.

    It has no dropout, which is for training. Raises UserError where `state` is no generator's.

    Args:
        names: what the file calls the keys, where that is something else.
    """
    first = "down.0.weight" if is_unet(state) else "stem.weight"
    if first not in state or state[first].dim() != 4 or not len(state[first]):
        raise UserError(_no_generator(state, origin, (names or {}).get(first, first)))
    # Weights of other shapes are refused before anything is allocated: a file may claim any width.
    with torch.device("meta"):
        sketch = _generator_like(state, state[first].size(0))
    checkpoint.check_fits(sketch, state, origin, names)
    network = _generator_like(state, state[first].size(0))
    checkpoint.load_weights(network, state, origin, names)
    return network


def _generator_like(state: StateDict, width: int) -> AnyGenerator:
    """Make a new generator of the channels, depth and norm that `state` has."""
    if is_unet(state):
        halvings = max(LEAST_HALVINGS, count(state, "down"))
        inputs, outputs = _size(state, "down.0.weight", 1), _size(state, f"up.{halvings - 1}.weight", 1)
        return UnetGenerator(inputs=inputs, outputs=outputs, width=width, halvings=halvings, norm=norm_of(state))
    return ResnetGenerator(
        inputs=_size(state, "stem.weight", 1),
        outputs=_size(state, "head.weight", 0),
        width=width,
        blocks=max(1, count(state, "blocks")),
        norm=norm_of(state),
        upsampling=upsampling_of(state),
    )


def _size(state: StateDict, key: str, axis: int) -> int:
    """Return a size of a convolution's weight; an RGB image's channels where there is none, which is refused later."""
    weight = state.get(key)
    return weight.size(axis) if weight is not None and weight.dim() == 4 and weight.size(axis) else RGB.channels


def channels_of(network: nn.Module) -> tuple[int, int]:
    """Return the channels of the images that a generator takes, and of those that it gives."""
    assert isinstance(network, ResnetGenerator | UnetGenerator)
    if isinstance(network, ResnetGenerator):
        return network.stem.in_channels, network.head.out_channels
    first, last = network.down[0], network.up[-1]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.ConvTranspose2d)
    return first.in_channels, last.out_channels


def types_of_run(config: Mapping[str, Any], direction: Direction, origin: str) -> tuple[PixelType, PixelType]:
    """Return the types of the pixels that a run's generator takes and gives; `config` are its plain values.

    Raises UserError, which names `origin`, where the configuration does not say them.
    """
    try:
        return pixels_of_run(config, origin).pixel_types.of_direction(direction)
    except ValueError as error:
        raise UserError(f"{origin}: {error}") from error


def bare_generator(state: dict[str, Any], origin: str) -> AnyGenerator:
    """Make the generator of a state dict in the original's names or ours; raises UserError naming what does not fit."""
    if not is_original(state):
        return generator_from(state, origin)
    try:
        table, translated = table_of_original(state), from_original(state)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
    return generator_from(translated, origin, {**table.keys, **table.statistics()})


def _no_generator(content: dict[str, Any], origin: str, first: str = "stem.weight") -> str:
    keys = ", ".join(sorted(map(str, content))[:4]) or "none"
    return f"{origin} holds no generator: no {first} of a convolution among its keys ({keys})"


def fitting(given: PixelType | None, own: PixelType, name: str, *, is_run: bool) -> PixelType:
    """Return the type of pixels that a user gave as `name`, or else the network's own.

    Raises UserError where the network has other channels, and where the user gives a run another type of samples than
    it was trained with.
    """
    if given is None:
        return own
    if given.channels != own.channels or (is_run and given.dtype != own.dtype):
        raise UserError(f"{name} is {given}, and the network was trained with {own}: leave {name} out, or give such")
    return given
