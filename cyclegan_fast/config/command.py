"""Parses training's command line into a configuration; values.py reads and writes configuration files."""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from cyclegan_fast.config.options import Config, GeneratorName, MethodName, is_earth
from cyclegan_fast.config.presets import PRESETS, TASKS, Preset, Task, as_published
from cyclegan_fast.config.values import load_config, with_values
from cyclegan_fast.original_options import TRAIN, refuse_original_options
from cyclegan_fast.system.command_line import print_version_if_asked, refused_in_one_line, shown_program
from cyclegan_fast.system.errors import UserError, in_brief_words
from cyclegan_fast.system.ranges import check_fields

_PROGRAM = "python -m cyclegan_fast.train"


@dataclass(frozen=True)
class TrainingCommand:
    """Holds a configuration, and the flags that say what it starts from."""

    settings: Annotated[Config, tyro.conf.arg(name="")]
    preset: Preset
    """settings to start from: demo (64x64, small networks; without --data), earth (the same size; with --data earth),
    paper128, paper256 (with --data)"""
    task: Task | None = None
    """start from what the paper set for an application instead: identity weight, sizes, epochs; needs --data"""
    config: Path | None = None
    """start from this YAML file instead, such as the config.yaml of a run; flags given beside it replace its values"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


START_FLAGS = ("preset", "task", "config")
"""The flags that say what to start from, beside those of a configuration."""


TakenOver = Callable[[Config, str], dict[str, Any]]
"""Returns the settings of networks that a run takes over with its first weights (--init-from), by their names.

It is given a configuration that says which run and which weights these are, and the name of what it comes from."""


def starting_point(given: Mapping[str, Any], taken_over: TakenOver | None = None) -> tuple[Config, str, Preset]:
    """Return the configuration to start from, its name, and the preset that it is, or would be by default.

    Args:
        given: flags and their values; only those are read that say what to start from: the flags above, `data`,
            `method`, `generator`, the preparation of images, `init_from` and what the run is called.
        taken_over: is asked where `init_from` is given; None where weights are not to be opened.

    Raises UserError for flags that contradict each other, and ValueError for a method and sizes that do not fit.
    """
    starts = [flag for flag in ("config", "preset", "task") if given.get(flag)]
    if len(starts) > 1:
        raise UserError(f"{' and '.join(f'--{flag}' for flag in starts)} all say what to start from: give one of them")
    file, task, data, method = (given.get(name) for name in ("config", "task", "data", "method"))
    if task and not data:
        raise UserError(
            f"--task {task} needs --data FOLDER with images of that task: `python -m cyclegan_fast.download "
            "--list` names the authors' data sets"
        )
    preset: Preset = given.get("preset") or ("earth" if is_earth(data) else "paper256" if data else "demo")
    start = load_config(file) if file else TASKS[task] if task else PRESETS[preset]
    origin = file.stem if file else task or preset
    if method and method != start.loss.method:
        # The sides that are asked for decide which U-Net fits.
        sides = {side: size for side in ("crop_size", "load_size") if (size := given.get(side)) is not None}
        start = replace(start, data=replace(start.data, **sides))
        start, origin = as_published(start, method, given.get("generator")), f"{method}-{origin}"
    if taken_over and given.get("init_from"):
        start = _taking_over(start, given, taken_over, origin)
    return start, origin, preset


def _taking_over(start: Config, given: Mapping[str, Any], taken_over: TakenOver, origin: str) -> Config:
    """Return `start` with the networks of the first weights, and with the flags that these must fit."""
    flags = {
        section: {name: given[name] for name in names if given.get(name) is not None}
        for section, names in {
            "data": ("data", "crop_size", "load_size", "preprocess"),
            "run": ("name", "runs"),
            "networks": ("init_from",),
        }.items()
    }
    start = with_values(start, flags, "train")
    return replace(start, networks=replace(start.networks, **taken_over(start, origin)))


def parse_training(arguments: Sequence[str] | None = None, taken_over: TakenOver | None = None) -> tuple[Config, str]:
    """Return the configuration that a command line asks for, and the name of the preset, task or file it started from.

    `taken_over` is that of `starting_point`.

    Prints help, the version or an error and raises SystemExit as argparse does; raises UserError for a bad file, and
    for options in the original's spelling.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    print_version_if_asked(arguments)
    refuse_original_options(arguments, TRAIN, _PROGRAM)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", choices=get_args(Preset))
    first.add_argument("--task", choices=get_args(Task))
    first.add_argument("--method", choices=get_args(MethodName))
    first.add_argument("--generator", choices=get_args(GeneratorName))
    first.add_argument("--crop-size", "--crop_size", type=int)
    first.add_argument("--load-size", "--load_size", type=int)
    first.add_argument("--config", type=Path)
    for flag in ("--data", "--name", "--runs", "--preprocess"):
        first.add_argument(flag)
    first.add_argument("--init-from", "--init_from")
    try:
        chosen, _ = first.parse_known_args(arguments)
        start, origin, preset = starting_point(vars(chosen), taken_over)
    except argparse.ArgumentError as error:  # such as a preset that there is not
        raise UserError(in_brief_words(error)) from error
    except ValueError as error:
        raise UserError(str(error)) from error
    with refused_in_one_line():
        command_line = tyro.cli(
            TrainingCommand,
            prog=shown_program(_PROGRAM),
            description=inspect.cleandoc(Config.__doc__ or ""),
            args=arguments,
            default=TrainingCommand(settings=start, preset=preset, task=chosen.task, config=chosen.config),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
    return command_line.settings, origin
