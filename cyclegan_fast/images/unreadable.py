"""Turns whatever a decoder raises on a damaged file into `UnreadableImage`, and bounds what it may ask for.

Pillow and tifffile promise nothing of what they raise on a damaged file: it has been struct.error, TypeError,
zlib.error, IndexError and more. `reading` is the one place where all of it becomes UnreadableImage.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cyclegan_fast.system.shortage import DoesNotFit

_MOST_SAID = 300  # characters of what a decoder says of damage, which may be the damaged bytes
_READ_WITH = {"pydicom": "DICOM", "nibabel": "NIfTI", "zarr": "Zarr", "av": "a video"}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class UnreadableImage(Exception):
    """Tells that a file is no whole image; the message names it and says what is wrong."""


class BoundedFile(io.BufferedReader):
    """Reads a file with no more memory than the file has bytes, whatever number a damaged header asks for."""

    def __init__(self, path: Path) -> None:
        file = io.FileIO(path)
        super().__init__(file)
        self._end = os.fstat(file.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, and never ask for more than are left."""
        if size is not None and 0 <= size <= io.DEFAULT_BUFFER_SIZE:
            return super().read(size)  # decoders read headers byte by byte
        left = max(0, self._end - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def pixels_do_not_fit(path: Path) -> DoesNotFit:
    """Return the error which says that the memory does not hold the pixels of a file."""
    return DoesNotFit(f"{path}: its pixels do not fit in the memory that is free")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on the file `path` into UnreadableImage.

    A MemoryError becomes DoesNotFit: it says nothing of the file, which may be whole.
    """
    try:
        yield
    except (UnreadableImage, DoesNotFit):
        raise  # it says all that already
    except MemoryError as error:
        raise pixels_do_not_fit(path) from error
    except Exception as error:  # see the module's docstring
        raise UnreadableImage(f"{path}: {_reason(error, path)}") from error


@contextmanager
def parsing() -> Iterator[None]:
    """Turn a MemoryError into a ValueError, before any pixel is decoded: only a damaged header asks for that much."""
    try:
        yield
    except MemoryError as error:
        raise ValueError("it claims to hold more than fits in memory") from error


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        if _is_lfs_pointer(path):
            return "a pointer of Git LFS and not the image itself; `git lfs pull` fetches that"
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return _too_large("more than")
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        format_name = _READ_WITH.get(package, "TIFF")
        return f"{format_name} is read with {package}, which is not installed: pip install {package}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # the system's; what decoders raise has no number
    said = " ".join(str(error).split())
    if isinstance(error, OSError | ValueError | SyntaxError) and said:
        return said
    return f"it is damaged ({type(error).__name__}{': ' if said else ''}{said[:_MOST_SAID]})"


def _is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is the note that Git LFS keeps in place of a file that was not fetched."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False  # it has nothing to read, such as /proc/self/mem


def check_size(width: int, height: int) -> None:
    """Raise ValueError for an image without pixels, or with more than Pillow decodes, which guards the memory."""
    if not width or not height:
        raise ValueError(f"it has no pixels ({width}x{height})")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(_too_large(f"{width}x{height}, more than"))


def _too_large(than: str) -> str:
    # Pillow warns at its limit, and refuses at twice that.
    return (
        f"has {than} the {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels that are read at once: cut it into parts, or "
        "translate it with --tile"
    )


@contextmanager
def of_any_size() -> Iterator[None]:
    """Lift Pillow's limit on the pixels of an image in this process, for users who asked for large ones."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
