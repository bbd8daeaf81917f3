"""Writes translations behind the work; tells a file that alone cannot be written from a disk that takes no more."""

import errno
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.pixel_type import RGB, PixelType
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.samples import Samples, write_samples
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.plan import WRITABLE, Job, fits_pictures

_OF_EVERY_FILE = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG),  # the disk takes no more
        *(errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE),  # it fails, or is gone
        *(errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    }
)
"""Errors that the next file would meet as well; any other one is of a name, of its folder, or of an image's size."""


class NotWritten(UserError):
    """Says which file cannot be written and why, where others can."""


class Writer:
    """Writes images in the threads of a pool, and keeps the reasons why some cannot be written.

    Args:
        most_waiting: images that wait to be written at once, at most.
    """

    def __init__(self, pool: ThreadPoolExecutor, most_waiting: int) -> None:
        self.written = 0
        self.unwritten: list[str] = []
        self._pool = pool
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[Path, Future[None]]] = deque()

    def write(self, samples: Samples, path: Path, kind: PixelType) -> None:
        """Begin to write samples of `kind`. Raises UserError where the disk took none of those before."""
        self._begin(path, write_translated_samples, samples, path, kind)

    def write_picture(self, pixels: Pixels, path: Path) -> None:
        """Begin to write an 8-bit image, [H, W, 3], see `write`."""
        self._begin(path, write_translation, pixels, path)

    def _begin(self, path: Path, write: Callable[..., None], *arguments: object) -> None:
        self._waiting.append((path, self._pool.submit(write, *arguments)))
        while len(self._waiting) > self._most_waiting:
            self._end_first()

    def wait(self) -> None:
        """Wait until all is written. Raises UserError where the disk takes no more."""
        while self._waiting:
            self._end_first()

    def _end_first(self) -> None:
        path, ended = self._waiting.popleft()
        try:
            ended.result()
            self.written += 1
        except NotWritten as error:
            self.unwritten.append(str(error))
        except MemoryError:  # one that is large
            self.unwritten.append(f"could not write {path}: encoding it takes more memory than is free")


def write_translation(pixels: Pixels, path: Path) -> None:
    """Write an image, uint8 [H, W, 3] or [H, W], and the folders that it lies in.

    Raises NotWritten, or UserError where no other file could be written either.
    """
    options = {} if path.suffix.lower() == ".png" else {"quality": 95}
    with writing_explained(path):
        write_image(pixels, path, **options)


def write_translated_samples(samples: Samples, path: Path, kind: PixelType) -> None:
    """Write samples of `kind` with their place, and the folders that they lie in; raises as `write_translation` does.

    One 8-bit image goes to a picture's format as any does; other samples go the way of `write_samples`.
    """
    if fits_pictures(kind) and len(samples.values) == 1 and path.suffix.lower() in WRITABLE:
        pixels = samples.values[0]
        write_translation(pixels if kind.channels == RGB.channels else pixels[..., 0], path)
        return
    with writing_explained(path):
        write_samples(samples, path, kind)


@contextmanager
def writing_explained(path: Path) -> Iterator[None]:
    """Make the folders of a file that is written inside, and turn what the system says into a line on it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except FileExistsError as error:
        raise NotWritten(f"could not write {path}: there is a file where its folder should be") from error
    except (OSError, ValueError) as error:
        said = _could_not_write(path, error)
        if isinstance(error, OSError) and error.errno in _OF_EVERY_FILE:
            raise UserError(
                f"{said}; what is written already is whole; the same command continues once this is mended"
            ) from error
        raise NotWritten(said) from error


def looked_up(jobs: Sequence[Job], unwritten: list[str]) -> list[tuple[Job, bool]]:
    """Return each job with whether its target is there.

    Where the system takes no file of a target's name, the job is left out, and a line on it is appended to `unwritten`:
    it need not be translated to know that.
    """
    found = []
    for job in jobs:
        try:
            found.append((job, _is_there(job.target)))
        except NotWritten as error:
            unwritten.append(str(error))
    return found


def check_folder(folder: Path) -> None:
    """Make a folder, and raise UserError where it takes no file: before anything is translated for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{_could_not_write(folder, error)}; give another folder by --out") from error


def _is_there(path: Path) -> bool:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise NotWritten(_could_not_write(path, error)) from error
    if is_folder:
        raise NotWritten(f"could not write {path}: a folder has that name")
    return True


def _could_not_write(path: Path, error: Exception) -> str:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return f"could not write {path}: {reason}"
