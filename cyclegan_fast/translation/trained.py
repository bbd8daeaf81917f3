"""Trained networks to translate with, from the files that hold them: runs, their checkpoints, and bare weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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
)
from cyclegan_fast.checkpoint.wrapped_weights import chosen, direction_of, networks_in
from cyclegan_fast.config.values import from_dict
from cyclegan_fast.conventions import GENERATOR_OF, Direction
from cyclegan_fast.methods.base import Method
from cyclegan_fast.methods.cyclegan import CycleGan
from cyclegan_fast.methods.registry import METHODS
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.networks.unet import LEAST_HALVINGS, AnyGenerator, UnetGenerator
from cyclegan_fast.system.errors import UserError


def generator_from(state: StateDict, origin: str, names: Mapping[str, str] | None = None) -> AnyGenerator:
    """The ResNet or U-Net generator of the width, depth and norm that `state`, in our names, has.

    It has no dropout, which is for training. Raises UserError where it is no generator; `names` are what the file calls
    the keys.
    """
    first = "down.0.weight" if is_unet(state) else "stem.weight"
    if first not in state or state[first].dim() != 4 or not len(state[first]):
        raise UserError(_no_generator(state, origin, (names or {}).get(first, first)))
    width, norm = state[first].size(0), norm_of(state)
    network: AnyGenerator
    if is_unet(state):
        network = UnetGenerator(width=width, halvings=max(LEAST_HALVINGS, count(state, "down")), norm=norm)
    else:
        network = ResnetGenerator(width=width, blocks=max(1, count(state, "blocks")), norm=norm)
    checkpoint.load_weights(network, state, origin, names)
    return network


def _no_generator(content: dict[str, Any], origin: str, first: str = "stem.weight") -> str:
    keys = ", ".join(sorted(map(str, content))[:4]) or "none"
    return f"{origin} holds no generator: no {first} of a convolution among its keys ({keys})"


class LoadedGenerator(NamedTuple):
    """A trained generator, its run's configuration (empty for bare weights), and the file that it was read from.

    `direction` is what it translates, None for bare weights that do not say so.
    """

    network: AnyGenerator
    config: dict[str, Any]
    file: Path
    direction: Direction | None


class LoadedTranslator(NamedTuple):
    """The same of whatever translates, a generator or a CoGAN's search for a latent code."""

    network: nn.Module
    config: dict[str, Any]
    file: Path
    direction: Direction | None


def load_generator(path: Path, direction: Direction, warnings: list[str], name: str | None = None) -> LoadedGenerator:
    """One generator to translate with, "a2b" or "b2a"; bare weights with only one ignore this. See below."""
    return load_generators(path, (direction,), warnings, name)[0]


def load_generators(
    path: Path, directions: Sequence[Direction], warnings: list[str], name: str | None = None
) -> list[LoadedGenerator]:
    """Trained generators to translate with, from a file that is read once.

    Args:
        path: a run's folder, a checkpoint of one, or a generator of the original implementation
            (`latest_net_G.pth`, `latest_net_G_A.pth`), as .pth or .safetensors, however wrapped or nested.
        directions: "a2b" or "b2a", or both: a generator for each. Bare weights with only one give it, and ignore these.
        warnings: damaged checkpoints of a run that were passed over, and choices that were made, are appended.
        name: of the network to use, of bare weights that hold several generators.

    Raises UserError for what is no such file, and for a run of a CoGAN, which has no generator that takes an image.
    """
    return _generators(path, *_read(path, warnings), directions, warnings, name)


def _generators(
    path: Path,
    file: Path,
    content: dict[str, Any],
    directions: Sequence[Direction],
    warnings: list[str],
    name: str | None,
) -> list[LoadedGenerator]:
    if not _is_run(content):
        return _bare_generators(path, file, content, directions, warnings, name)
    if name is not None:
        raise UserError(f"--network is for weights of several networks in one file, and {path} is a run: --direction")
    if _method(content).searches:
        raise UserError(
            f"{path} is a CoGAN, whose generators take a latent code: `python -m cyclegan_fast.evaluate` searches "
            "for the code of each image, and nothing else can translate with it"
        )
    return [
        LoadedGenerator(
            generator_from(_generator_state(content["model"], GENERATOR_OF[direction]), str(path)),
            content["config"],
            file,
            direction,
        )
        for direction in directions
    ]


