"""Turns a configuration into plain values and YAML and back, and lists the fields in which two of them differ.

Values of a file are checked here in 40 lines and not by a library: cattrs, mashumaro and dacite take `true` for a
number, and pydantic (strict, from JSON) needs half of these lines to turn its errors into these messages, and four
packages more.
"""

from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from cyclegan_fast.config.options import Config
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested plain values, ready for YAML, JSON and checkpoints."""
    plain: dict[str, Any] = asdict(config, dict_factory=lambda pairs: {k: _plain(v) for k, v in pairs})
    return plain


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def from_dict(values: dict[str, Any], origin: str) -> Config:
    """Return the configuration of nested plain values: the inverse of `to_dict`. Fields left out keep their defaults.

    Raises UserError, which names the file `origin`, for unknown fields and values that make no sense.
    """
    config = with_values(Config(), values, origin)
    assert isinstance(config, Config)
    return config


def with_values(section: Any, values: Any, origin: str) -> Any:
    """Return a section of a configuration, or the whole, with some of its values replaced, and checked.

    Args:
        section: a frozen dataclass, whose fields may be such sections.
        values: plain values by the names of fields, nested as the sections are.
        origin: what errors name.

    Raises UserError as `from_dict` does.
    """
    if not isinstance(values, dict):
        raise UserError(f"{origin}: {type(section).__name__} must be a mapping of names to values, got {values!r}")
    known = {f.name for f in fields(section)}
    unknown = sorted(map(str, set(values) - known))
    if unknown:
        raise UserError(f"{origin}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    hints = get_type_hints(type(section))
    changes = {}
    for name, value in values.items():
        current = getattr(section, name)
        changes[name] = (
            with_values(current, value, origin) if is_dataclass(current) else _typed(value, hints[name], name, origin)
        )
    try:
        return replace(section, **changes)
    except ValueError as error:
        raise UserError(f"{origin}: {error}") from error


def _typed(value: Any, hint: Any, name: str, origin: str) -> Any:
    """Take a value of a file for a field of type `hint`: a path may be a string and a float an integer."""
    options = get_args(hint) if type(None) in get_args(hint) else (hint,)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(item, get_args(hint)[0], name, origin) for item in value)
    if value is None and type(None) in options:
        return None
    for option in options:
        if option is Path and isinstance(value, str):
            return Path(value)
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option in (int, bool, str) and type(value) is option:
            return value
        if str(value) in get_args(option):  # YAML reads a 2 as a number
            return str(value)
    raise UserError(f"{origin}: {name} cannot be {value!r}")


def differences(one: Config, other: Config) -> list[str]:
    """Return the fields in which two configurations differ, as "name: one -> other"."""
    found, others = [], to_dict(other)
    for section, values in to_dict(one).items():
        for name, value in values.items():
            theirs = others[section][name]
            if value != theirs:
                found.append(f"{name}: {value} -> {theirs}")
    return found


def save_config(config: Config, path: Path) -> None:
    """Write a configuration as YAML, whole or not at all; raises UserError where the system refuses."""
    import yaml  # here, because benchmarks run where it is not installed

    write_atomically(path, yaml.safe_dump(to_dict(config), sort_keys=False).encode(), "configuration")


def load_config(path: Path) -> Config:
    """Read a configuration that `save_config` wrote, or part of one; raises UserError for a bad file."""
    return from_dict(load_values(path), str(path))


def load_values(path: Path) -> Any:
    """Read the file of a configuration as plain values, which are not checked; raises UserError for a bad file."""
    import yaml  # here, because benchmarks run where it is not installed

    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no configuration at {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from error
    if values is None:
        raise UserError(f"{path} is empty: it holds no configuration")
    return values
