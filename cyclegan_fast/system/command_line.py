"""Parses command lines by dataclasses: the fields are the flags, and their docstrings are the help."""

import inspect
import io
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import TypeVar

import tyro

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import TOO_MANY_DIGITS, is_of_digits
from cyclegan_fast.version import __version__

Command = TypeVar("Command")

SHELLS = ("bash", "zsh", "tcsh")
"""The shells for which tyro writes completions."""

_shown: dict[str, str] = {}


def show_program_as(usual: str, shown: str) -> None:
    """Let help and usage of the command `usual`, such as "python -m cyclegan_fast.train", call it `shown`."""
    _shown[usual] = shown


def shown_program(program: str) -> str:
    """Return what help and usage call a program, or a part of one, such as "python -m cyclegan_fast.evaluate fcn"."""
    for usual, shown in _shown.items():
        if program == usual or program.startswith(f"{usual} "):
            return shown + program.removeprefix(usual)
    return program


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
    with refused_in_one_line():
        return tyro.cli(
            command,
            default=tyro.MISSING_NONPROP if default is None else default,
            prog=shown_program(program),
            description=inspect.cleandoc(command.__doc__ or ""),
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )


@contextmanager
def refused_in_one_line() -> Iterator[None]:
    """Turn what options refuse in their `__post_init__`, while tyro makes them, into a UserError of the same words.

    tyro prints some of these errors itself, in a box of several lines, and raises SystemExit; what else it prints, such
    as a flag that there is not, goes to standard error as ever.
    """
    said, refusal = io.StringIO(), None
    try:
        with redirect_stderr(said):
            yield
    except ValueError as error:
        refusal = str(error)
        raise UserError(refusal) from error
    except SystemExit as ending:
        if refusal := _refusal_behind(ending):
            raise UserError(refusal) from ending
        raise
    finally:
        if not refusal:
            sys.stderr.write(said.getvalue())


def _refusal_behind(error: BaseException) -> str | None:
    """Return the words of the ValueError of a `__post_init__` that led to an exception; None where there is none."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ValueError):
        frames = traceback.walk_tb(cause.__traceback__)
        if any(frame.f_code.co_name == "__post_init__" for frame, _ in frames):
            return str(cause)
        if is_of_digits(cause):
            return f"a flag has {TOO_MANY_DIGITS}"
    return _refusal_behind(cause) if cause else None


def print_completion(commands: Mapping[str, type], program: str, shells: Sequence[str]) -> int:
    """Print the script that completes a program with several commands in a shell; return 0.

    Args:
        commands: the class of each command's flags, by the command's name.
        shells: the words after --tyro-print-completion, which must be one of bash, zsh and tcsh.

    Raises UserError for another number of shells, or another shell.
    """
    if len(shells) != 1 or shells[0] not in SHELLS:
        raise UserError(f"--tyro-print-completion takes one of {', '.join(SHELLS)}, got {' '.join(shells) or 'none'}")
    tyro.extras.subcommand_cli_from_dict(
        dict(commands),
        prog=program,
        args=["--tyro-print-completion", shells[0]],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return 0
