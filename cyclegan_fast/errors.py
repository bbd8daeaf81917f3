"""Errors that are the user's to mend, and how a command ends on one."""

import io
import sys
import unicodedata
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

    A UserError, or what the operating system refuses, becomes one line on standard error and status 2; Ctrl-C gives
    status 130. Names that standard output's encoding does not have are printed as escapes, whatever the locale.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # standard error does so from the beginning
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return command()
    except ReportedElsewhere:
        return 2
    except (UserError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED


def printable(text: str) -> str:
    """`text` with what a terminal cannot show in one line as escapes.

    That is line breaks and other control characters, and the bytes of a file name that is no UTF-8.
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNSHOWN else character
        for character in text
    )


_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, line and paragraph separators
