"""Parses command lines by dataclasses: the fields are the flags, and their docstrings are the help."""

import inspect
import sys
from collections.abc import Sequence
from typing import TypeVar

import tyro

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.version import __version__

Command = TypeVar("Command")


def print_version_if_asked(arguments: Sequence[str] | None = None) -> None:
    """Print the version and raise SystemExit where --version is among the arguments, by default the process's own."""
    if "--version" in (sys.argv[1:] if arguments is None else arguments):
        print(f"cyclegan-fast {__version__}")
        raise SystemExit(0)


def parse_command(
    command: type[Command], program: str, arguments: Sequence[str] | None = None, default: Command | None = None
) -> Command:
    """Return the `command` that a command line asks for.

    Args:
        command: a dataclass; its docstring is the description in the help.
        program: the name of the program in the help.
        arguments: the command line; by default the process's own.
        default: the command whose values the flags replace; required ones are tyro.MISSING in it.

    Prints help, the version or an error and raises SystemExit as argparse does; raises UserError for values that make
    no sense.
    """
    print_version_if_asked(arguments)
    try:
        return tyro.cli(
            command,
            default=tyro.MISSING_NONPROP if default is None else default,
            prog=program,
            description=inspect.cleandoc(command.__doc__ or ""),
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
