"""Writes and reads the folder in which generators are given away: weights as safetensors beside the configuration.

It holds what translating needs and nothing of the machine that it was made on. hub.py carries it to a hub and back.
"""

import getpass
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cyclegan_fast.checkpoint.files import DamagedCheckpoint, load
from cyclegan_fast.checkpoint.original import StateDict
from cyclegan_fast.config.values import load_values, to_yaml
from cyclegan_fast.runs import CONFIG

PUBLISHED_WEIGHTS = "model.safetensors"

_OF_THE_MACHINE = {"run": ("name", "runs", "device", "threads", "track"), "data": ("workers", "cache_gib", "cache_dir")}
"""Fields, by their sections, that say nothing of what was trained."""


def is_published(folder: Path) -> bool:
    """Tell whether a folder holds generators that were given away."""
    return (folder / PUBLISHED_WEIGHTS).is_file()


def write_published(folder: Path, generators: Mapping[str, StateDict], config: Mapping[str, Any]) -> None:
    """Write generators by name, such as "G_A", into a folder; one alone without a name is bare weights.

    Args:
        config: the configuration of the run as plain values, without the places of a machine; empty for bare weights.
    """
    import safetensors.torch

    state = {
        f"{name}.{key}" if name else key: value.contiguous()
        for name, weights in generators.items()
        for key, value in weights.items()
    }
    safetensors.torch.save_file(state, folder / PUBLISHED_WEIGHTS, metadata={"format": "pt"})
    if config:
        (folder / CONFIG).write_bytes(to_yaml(config))


def read_published(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file of weights and its content: as a checkpoint's, "config" and "model", or as that of bare weights.

    Raises DamagedCheckpoint where the configuration is none, and what `load` raises.
    """
    file = folder / PUBLISHED_WEIGHTS
    state = load(file)
    if not (folder / CONFIG).exists():
        return file, state
    config = load_values(folder / CONFIG)
    if not isinstance(config, dict) or not all(isinstance(section, dict) for section in config.values()):
        raise DamagedCheckpoint(f"{folder / CONFIG} is no configuration of a run")
    return file, {"config": config, "model": state}


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run as plain values without what it says of the machine that it was trained on.

    Of each path the last part stays, such as "horse2zebra", unless that is the user's or the machine's name.
    """
    return {
        section: {
            name: _without_folders(value)
            for name, value in values.items()
            if name not in _OF_THE_MACHINE.get(section, ())
        }
        for section, values in config.items()
    }


def _without_folders(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    if not isinstance(value, str) or not {"/", "\\"} & {*value} or value.startswith("hub:"):
        return value
    last = PureWindowsPath(value).name if "\\" in value else PurePosixPath(value).name
    return last if last and last not in _private_names() else "data"


def _private_names() -> set[str]:
    names = {platform.node(), platform.node().partition(".")[0], Path.home().name}
    with suppress(OSError, KeyError):  # of a container whose user has no name
        names.add(getpass.getuser())
    return names
