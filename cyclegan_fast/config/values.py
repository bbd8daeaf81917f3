"""Turns a configuration into plain values and YAML and back, and lists the fields in which two of them differ.

Values of a file are converted here, and checked by the sections themselves (system/ranges.py), not by a library:
cattrs, mashumaro and dacite take `true` for a number, and pydantic (strict, from JSON) needs half of these lines to
turn its errors into these messages, and four packages more.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from cyclegan_fast.config.data_options import PIXEL_OPTIONS, SCENE_OPTIONS, DataConfig
from cyclegan_fast.config.options import Config
from cyclegan_fast.system.errors import UserError, in_brief_words
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.formats import refuse_newer
from cyclegan_fast.system.ranges import TOO_MANY_DIGITS, brief, is_of_digits
from cyclegan_fast.version import __version__

RUN_FORMAT = 1
"""The number of the format of a run's folder, which its config.yaml carries for all files in there. Whoever changes one
of them so that an older version cannot go on with it raises this; files from before it was counted have none."""


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
        raise UserError(f"{origin}: {type(section).__name__} must be a mapping of names to values, got {brief(values)}")
    known = {f.name for f in fields(section)}
    unknown = sorted(name if isinstance(name, str) else brief(name) for name in set(values) - known)
    if unknown:
        raise UserError(f"{origin}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    hints = get_type_hints(type(section))
    changes = {}
    try:
        for name, value in values.items():
            current = getattr(section, name)
            changes[name] = (
                with_values(current, value, origin) if is_dataclass(current) else _typed(value, hints[name], name)
            )
        return replace(section, **changes)
    except ValueError as error:
        raise UserError(f"{origin}: {error}") from error


def _typed(value: Any, hint: Any, name: str) -> Any:
    """Return a value of a file as a field of type `hint` has it: a path may be a string and a float an integer.

    What fits no type is left as it is, for the section to refuse; only of a path that does not know, see `check_value`.
    """
    options = get_args(hint) if type(None) in get_args(hint) else (hint,)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(item, get_args(hint)[0], name) for item in value)
    if Path in options and value is not None:
        if not isinstance(value, str):
            raise ValueError(f"{name} must be the path of a file or folder, got {brief(value)}")
        return Path(value)
    if float in options and type(value) is int and abs(value) < 10**300:
        return float(value)
    if type(value) is int and value in (0, 1, 2):  # a choice of these, which YAML reads as numbers
        return next((str(value) for option in options if str(value) in get_args(option)), value)
    return value


def pixels_of_run(config: Mapping[str, Any], origin: str) -> DataConfig:
    """Return options of the data that have those of a run which describe pixels, and defaults for everything else.

    Args:
        config: plain values as a checkpoint has them: empty for bare weights, without these where it is older.
        origin: what errors name.

    Raises UserError for values that make no sense.
    """
    data = config.get("data")
    known = {name: data[name] for name in PIXEL_OPTIONS if name in data} if isinstance(data, dict) else {}
    described = with_values(DataConfig(), known, origin)
    assert isinstance(described, DataConfig)
    return described


def scenes_of_run(config: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return those options of a run that say how crops are cut out of scenes; raises UserError as `pixels_of_run`."""
    data = config.get("data")
    known = {name: data[name] for name in SCENE_OPTIONS if name in data} if isinstance(data, dict) else {}
    checked = with_values(DataConfig(), known, origin)
    return {name: getattr(checked, name) for name in known}


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
    write_atomically(path, to_yaml(to_dict(config)), "configuration")


def to_yaml(values: Mapping[str, Any]) -> bytes:
    """Return the content of the file of a configuration: plain values behind the number of the format."""
    import yaml  # here, because benchmarks run where it is not installed

    stamped = {"format": RUN_FORMAT, "written_by": __version__, **values}
    return yaml.safe_dump(stamped, sort_keys=False).encode()


def load_config(path: Path) -> Config:
    """Read a configuration that `save_config` wrote, or part of one; raises UserError for a bad file."""
    return from_dict(load_values(path), str(path))


def load_values(path: Path) -> Any:
    """Read the file of a configuration as plain values, which are not checked, without the number of its format.

    Raises UserError for a bad file, and NewerFormat where a newer version wrote it.
    """
    import yaml  # here, because benchmarks run where it is not installed

    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no configuration at {path}") from None
    except RecursionError:
        raise UserError(f"{path} is no configuration: its values are nested too deep") from None
    # ValueError: text that is no UTF-8, a path with a null character, a date without a day, a number of 5,000 digits.
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a readable YAML file: {_fault(error)}") from error
    if values is None:
        raise UserError(f"{path} is empty: it holds no configuration")
    if not isinstance(values, dict):
        return values
    number, written_by = values.pop("format", None), values.pop("written_by", None)
    refuse_newer(path, number, RUN_FORMAT, written_by)
    if number is not None and type(number) is not int:
        raise UserError(f"{path}: format must be a whole number, got {number!r}")
    return values


def _fault(error: Exception) -> str:
    """Return what is wrong with a YAML file in one line, with the line and column where its reader says so."""
    if mark := getattr(error, "problem_mark", None):
        return f"{getattr(error, 'problem', error)} in line {mark.line + 1}, column {mark.column + 1}"
    return TOO_MANY_DIGITS if is_of_digits(error) else in_brief_words(error)
