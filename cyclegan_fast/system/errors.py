"""Defines the errors that users can mend, and runs a command so that it ends with a message and an exit status."""

import io
import os
import sys
import unicodedata
import warnings
from collections.abc import Callable

from cyclegan_fast.system.interruption import Interruption, Stopped
from cyclegan_fast.system.shortage import sentence_on_shortage


class UserError(Exception):
    """Says in one line what was wrong, where, and what to do next."""


class ReportedElsewhere(UserError):
    """Ends a process silently, because another process of the same run says what was wrong."""


class NonFiniteLoss(Exception):
    """Tells that a loss is NaN or infinite; the message names it and the step."""


def run_command(command: Callable[[], int], *, next_time: str = "continues") -> int:
    """Run a command and return its exit status.

    A UserError, an error of the operating system, or a lack of memory or threads, whatever library noticed it, becomes
    one line on standard error and status 2; Ctrl-C gives status 130, and SIGTERM 143. Characters that standard output's
    encoding does not have are printed as escapes.

    Args:
        next_time: what the same command does when it is given again after a stop, such as "continues".
    """
    print_whole_lines()
    # Pillow warns of faults that it reads past, such as damaged EXIF: what is read must not depend on `python -W`.
    # What pydicom warns of may hold a patient's data.
    warnings.filterwarnings("ignore", module=r"(PIL|pydicom|nibabel)\.")
    try:
        with Interruption():
            return command()
    except ReportedElsewhere:
        return 2
    except Exception as error:  # what no user can mend is raised again
        said = sentence_on_shortage(error)
        if said is None and not isinstance(error, UserError | OSError):
            raise
        said = said or (system_message(error) if isinstance(error, OSError) else str(error))
        print(f"error: {printable(said)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"stopped; the same command {next_time}", file=sys.stderr)
        return (stop if isinstance(stop, Stopped) else Stopped()).status


def print_whole_lines() -> None:
    """Send each line to standard output when it is printed, also to a file or a pipe, so that one sees the progress.

    Characters that the encoding of the terminal or file does not have are printed as escapes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def in_brief_words(error: BaseException) -> str:
    """Return the first line of an error's message, 200 characters at most; the name of its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def system_message(error: OSError) -> str:
    """Return what the system said of a file, such as "metrics.jsonl: Input/output error", without its number."""
    if error.filename is None or not error.strerror:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def printable(text: str) -> str:
    """Return `text` with escapes for what a terminal cannot show in one line.

    Those are line breaks and other control characters, and the bytes of a file name that is no UTF-8.
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNSHOWN else character
        for character in text
    )


_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, line and paragraph separators
