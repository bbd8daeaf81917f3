"""Errors that are the user's to mend, and how a command ends on one."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """What was wrong, where, and what to do next, in one line."""


def run_command(command: Callable[[], int]) -> int:
    """The exit status of `command`; a UserError becomes one line on standard error and status 2."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
