"""A command line from a dataclass: its fields are the flags, their docstrings the help."""

import inspect
from collections.abc import Sequence
from typing import TypeVar

import tyro

from cyclegan_fast.errors import UserError

Command = TypeVar("Command")


def parse_command(
    command: type[Command], program: str, arguments: Sequence[str] | None = None, default: Command | None = None
) -> Command:
    """What a command line asks for, as a `command`.

    Args:
        command: a dataclass; its docstring is the description.
        program: how the help text calls it.
        arguments: by default the process's own.
        default: what its flags replace values of; required ones are tyro.MISSING in it.

    Prints help or an error and raises SystemExit as argparse does; raises UserError for values that make no sense.
    """
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
