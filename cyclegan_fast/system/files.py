"""Writes files so that a kill or a full disk leaves them whole or as they were; names files beside others; digests."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cyclegan_fast.system.errors import UserError

LONGEST_NAME = 255  # bytes; the limit of nearly every file system
LONGEST_SHOWN = 128  # bytes of a name that still holds the other one: some file systems take 143 only


def beside(path: Path, before: str, after: str) -> Path:
    """Return a file beside `path`: its name, or a digest of a name that is too long, between `before` and `after`."""
    if len(os.fsencode(path.name)) + len(before) + len(after) <= LONGEST_SHOWN:
        return path.with_name(f"{before}{path.name}{after}")
    return path.with_name(f"{before}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{after}")


def temporary_beside(path: Path) -> Path:
    """Return the path to write a file to that becomes `path` when it is whole: hidden, so that no search finds it."""
    return beside(path, ".", ".partial")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file, flush it to the disk and name it `path` at the end: `path` is whole or as it was before.

    After an exception, such as the OSError of a full disk, the temporary file is removed.
    """
    temporary = temporary_beside(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` as the whole of the file `path`, or leave the file as it was before.

    Raises UserError where the system refuses, such as on a full disk.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"could not write {path}: {error.strerror}; what was saved before is unharmed") from error


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
