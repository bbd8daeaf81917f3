"""Checkpoints: atomic save, load, resume; and the files of the original implementation.

A run keeps `checkpoints/last.pt` and the one before it, `previous.pt`. Files are read with `weights_only=True` or as
safetensors: a checkpoint from a stranger cannot run code.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cyclegan_fast.baselines.cogan import CoGan, LatentSearch
from cyclegan_fast.config import Norm, from_dict
from cyclegan_fast.errors import UserError
from cyclegan_fast.files import write_atomically
from cyclegan_fast.method import GENERATOR_OF
from cyclegan_fast.networks import ResnetGenerator
from cyclegan_fast.original_names import (
    StateDict,
    count,
    from_original as from_original,
    is_original,
    is_unet,
    to_original as to_original,
)
from cyclegan_fast.translator import Direction
from cyclegan_fast.unet import LEAST_HALVINGS, AnyGenerator, UnetGenerator

FOLDER = "checkpoints"
LAST = "last.pt"
PREVIOUS = "previous.pt"
INCOMING = "incoming.pt"
BEST = "best.pt"
COGAN = "cogan"
CONTENT = {"config", "data", "dtype", "model", "step", "log", "ranks", "finished"}


class DamagedCheckpoint(UserError):
    """A file that is cut off or otherwise not what was written."""


class MissingCheckpoint(UserError):
    """There is no file of that name, or no longer."""


def save(run: Path, checkpoint: dict[str, Any], *, keep_as: Sequence[str] = ()) -> None:
    """Write the newest checkpoint of a run; the one before it stays as `previous.pt`.

    keep_as: further names to keep this one under for good, such as "epoch_0100.pt".
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    content = to_bytes(checkpoint)
    # The kept ones first: a kill right after it resumes before it, and writes it again.
    for name in [*keep_as, INCOMING]:
        write_atomically(folder / name, content)
    if (folder / LAST).exists():
        (folder / LAST).replace(folder / PREVIOUS)
    (folder / INCOMING).replace(folder / LAST)


def to_bytes(content: dict[str, Any]) -> bytes:
    """What `load` reads back."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load_newest(run: Path, warnings: list[str]) -> dict[str, Any] | None:
    """The newest whole checkpoint of a run, or None where there is none yet; what had to be passed over is named."""
    found = find_newest(run, warnings)
    return found[1] if found else None


def find_newest(run: Path, warnings: list[str]) -> tuple[Path, dict[str, Any]] | None:
    """`load_newest` with the file that it came from."""
    damaged: list[DamagedCheckpoint] = []
    kept = sorted((path.name for path in (run / FOLDER).glob("epoch_*.pt")), reverse=True)
    # A run that was killed between the two renames of `save` has its newest checkpoint under INCOMING.
    for name in (INCOMING, LAST, PREVIOUS, *kept):
        path = run / FOLDER / name
        try:
            checkpoint = load(path)
            if not checkpoint.keys() >= CONTENT:
                raise DamagedCheckpoint(f"{path} is no checkpoint of a run")
        except MissingCheckpoint:
            continue
        except DamagedCheckpoint as error:
            damaged.append(error)
            continue
        warnings.extend(f"{error}; going back to {path.name}" for error in damaged)
        return path, checkpoint
    if damaged:
        raise UserError(f"no whole checkpoint in {run / FOLDER}: {damaged[0]}; start anew with --name NEW")
    return None


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint or weights file (.pt, .pth, .safetensors) onto the CPU, running no code from it."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # torch.load notices a file that is cut off, but not a flipped bit in a tensor; the archive's checksums do.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken:
                raise DamagedCheckpoint(f"{path} is damaged: the checksum of {broken} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MissingCheckpoint(f"no checkpoint at {path}") from None
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise DamagedCheckpoint(
            f"{path} is damaged or holds more than tensors and plain values, which could run code; refused"
        ) from error
    except _READING_ERRORS as error:
        raise DamagedCheckpoint(f"{path} is cut off or damaged: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


# What the readers of PyTorch, pickle, zip and safetensors were seen to raise for damaged bytes.
_READING_ERRORS = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]


def load_weights(network: nn.Module, state: StateDict, origin: str) -> None:
    """Load a state dict whole; raises UserError naming the keys that are missing, unknown or of another shape."""
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    wrong = [f"{key} is missing" for key in expected.keys() - given.keys()]
    wrong += [f"{key} is not known" for key in given.keys() - expected.keys()]
    wrong += [
        f"{key} is {given[key]} instead of {expected[key]}"
        for key in expected.keys() & given.keys()
        if expected[key] != given[key]
    ]
    if wrong:
        shown = "; ".join(sorted(wrong)[:6]) + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        raise UserError(f"{origin} does not fit this network: {shown}")
    network.load_state_dict(state)


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
    load_weights(network, state, origin)
    return network


class LoadedGenerator(NamedTuple):
    """A trained generator, its run's configuration (empty for bare weights), and the file that it was read from."""

    network: AnyGenerator
    config: dict[str, Any]
    file: Path


class LoadedTranslator(NamedTuple):
    """The same of whatever translates, a generator or a CoGAN's search for a latent code."""

    network: AnyGenerator | LatentSearch
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
    file, content = _read(path, warnings)
    if _is_run(content):
        if _method(content) == COGAN:
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
    if not _is_run(content) or _method(content) != COGAN:
        return [LoadedTranslator(*loaded) for loaded in load_generators(path, directions, warnings)]
    config = from_dict(content["config"], str(path))
    method = CoGan(replace(config, networks=replace(config.networks, impl="auto")))
    with torch.random.fork_rng(devices=[]):  # their initial weights are of no use
        networks = {name: network for name, network in method.networks().items() if name in method.generators}
    for name, network in networks.items():
        load_weights(network, _generator_state(content["model"], name), str(path))
    return [LoadedTranslator(method.translator(networks, way), content["config"], file) for way in directions]


def _read(path: Path, warnings: list[str]) -> tuple[Path, dict[str, Any]]:
    if not path.is_dir():
        return path, load(path)
    found = find_newest(path, warnings)
    if found is None:
        raise UserError(f"no checkpoint in {path / FOLDER}: give a run's folder, a .pt or a .pth file")
    return found


def _is_run(content: dict[str, Any]) -> bool:
    """Whether a file is a checkpoint of a run, and not bare weights."""
    return isinstance(content.get("model"), dict) and isinstance(content.get("config"), dict)


def _method(content: dict[str, Any]) -> str:
    loss = content["config"].get("loss")
    return str(loss.get("method", "cyclegan")) if isinstance(loss, dict) else "cyclegan"


def _generator_state(model: StateDict, name: str) -> StateDict:
    """The weights of a run's generator: the moving average where there is one."""
    averaged = any(key.startswith(f"{name}_ema.") for key in model)
    prefix = f"{name}_ema." if averaged else f"{name}."
    return {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}
