"""Turns the keyword arguments of a Python call into settings: they are the flags of a command in Python's spelling."""

import difflib
import os
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from cyclegan_fast.config.command import START_FLAGS, TakenOver, starting_point
from cyclegan_fast.config.options import Config, DataConfig, GeneratorName, MethodName
from cyclegan_fast.config.presets import Preset, Task
from cyclegan_fast.config.values import with_values
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import check_value, declarations

_Settings = TypeVar("_Settings")
_READ_FIRST = {
    "preset": Preset,
    "task": Task,
    "method": MethodName,
    "generator": GeneratorName,
    "config": str,
    **{name: declarations(DataConfig)[name] for name in ("crop_size", "load_size")},
}
"""The flags that `starting_point` reads before a section checks them, with their declarations."""


def training_settings(flags: Mapping[str, Any], taken_over: TakenOver | None = None) -> tuple[Config, str]:
    """Return what `parse_training` does, of flags as keyword arguments: data="folder", max_steps=1000.

    Raises UserError for unknown names, which lists the nearest, and for values that make no sense.
    """
    section_of = {
        field.name: section.name for section in fields(Config) for field in fields(getattr(Config(), section.name))
    }
    _check_names(flags, {*section_of, *START_FLAGS}, "train")
    plain = {name: _plain(value) for name, value in flags.items()}
    try:
        for name, declaration in _READ_FIRST.items():
            if plain.get(name) is not None:
                check_value(name, plain[name], declaration)
        if plain.get("config") is not None:
            plain["config"] = Path(plain["config"])
        start, origin, _ = starting_point(plain, taken_over)
    except ValueError as error:
        raise UserError(f"train: {error}") from error
    given: dict[str, dict[str, Any]] = {}
    for name, value in plain.items():
        if name not in START_FLAGS:
            given.setdefault(section_of[name], {})[name] = value
    config = with_values(start, given, "train")
    assert isinstance(config, Config)
    return config, origin


def given_flags(settings: _Settings, flags: Mapping[str, Any], function: str) -> _Settings:
    """Return the settings of a command, a dataclass, with the flags that were given to `function` in place of its own.

    Raises UserError as `training_settings` does.
    """
    assert is_dataclass(settings)
    _check_names(flags, {field.name for field in fields(settings)}, function)
    changed = with_values(settings, {name: _plain(value) for name, value in flags.items()}, function)
    assert isinstance(changed, type(settings))
    return changed


def _check_names(flags: Mapping[str, Any], known: Collection[str], function: str) -> None:
    for name in flags:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, cutoff=0.5)
            meant = f"did you mean {' or '.join(nearest)}?" if nearest else "none is like it"
            raise UserError(
                f"{function}: unknown {name}; {meant} `python -m cyclegan_fast.{function} --help` lists all flags, "
                "here with underscores"
            )


def _plain(value: Any) -> Any:
    """Return a value as a configuration's file has it, in which a path is a string."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value
