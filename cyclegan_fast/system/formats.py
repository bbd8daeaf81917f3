"""Refuses files of newer formats than this version reads, and says which version of the project does.

Each kind of file has a number of its own, which is raised when an older version cannot read it any more; beside the
number stands the version that wrote the file.
"""

import re

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.version import __version__


class NewerFormat(UserError):
    """Tells that a file was written by a newer version, and which one reads it."""

    def __init__(self, origin: object, written_by: object) -> None:
        needed = f"cyclegan-fast {written_by}" if is_version(written_by) else "a newer cyclegan-fast"
        super().__init__(
            f"{origin} was written by {needed} and this is {__version__}, which cannot read it: "
            f"pip install --upgrade '{requirement(written_by)}'"
        )


def refuse_newer(origin: object, number: object, newest: int, written_by: object) -> None:
    """Raise NewerFormat where the number of a file's format is above the newest one that this version reads.

    Args:
        origin: the file, which the error names.
        written_by: the version that the file says it was written by.
    """
    if type(number) is int and number > newest:
        raise NewerFormat(origin, written_by)


def is_version(text: object) -> bool:
    """Tell whether a value from a file is a version of this project, such as "0.2.0"."""
    return isinstance(text, str) and re.fullmatch(r"\d{1,4}(\.\d{1,4}){1,3}([a-z]+\d{0,4})?", text) is not None


def is_newer(written_by: object) -> bool:
    """Tell whether a version that a file says it was written by is newer than this one."""
    return is_version(written_by) and _numbers(str(written_by)) > _numbers(__version__)


def requirement(written_by: object) -> str:
    """Return what to ask pip for: this version of the project or any later one."""
    return f"cyclegan-fast>={written_by}" if is_version(written_by) else "cyclegan-fast"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