def _bare_generators(
    path: Path,
    file: Path,
    content: dict[str, Any],
    directions: Sequence[Direction],
    warnings: list[str],
    name: str | None,
) -> list[LoadedGenerator]:
    """The one generator of a file of weights, or one for each direction of several."""
    found = networks_in(content)
    generators = {named: state for named, state in found.items() if not is_discriminator(state)}
    if not generators:
        if found:
            raise UserError(
                f"{path} holds no generator but a discriminator, which translates nothing: give a generator's file, "
                "such as latest_net_G_A.pth"
            )
        raise UserError(_no_generator(content, str(path)))
    names = [chosen([*generators], direction, name, str(path), warnings) for direction in directions]
    if len({*names}) == 1 and (name is not None or len(generators) == 1 or direction_of(names[0]) is None):
        return [LoadedGenerator(bare_generator(generators[names[0]], str(path)), {}, file, None)]
    return [
        LoadedGenerator(bare_generator(generators[named], str(path)), {}, file, direction)
        for named, direction in zip(names, directions, strict=True)
    ]


def bare_generator(state: dict[str, Any], origin: str) -> AnyGenerator:
    """The generator of a state dict in the original's names or ours. Raises UserError naming what does not fit."""
    if not is_original(state):
        return generator_from(state, origin)
    try:
        table, translated = table_of_original(state), from_original(state)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
    return generator_from(translated, origin, {**table.keys, **table.statistics()})


def load_translators(
    path: Path, directions: Sequence[Direction], warnings: list[str], name: str | None = None
) -> list[LoadedTranslator]:
    """`load_generators` for every method, CoGAN's search among them."""
    file, content = _read(path, warnings)
    if not _is_run(content) or not _method(content).searches:
        loaded = _generators(path, file, content, directions, warnings, name)
        return [LoadedTranslator(*generator) for generator in loaded]
    config = from_dict(content["config"], str(path))
    method = _method(content)(replace(config, networks=replace(config.networks, impl="auto")))
    with torch.random.fork_rng(devices=[]):  # their initial weights are of no use
        networks = {name: network for name, network in method.networks().items() if name in method.generators}
    for name, network in networks.items():
        checkpoint.load_weights(network, _generator_state(content["model"], name), str(path))
    return [LoadedTranslator(method.translator(networks, way), content["config"], file, way) for way in directions]


def _read(path: Path, warnings: list[str]) -> tuple[Path, dict[str, Any]]:
    if not path.is_dir():
        return path, checkpoint.load(path)
    found = checkpoint.find_newest(path, warnings)
    if found is None:
        raise UserError(f"no checkpoint in {path / checkpoint.FOLDER}: give a run's folder, a .pt or a .pth file")
    return found


def _is_run(content: dict[str, Any]) -> bool:
    """Whether a file is a checkpoint of a run, with its networks by name in one state dict, and not bare weights."""
    model = content.get("model")
    if not isinstance(model, dict) or not isinstance(content.get("config"), dict):
        return False
    return all(isinstance(value, Tensor) for value in model.values()) and "" not in networks_in(model)


def _method(content: dict[str, Any]) -> type[Method]:
    """What a run was trained by: CycleGAN where its configuration is older than the other methods."""
    loss = content["config"].get("loss")
    name = loss.get("method") if isinstance(loss, dict) else None
    return METHODS.get(name or "cyclegan", CycleGan)


def _generator_state(model: StateDict, name: str) -> StateDict:
    """The weights of a run's generator: the moving average where there is one."""
    averaged = any(key.startswith(f"{name}_ema.") for key in model)
    prefix = f"{name}_ema." if averaged else f"{name}."
    return {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}
