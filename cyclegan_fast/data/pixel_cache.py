"""Keeps decoded images that do not fit in memory in a memory-mapped file, one for a folder: each is decoded once.

The file holds the pixels of all images one after the other, uint8 [H, W, 3] each, then an index as JSON, then the
length of the index in bytes and MAGIC. MAGIC comes last, so that a file that was cut off is not taken for a whole one.
"""

import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL

from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.fault_points import fault_point
from cyclegan_fast.system.files import beside, make_folder, replacing

SHARE_OF_DISK = 0.9  # the share of the free space that may be taken; the rest stays for checkpoints and other files
MAGIC = b"cyclegan-fast 3\n"
DECODING = 2  # the version of our own decoding, raised with each change of its values
TAIL = struct.Struct(f"<Q{len(MAGIC)}s")


def default_cache_dir() -> Path:
    """Return the folder `cyclegan-fast` in $XDG_CACHE_HOME or ~/.cache; raises UserError without a home folder."""
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    except RuntimeError as error:
        raise UserError("there is no home folder to keep decoded images in: give --cache-dir FOLDER") from error
    return Path(caches) / "cyclegan-fast"


class MappedImages:
    """Holds images, uint8 [H, W, 3], in memory that the system reads from a file when it is touched; not writable.

    `pages` has the numbers of pages of those files that have several, by name; `remark` is a line for the user whenever
    the images are used.
    """

    def __init__(
        self,
        pixels: Pixels,
        names: list[str],
        shapes: list[tuple[int, int, int]],
        pages: dict[str, int],
        remark: str | None,
    ) -> None:
        self.names = names
        self.pages = pages
        self.remark = remark
        self.nbytes = pixels.nbytes
        self._pixels = pixels
        self._shapes = shapes
        self._ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Pixels:
        end, shape = self._ends[index], self._shapes[index]
        return self._pixels[end - math.prod(shape) : end].reshape(shape)


class PixelCache:
    """Keeps the decoded images of one folder, prepared in one way, in a file in `cache_dir`.

    Args:
        cache_dir: is made when something is written.
        folder: holds the images.
        names: the image files' names, relative to `folder`.
        preparation: names everything that the prepared pixels depend on beside the files.
    """

    def __init__(self, cache_dir: Path, folder: Path, names: Sequence[str], preparation: str) -> None:
        # There is one file for a folder and a preparation: when the images change, it is replaced.
        place = _digest([str(folder.resolve()), preparation])
        self.path = beside(cache_dir / folder.name, "", f"-{place[:16]}.pixels")
        # Pixels can change with these packages, which decode and resize, and with DECODING.
        stamps = [[name, *_stamp(folder / name)] for name in names]
        self.key = _digest([place, PIL.__version__, metadata.version("tifffile"), DECODING, stamps])

    def read(self) -> MappedImages | None:
        """Map the images that were written; None where the file is missing, cut off, foreign, or of other images."""
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(size - TAIL.size)
                index_bytes, magic = TAIL.unpack(file.read())
                pixel_bytes = size - TAIL.size - index_bytes
                if magic != MAGIC or pixel_bytes <= 0:
                    return None
                file.seek(pixel_bytes)
                index = json.loads(file.read(index_bytes))
                shapes = [(int(height), int(width), 3) for height, width in index["shapes"]]
                if index["key"] != self.key or sum(map(math.prod, shapes)) != pixel_bytes:
                    return None
                pixels = np.memmap(file, np.uint8, "r", shape=(pixel_bytes,))
                return MappedImages(np.asarray(pixels), index["names"], shapes, dict(index["pages"]), index["remark"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cache's lock: a second process waits for it, and then finds what the first one wrote."""
        make_folder(self.path.parent, "decoded_images")
        fault_point("decoded_images", "before_lock")
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write(
        self,
        images: Iterable[tuple[str, Pixels]],
        expected_bytes: int,
        pages: Mapping[str, int],
        remark: Callable[[], str | None],
    ) -> MappedImages:
        """Write images, each with its name, and map them; needs the lock.

        When all images have passed, `pages` is read and `remark` is called for what the mapped images keep under these
        names.

        Raises OSError where the disk refuses, or where `expected_bytes` would take nearly all that is free on it.
        """
        free_bytes = shutil.disk_usage(self.path.parent).free
        if expected_bytes > SHARE_OF_DISK * free_bytes:
            raise OSError(
                errno.ENOSPC, f"about {expected_bytes / 2**30:.2f} GiB are needed and {free_bytes / 2**30:.2f} are free"
            )
        names, shapes = [], []
        with replacing(self.path, "decoded_images") as file:
            for name, pixels in images:
                fault_point("decoded_images", "mid_write")
                file.write(np.ascontiguousarray(pixels).data)
                names.append(name)
                shapes.append(pixels.shape[:2])
            described = {"key": self.key, "names": names, "shapes": shapes, "pages": {**pages}, "remark": remark()}
            index = json.dumps(described).encode()
            file.write(index)
            file.write(TAIL.pack(len(index), MAGIC))
        written = self.read()
        if written is None:
            raise OSError(errno.EIO, f"{self.path} does not read as it was written")
        return written


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content; nothing where the system does not tell."""
    try:
        file = path.stat()
    except OSError:
        return ()
    return file.st_size, file.st_mtime_ns


def _digest(values: list[object]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
