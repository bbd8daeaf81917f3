"""Keeps two processes from the same work by a lock on a file."""

import fcntl
import os
from pathlib import Path
from typing import IO, Any

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.fault_points import fault_point


def locked_file(path: Path, refusal: str, *, permissions: int = 0o666, point: str | None = None) -> IO[bytes]:
    """Open a file, which is made where it is missing, and hold its lock until it is closed.

    Args:
        refusal: what to tell the user where another process holds it.
        permissions: of a file that is made, less the umask.
        point: names the fault point in front of it.

    Raises UserError with the refusal.
    """
    while True:
        fault_point(point, "before_lock")
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, permissions), "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_file_at(path, file):
                return file
        except BlockingIOError as error:
            file.close()
            raise UserError(refusal) from error
        except BaseException:
            file.close()
            raise
        file.close()  # its last holder removed it after it was opened here: the lock keeps nobody from a new one


def is_file_at(path: Path, file: IO[Any]) -> bool:
    """Return whether an open file is the one that has that path now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
