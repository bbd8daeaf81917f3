"""Runs any command by its name: `cyclegan-fast train`, or `python -m cyclegan_fast train`; lists all without one."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclegan_fast.commands import COMMANDS, meant_by
from cyclegan_fast.system.command_line import print_completion, show_program_as
from cyclegan_fast.system.errors import print_whole_lines, run_command
from cyclegan_fast.system.process import set_up_process
from cyclegan_fast.version import __version__

SCRIPT = "cyclegan-fast"
COMPLETION = "--tyro-print-completion"


def program() -> str:
    """Return what this was started as: the installed script, or the module of the package."""
    return SCRIPT if Path(sys.argv[0]).stem == SCRIPT else "python -m cyclegan_fast"


def listing() -> str:
    """Return the list of commands, one a line, and how to learn more."""
    width = max(map(len, COMMANDS))
    lines = [f"  {program()} {name:{width}}  {command.purpose}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"cyclegan-fast {__version__}: CycleGAN training, translation and export",
            "",
            *lines,
            "",
            "Each command explains its options with --help, and says its version with --version. The same commands are",
            "`python -m cyclegan_fast.train` and so on and, in a checkout, those in export/: `python export/run.py`.",
            f"`{SCRIPT} {COMPLETION} bash` prints what completes commands and flags in a shell (or zsh, or tcsh).",
        ]
    )


def run(name: str, arguments: list[str]) -> int:
    """Run a command of the table with its arguments; return the exit status."""
    command = COMMANDS[name]
    show_program_as(command.usual_program, f"{program()} {name}")
    sys.argv = [f"{program()} {name}", *arguments]
    set_up_process()  # before torch is imported
    status: int = importlib.import_module(command.module).main(arguments)
    return status


def complete_for(shells: list[str]) -> int:
    """Print the completion for a shell; flags of a command that needs what is not installed are left out."""
    options = {}
    for name, command in COMMANDS.items():
        try:
            options[name] = command.load_options()
        except ImportError as error:
            print(f"note: {name}'s flags are not completed: {error}", file=sys.stderr)
    return run_command(lambda: print_completion(options, SCRIPT, shells))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments begin with, or list all commands; return the exit status."""
    print_whole_lines()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in ([], ["-h"], ["--help"], ["help"]):
        print(listing())
        return 0
    if given == ["--version"]:
        print(f"cyclegan-fast {__version__}")
        return 0
    if given[0] == COMPLETION:
        return complete_for(given[1:])
    if given[0] in COMMANDS:
        return run(given[0], given[1:])
    meant = meant_by(given[0])
    advice = f"did you mean {program()} {meant}?" if meant else f"{program()} lists the commands"
    print(f"error: no command {given[0]!r} here; {advice}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
