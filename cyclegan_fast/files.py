"""Writing files so that a kill or a full disk leaves them whole or as they were."""

import os
from pathlib import Path

from cyclegan_fast.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file, flush it to the disk, and give it its name: `path` is whole or as it was before.

    Raises UserError where the system refuses, such as on a full disk.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"could not write {path}: {error.strerror}; what was saved before is unharmed") from error
