"""Errors that are the user's to mend, and how a command ends on one."""

import sys
import warnings
from collections.abc import Callable

INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


class UserError(Exception):
    """What was wrong, where, and what to do next, in one line."""


class ReportedElsewhere(UserError):
    """Another process of the same run says what was wrong; this one only ends on it."""


class NonFiniteLoss(Exception):
    """A loss is NaN or infinite; the message names it and the step."""


def run_command(command: Callable[[], int]) -> int:
    """The exit status of `command`.

    A UserError, what the operating system refuses, or an image that does not fit in memory becomes one line on standard
    error and status 2; Ctrl-C gives status 130.
    """
    # Pillow warns of what it reads all the same, such as damaged EXIF: what is read must not depend on `python -W`.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return command()
    except ReportedElsewhere:
        return 2
    except (UserError, OSError, MemoryError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED


def printable(text: str) -> str:
    """`text` with what no terminal can show, such as the bytes of a file name that is no UTF-8, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
