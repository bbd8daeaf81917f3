"""Reads whole files that users name: what is exported, and the cards beside engines."""

import stat
from pathlib import Path

from cyclegan_fast.system.errors import UserError


def content_of(path: Path, kind: str, writer: str, *, missing: str | None = None, most: int | None = None) -> bytes:
    """Return the bytes of a file.

    Args:
        path: the file.
        kind: what it should be, such as "engine".
        writer: the command that writes one.
        missing: what to say where there is no such file.
        most: bytes that such a file has at most.

    Raises UserError where it is missing, is no regular file, such as a pipe, which might never end, is too large, or
    cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no file with content: give the {kind} that {writer} wrote")
        if most is not None and status.st_size > most:
            raise UserError(
                f"{path} is no {kind}: it has {status.st_size} bytes, more than {most}; {writer} writes one"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(missing or f"no {kind} {path}: {writer} writes one") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path} cannot be read ({reason}): give the {kind} that {writer} wrote") from error
