"""Errors that are the user's to mend, and how a command ends on one."""

import sys
from collections.abc import Callable

INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


class UserError(Exception):
    """What was wrong, where, and what to do next, in one line."""


def run_command(command: Callable[[], int]) -> int:
    """The exit status of `command`; a UserError or Ctrl-C becomes one line on standard error and status 2 or 130."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
