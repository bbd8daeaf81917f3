"""Decodes the images of one domain once, and keeps them in memory, or in a memory-mapped file where they do not fit.

pixel_cache.py holds that file.
"""

import hashlib
import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_fast.data.pixel_cache import MappedImages, PixelCache
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.files import Half, part_of
from cyclegan_fast.images.folders import search
from cyclegan_fast.images.levels import Extent, ValueRange, merged, note_on
from cyclegan_fast.images.pages import note_on_pages, page_count
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.system.progress import progress_bar

SAMPLED = 64  # the number of files that `content` reads
SAMPLED_BYTES = 1 << 16


class ImageFolder:
    """Reads a domain from files: decodes and prepares each image once, and keeps it.

    The images are kept in memory where all fit in `cache_bytes`, and otherwise in a memory-mapped file, which other
    processes and later starts use too.

    All files are decoded when the object is made, or were when the mapped file was written, so that one that cannot be
    read is found before training and not in its middle: it is left out and named in `unreadable`, or, with `strict`,
    refused. With `strict`, files that are otherwise left out and files of several pages are refused, too. `note` says
    where the images are kept if not in memory, and why if nowhere; `values_note` describes images of more than 8 bits.

    Args:
        folder: is searched with its subfolders.
        ending: only images whose names end so, before the dot, are taken.
        half: the domain is this half of each image.
        limit: only the first so many images are taken.
        prepare: resizes a decoded image; its repr names everything that its result depends on.
        cache_bytes: memory for prepared images.
        cache_dir: folder for the mapped file; where its disk cannot hold it, the images that do not fit in memory are
            decoded again at each use.
        workers: threads to decode with; Pillow decodes and resizes outside Python's lock.
        value_range: the values that samples of more than 8 bits are taken to fill, see `decode`.

    Raises UserError for a missing folder, one without images, or an unreadable image with `strict`.
    """

    def __init__(
        self,
        folder: Path,
        prepare: Callable[[Image.Image], Image.Image],
        *,
        cache_bytes: int,
        cache_dir: Path,
        workers: int,
        strict: bool,
        value_range: ValueRange | None = None,
        ending: str = "",
        half: Half | None = None,
        limit: int | None = None,
    ) -> None:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: put images of this domain there")
        self.folder = folder
        self.prepare = prepare
        self.half = half
        self.cache_bytes = cache_bytes
        self.workers = workers
        self.strict = strict
        self.value_range = value_range
        self.note: str | None = None
        self.unreadable: list[str] = []
        self.pages: dict[str, int] = {}  # numbers of pages of the files that have several, by name
        self._extents: dict[Path, Extent] = {}
        found = search(folder)
        self._candidates = [path for path in found.images if path.stem.endswith(ending)][:limit]
        if not self._candidates:
            raise UserError("; ".join([f"no images {f'*{ending}.* ' if ending else ''}in {folder}", *found.missing]))
        self._left_out = found.told(strict=strict)
        self.paths: list[Path] = []
        self.sizes: list[tuple[int, int]] = []  # width, height of each, prepared
        preparation = ", ".join(
            [*([f"values {value_range}"] if value_range else []), *([f"{half} half"] if half else []), repr(prepare)]
        )
        cache = PixelCache(cache_dir, folder, self.candidates, preparation)
        kept = self._found(cache)
        self._kept = self._decode_all(cache) if kept is None else kept
        if not self.paths:
            raise UserError(
                f"none of the {len(self._candidates)} images in {folder} can be read; the first: {self.unreadable[0]}"
            )
        self.values_note = self._values_note()
        if isinstance(self._kept, MappedImages):
            self.values_note = self._kept.remark
            self.note = (
                f"the decoded {self._parts} of {folder}, {self._kept.nbytes / 2**30:.2f} GiB, are kept in {cache.path}"
            )
        self.names = [f"{self._name(path)} {path.stat().st_size}" for path in self.paths]

    @property
    def candidates(self) -> list[str]:
        """Names of all images, relative to the folder, also of those that cannot be read."""
        return [self._name(path) for path in self._candidates]

    @property
    def files(self) -> list[str]:
        """Names of the images that can be read, relative to the folder."""
        return [self._name(path) for path in self.paths]

    @property
    def remarks(self) -> list[str]:
        """Lines on the files below the folder that are not, or not wholly, among the images."""
        pages = {str(self.folder / name): count for name, count in self.pages.items()}
        return self._left_out + note_on_pages(pages)

    def content(self) -> str:
        """Return a digest of the middle of up to SAMPLED files, spread evenly over all.

        Reading more files, or whole ones, would cost as much as decoding, at every start that finds the pixels on disk.
        """
        digest = hashlib.sha256()
        for index in np.linspace(0, len(self.paths) - 1, min(SAMPLED, len(self.paths))).astype(int):
            with open(self.paths[index], "rb") as file:
                file.seek(max(0, self.paths[index].stat().st_size - SAMPLED_BYTES) // 2)
                digest.update(file.read(SAMPLED_BYTES))
        return digest.hexdigest()[:16]

    @property
    def memory_bytes(self) -> int:
        """Bytes that the images take of `cache_bytes`; a mapped file takes none that the system cannot have back."""
        return 0 if isinstance(self._kept, MappedImages) else sum(pixels.nbytes for pixels in self._kept)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        return self._kept[index] if index < len(self._kept) else self._decode(self.paths[index])

    @property
    def _parts(self) -> str:
        return "images" if self.half is None else f"{self.half} halves"

    def _values_note(self) -> str | None:
        return note_on(merged(self._extents.values()), str(self.folder), self.value_range)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _found(self, cache: PixelCache) -> MappedImages | None:
        """Return the images that `cache` holds, if they do not fit in memory and no other file can be read by now."""
        found = cache.read()
        if found is None or found.nbytes <= self.cache_bytes:
            return None
        kept = set(found.names)
        again = [self._try_to_decode(path) for path in self._candidates if self._name(path) not in kept]
        still_unreadable = [result for result in again if isinstance(result, UnreadableImage)]
        if len(still_unreadable) < len(again):
            return None
        self.unreadable = []
        for error in still_unreadable:
            self._leave_out(error)
        self.pages = {}
        for name, count in found.pages.items():
            self._note_pages(name, count)
        self.paths = [self.folder / name for name in found.names]
        self.sizes = [_size(found[index]) for index in range(len(found))]
        return found

    def _decode_all(self, cache: PixelCache) -> list[Pixels] | MappedImages:
        """Fill `paths` and `unreadable`, and return all images, or as many of the first ones as can be kept."""
        with closing(self._readable()) as images:
            fitting, overflow = self._until_full(images)
            if overflow is not None:
                begun = [*fitting, overflow]
                mean_bytes = sum(pixels.nbytes for _, pixels in begun) / len(begun)
                try:
                    with cache.locked():
                        found = self._found(cache)
                        if found is not None:
                            return found
                        expected_bytes = int(mean_bytes * len(self._candidates))
                        return cache.write(
                            itertools.chain(begun, images), expected_bytes, self.pages, self._values_note
                        )
                except OSError as error:
                    self.note = (
                        f"the decoded {self._parts} of {self.folder} do not fit in {self.cache_bytes / 2**30:.2f} GiB "
                        f"of memory and cannot be kept in {cache.path.parent} ({error.strerror or error}): some are "
                        "decoded at each use; --cache-gib allows more memory, --cache-dir names another disk"
                    )
                    for _ in images:
                        pass  # they are decoded only to find those that cannot be read
        return [pixels for _, pixels in fitting]

    def _until_full(
        self, images: Iterable[tuple[str, Pixels]]
    ) -> tuple[list[tuple[str, Pixels]], tuple[str, Pixels] | None]:
        """Return the first images, as long as they fit in memory, and the one that did not; None where all fit."""
        fitting: list[tuple[str, Pixels]] = []
        used_bytes = 0
        for image in images:
            used_bytes += image[1].nbytes
            if used_bytes > self.cache_bytes:
                return fitting, image
            fitting.append(image)
        return fitting, None

    def _readable(self) -> Generator[tuple[str, Pixels]]:
        """Yield name and pixels of all images that can be read, in order, and fill `paths` and `unreadable`."""
        with (
            ThreadPoolExecutor(max(1, self.workers)) as pool,
            closing(ahead(pool, self._try_to_decode, self._candidates, 2 * self.workers)) as results,
        ):
            description = f"reading {self.folder.name}" + (f", {self._parts}" if self.half else "")
            progress = progress_bar(results, total=len(self._candidates), desc=description, unit=" images", leave=False)
            for path, result in zip(self._candidates, progress, strict=True):
                if isinstance(result, UnreadableImage):
                    self._leave_out(result)
                else:
                    pixels, pages = result
                    self._note_pages(self._name(path), pages)
                    self.paths.append(path)
                    self.sizes.append(_size(pixels))
                    yield self._name(path), pixels

    def _leave_out(self, error: UnreadableImage) -> None:
        if self.strict:
            raise UserError(f"{error} (leave --strict out to skip such files)")
        self.unreadable.append(str(error))

    def _note_pages(self, name: str, count: int) -> None:
        if count == 1:
            return
        if self.strict:
            (line,) = note_on_pages({str(self.folder / name): count})
            raise UserError(f"{line} (leave --strict out to take that)")
        self.pages[name] = count

    def _try_to_decode(self, path: Path) -> tuple[Pixels, int] | UnreadableImage:
        """Return the pixels of a file's first page and how many pages it has, or the error where it cannot be read."""
        try:
            return self._decode(path), page_count(path)
        except UnreadableImage as error:
            return error

    def _decode(self, path: Path) -> Pixels:
        decoded = decode(path, self.value_range)
        if decoded.extent is not None:
            self._extents[path] = decoded.extent
        image = part_of(decoded.image, self.half, path)
        try:
            return np.asarray(self.prepare(image))
        except ValueError as error:
            where = path if self.half is None else f"{path}, {self.half} half"
            raise UserError(f"{where}: {error}") from error


def _size(pixels: Pixels) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    return width, height
