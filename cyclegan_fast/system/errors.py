"""Errors that are the user's to mend, and how a command begins and ends."""

import io
import sys
import unicodedata
import warnings
from collections.abc import Callable

from cyclegan_fast.system.interruption import Interruption, Stopped


class UserError(Exception):
    """What was wrong, where, and what to do next, in one line."""


class ReportedElsewhere(UserError):
    """Another process of the same run says what was wrong; this one only ends on it."""


class NonFiniteLoss(Exception):
    """A loss is NaN or infinite; the message names it and the step."""


def run_command(command: Callable[[], int], *, next_time: str = "continues") -> int:
    """The exit status of `command`.

    A UserError, what the operating system refuses, or an image that does not fit in memory becomes one line on standard
    error and status 2; Ctrl-C gives status 130, and SIGTERM 143. Names that standard output's encoding does not have
    are printed as escapes.

    Args:
        next_time: what the same command does after a stop.
    """
    print_whole_lines()
    # Pillow warns of what it reads all the same, such as damaged EXIF: what is read must not depend on `python -W`.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with Interruption():
            return command()
    except ReportedElsewhere:
        return 2
    except (UserError, OSError, MemoryError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"stopped; the same command {next_time}", file=sys.stderr)
        return (stop if isinstance(stop, Stopped) else Stopped()).status


def print_whole_lines() -> None:
    """Send each line to standard output when it is printed, also to a file or a pipe, so that one sees how far it is.

    What a terminal or a file's encoding has no characters for is printed as escapes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def printable(text: str) -> str:
    """`text` with what a terminal cannot show in one line as escapes.

    That is line breaks and other control characters, and the bytes of a file name that is no UTF-8.
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNSHOWN else character
        for character in text
    )


_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, line and paragraph separators
