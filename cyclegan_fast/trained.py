"""Trained networks to translate with, from the files that hold them: runs, their checkpoints, and bare weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast import checkpoint
from cyclegan_fast.config import Norm, from_dict
from cyclegan_fast.cyclegan import CycleGan
from cyclegan_fast.errors import UserError
from cyclegan_fast.method import GENERATOR_OF, Method
from cyclegan_fast.methods import METHODS
from cyclegan_fast.networks import ResnetGenerator
from cyclegan_fast.original_names import StateDict, count, from_original, is_original, is_unet
from cyclegan_fast.translator import Direction
from cyclegan_fast.unet import LEAST_HALVINGS, AnyGenerator, UnetGenerator


def generator_from(state: StateDict, origin: str) -> AnyGenerator:
    """The ResNet or U-Net generator of the width, depth and norm that `state`, in our names, has.

    A U-Net has no dropout, which is for training. Raises UserError where it is no generator.
    """
    strangers = [str(key) for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if strangers:
        raise UserError(f"{origin} holds no generator: {', '.join(strangers[:4])} is no weight")
    first = "down.0.weight" if is_unet(state) else "stem.weight"
    if first not in state or state[first].dim() != 4 or not len(state[first]):
        keys = ", ".join(sorted(state)[:4]) or "none"
        raise UserError(f"{origin} holds no generator: no {first} of a convolution among its keys ({keys})")
    width = state[first].size(0)
    network: AnyGenerator
    if is_unet(state):
        norm: Norm = "batch" if count(state, "up_norms") else "instance"
        network = UnetGenerator(width=width, halvings=max(LEAST_HALVINGS, count(state, "down")), norm=norm)
    else:
        network = ResnetGenerator(width=width, blocks=max(1, count(state, "blocks")))
    checkpoint.load_weights(network, state, origin)
    return network


class LoadedGenerator(NamedTuple):
    """A trained generator, its run's configuration (empty for bare weights), and the file that it was read from."""

    network: AnyGenerator
    config: dict[str, Any]
    file: Path


class LoadedTranslator(NamedTuple):
    """The same of whatever translates, a generator or a CoGAN's search for a latent code."""

    network: nn.Module
    config: dict[str, Any]
    file: Path


def load_generator(path: Path, direction: Direction, warnings: list[str]) -> LoadedGenerator:
    """One generator to translate with, "a2b" or "b2a"; bare weights have only one and ignore this. See below."""
    return load_generators(path, (direction,), warnings)[0]


def load_generators(path: Path, directions: Sequence[Direction], warnings: list[str]) -> list[LoadedGenerator]:
    """Trained generators to translate with, from a file that is read once.

    Args:
        path: a run's folder, a checkpoint of one, or a generator of the original implementation
            (`latest_net_G.pth`, `latest_net_G_A.pth`), as .pth or .safetensors.
        directions: "a2b" or "b2a", or both: a generator for each. Bare weights give their one, and ignore these.
        warnings: damaged checkpoints of a run that were passed over are appended.

    Raises UserError for what is no such file, and for a run of a CoGAN, which has no generator that takes an image.
    """
    return _generators(path, *_read(path, warnings), directions)


def _generators(
    path: Path, file: Path, content: dict[str, Any], directions: Sequence[Direction]
) -> list[LoadedGenerator]:
    if _is_run(content):
        if _method(content).searches:
            raise UserError(
                f"{path} is a CoGAN, whose generators take a latent code: `python -m cyclegan_fast.evaluate` searches "
                "for the code of each image, and nothing else can translate with it"
            )
        states = [_generator_state(content["model"], GENERATOR_OF[direction]) for direction in directions]
        return [LoadedGenerator(generator_from(state, str(path)), content["config"], file) for state in states]
    try:
        state = from_original(content) if is_original(content) else content
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return [LoadedGenerator(generator_from(state, str(path)), {}, file)]


def load_translators(path: Path, directions: Sequence[Direction], warnings: list[str]) -> list[LoadedTranslator]:
    """`load_generators` for every method, CoGAN's search among them."""
    file, content = _read(path, warnings)
    if not _is_run(content) or not _method(content).searches:
        return [LoadedTranslator(*loaded) for loaded in _generators(path, file, content, directions)]
    config = from_dict(content["config"], str(path))
    method = _method(content)(replace(config, networks=replace(config.networks, impl="auto")))
    with torch.random.fork_rng(devices=[]):  # their initial weights are of no use
        networks = {name: network for name, network in method.networks().items() if name in method.generators}
    for name, network in networks.items():
        checkpoint.load_weights(network, _generator_state(content["model"], name), str(path))
    return [LoadedTranslator(method.translator(networks, way), content["config"], file) for way in directions]


def _read(path: Path, warnings: list[str]) -> tuple[Path, dict[str, Any]]:
    if not path.is_dir():
        return path, checkpoint.load(path)
    found = checkpoint.find_newest(path, warnings)
    if found is None:
        raise UserError(f"no checkpoint in {path / checkpoint.FOLDER}: give a run's folder, a .pt or a .pth file")
    return found


def _is_run(content: dict[str, Any]) -> bool:
    """Whether a file is a checkpoint of a run, and not bare weights."""
    return isinstance(content.get("model"), dict) and isinstance(content.get("config"), dict)


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
