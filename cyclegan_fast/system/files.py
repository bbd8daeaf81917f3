"""Writes files so that a kill or a full disk leaves them whole or as they were; names files beside others; digests.

Every operation of a training that a fault can hit lies behind a fault point (`system/fault_points.py`).
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.fault_points import fault_point

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
def replacing(path: Path, point: str | None = None, *, to_disk: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file, flush it to the disk and name it `path` at the end: `path` is whole or as it was before.

    After an exception, such as the OSError of a full disk, the temporary file is removed.

    Args:
        point: what the file is among the fault points of a training; None for the files of other commands.
        to_disk: False leaves it to the system when the content reaches the disk, for what can be made again.
    """
    temporary = temporary_beside(path)
    try:
        fault_point(point, "before_open")
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if to_disk:
                fault_point(point, "before_sync")
                os.fsync(file.fileno())
        fault_point(point, "before_commit")
        temporary.replace(path)
        if to_disk:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                fault_point(point, "after_rename")
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes, point: str | None = None) -> None:
    """Write `content` as the whole of the file `path`, or leave the file as it was before; `point` as for `replacing`.

    Raises UserError where the system refuses, such as on a full disk.
    """
    try:
        with replacing(path, point) as file:
            write_whole(file, content, point)
    except OSError as error:
        kept = "; what was saved before is unharmed" if path.parent.is_dir() else f"; {path.parent} is gone"
        raise UserError(f"could not write {path}: {error.strerror}{kept}") from error


def write_whole(file: IO[bytes], content: bytes, point: str | None) -> None:
    """Write `content` to an open file, and give it to the system; `point` as for `replacing`."""
    fault_point(point, "mid_write", lambda: (file.write(content[: len(content) // 2]), file.flush()))
    file.write(content)
    file.flush()


class AppendedLines:
    """Appends lines to a file. A kill may leave a part of one, which is for the next start to cut off.

    Args:
        path: the file; `os.devnull` takes everything and keeps nothing.
        point: what the file is among the fault points of a training.

    Every method raises OSError that names the file.
    """

    def __init__(self, path: Path, point: str) -> None:
        self.path, self.point = path, point
        with _naming(path):
            fault_point(point, "before_open")
            self._file = open(path, "ab")

    def append(self, line: str) -> None:
        """Write a line, and give it to the system."""
        with _naming(self.path):
            write_whole(self._file, f"{line}\n".encode(), self.point)

    def sync(self) -> None:
        """Bring every line to the disk."""
        with _naming(self.path):
            fault_point(self.point, "before_sync")
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file, to which every line was given when it was written: a write that failed was raised there."""
        with suppress(OSError):
            self._file.close()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the file to an error of the system: that of a write or of a sync does not say which it was."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_folder(path: Path, point: str, moment: str = "before_folder") -> None:
    """Make a folder, and those that it lies in, where it is not there yet."""
    if not path.is_dir():
        fault_point(point, moment)
        path.mkdir(parents=True, exist_ok=True)


def rename(path: Path, name: Path, point: str, moment: str) -> None:
    """Rename a file, in place of any that has the name already."""
    fault_point(point, moment)
    path.replace(name)


def remove(path: Path, point: str, moment: str = "before_removal") -> None:
    """Remove a file that may be gone already."""
    fault_point(point, moment)
    path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
