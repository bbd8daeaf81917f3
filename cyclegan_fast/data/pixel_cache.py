"""Keeps decoded images that do not fit in memory in a memory-mapped file, one for a folder: each is decoded once.

The file holds the samples of all images one after the other, [H, W, C] each in the type of the domain's samples, then
an index as JSON, then the length of the index in bytes and MAGIC. MAGIC comes last, so that a file that was cut off is
not taken for a whole one.
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

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.fault_points import fault_point
from cyclegan_fast.system.files import beside, make_folder, replacing

SHARE_OF_DISK = 0.9  # the share of the free space that may be taken; the rest stays for checkpoints and other files
MAGIC = b"cyclegan-fast 4\n"
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
    """Holds images, [H, W, C], in memory that the system reads from a file when it is touched; not writable.

    `pages` has the numbers of pages of those files that have several, by name; `remarks` are lines for the user
    whenever the images are used.
    """

    def __init__(
        self,
        pixels: SampleArray,
        names: list[str],
        shapes: list[tuple[int, int, int]],
        pages: dict[str, int],
        remarks: list[str],
    ) -> None:
        self.names = names
        self.pages = pages
        self.remarks = remarks
        self.nbytes = pixels.nbytes
        self._pixels = pixels
        self._shapes = shapes
        self._ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> SampleArray:
        end, shape = self._ends[index], self._shapes[index]
        return self._pixels[end - math.prod(shape) : end].reshape(shape)


class PixelCache:
    """Keeps the decoded images of one folder, prepared in one way, in a file in `cache_dir`.

    Args:
        cache_dir: is made when something is written.
        folder: holds the images.
        names: the image files' names, relative to `folder`.
        preparation: names everything that the prepared pixels depend on beside the files.
        kind: the type of the images' pixels.
    """

    def __init__(
        self, cache_dir: Path, folder: Path, names: Sequence[str], preparation: str, kind: PixelType = RGB
    ) -> None:
        self.kind = kind
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
                channels, dtype = int(index["channels"]), self.kind.as_numpy
                shapes = [(int(height), int(width), channels) for height, width in index["shapes"]]
                if (index["key"], index["dtype"], channels) != (self.key, self.kind.dtype, self.kind.channels):
                    return None
                count = sum(map(math.prod, shapes))
                if count * dtype.itemsize != pixel_bytes:
                    return None
                pixels = np.memmap(file, dtype, "r", shape=(count,))
                return MappedImages(
                    np.asarray(pixels), index["names"], shapes, dict(index["pages"]), list(index["remarks"])
                )
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
        images: Iterable[tuple[str, SampleArray]],
        expected_bytes: int,
        pages: Mapping[str, int],
        remarks: Callable[[], list[str]],
    ) -> MappedImages:
        """Write images, each with its name, and map them; needs the lock.

        When all images have passed, `pages` is read and `remarks` is called for what the mapped images keep under these
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
            described = {
                "key": self.key,
                "dtype": self.kind.dtype,
                "channels": self.kind.channels,
                "names": names,
                "shapes": shapes,
                "pages": {**pages},
                "remarks": remarks(),
            }
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
