"""Decodes the images of one domain once, and keeps them in memory, or in a memory-mapped file where they do not fit.

pixel_cache.py holds that file.
"""

import itertools
import sys
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from cyclegan_fast.data.file_reading import FileReader, PreparedSamples
from cyclegan_fast.data.image_lists import digest_of_middles
from cyclegan_fast.data.pixel_cache import MappedImages, PixelCache
from cyclegan_fast.data.preparation import Preparation
from cyclegan_fast.data.value_facts import ValueFacts, notes_on_values
from cyclegan_fast.images.files import Half
from cyclegan_fast.images.folders import search
from cyclegan_fast.images.levels import Extent, ValueRange, merged, note_on
from cyclegan_fast.images.pages import note_on_pages, page_count
from cyclegan_fast.images.pixel_type import RGB, DomainName, PixelType, SampleArray
from cyclegan_fast.images.samples import Axis, Frames
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.system.progress import progress_bar


class ImageFolder:
    """Reads a domain from files: decodes and prepares each image once, and keeps it.

    The images are kept in memory where all fit in `cache_bytes`, and otherwise in a memory-mapped file, which other
    processes and later starts use too.

    All files are decoded when the object is made, or were when the mapped file was written, so that one that cannot be
    read is found before training and not in its middle: it is left out and named in `unreadable`, or, with `strict`,
    refused. With `strict`, files that are otherwise left out, files of several pages of which one is read and images
    with NaN are refused, too. `note` says where the images are kept if not in memory, and why if nowhere;
    `values_notes` describe values that are no plain 8 bits.

    A file may hold several images (`frames` is "slices"); then their names are the file's with "#" and a number.

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
        kind: the type of the domain's pixels.
        frames, axis: say what the pages or slices of a file are, see `read_samples`.
        value_range: the values that samples of more than 8 bits are taken to fill in a domain of 8 bits, see `decode`.
        range_flag: the option that gives the domain's range, for notes.
        flags_of: the domain of a training whose flags a refusal names, see `read_samples`.

    Raises UserError for a missing folder, one without images, or an unreadable image with `strict`.
    """

    def __init__(
        self,
        folder: Path,
        prepare: Preparation,
        *,
        cache_bytes: int,
        cache_dir: Path,
        workers: int,
        strict: bool,
        kind: PixelType = RGB,
        frames: Frames = "first",
        axis: Axis = 2,
        value_range: ValueRange | None = None,
        ending: str = "",
        half: Half | None = None,
        limit: int | None = None,
        range_flag: str = "--range",
        flags_of: DomainName | None = None,
    ) -> None:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: put images of this domain there")
        self.folder = folder
        self.half = half
        self.reader = FileReader(prepare, kind, frames, axis, half, value_range, strict, flags_of)
        self.range_flag = range_flag
        self.cache_bytes = cache_bytes
        self.workers = workers
        self.strict = strict
        self.note: str | None = None
        self.unreadable: list[str] = []
        self.pages: dict[str, int] = {}  # numbers of pages of the files that have several, by name
        self._extents: dict[str, Extent] = {}  # of images, by name, as the facts
        self._facts: dict[str, ValueFacts] = {}
        found = search(folder)
        files = [path for path in found.images if path.stem.endswith(ending)]
        self._files = self._images_of_files(files, limit)
        if not self._files:
            raise UserError("; ".join([f"no images {f'*{ending}.* ' if ending else ''}in {folder}", *found.missing]))
        self._left_out = found.told(strict=strict)
        self.paths: list[Path] = []  # the file of each image
        self.files: list[str] = []  # the name of each image that can be read, relative to the folder
        self.sizes: list[tuple[int, int]] = []  # width, height of each, prepared
        names = [self._name(path) for path in self._files]
        preparation = str(self.reader) + (f", {len(self.candidates)} images" if frames == "slices" else "")
        cache = PixelCache(cache_dir, folder, names, preparation, kind)
        kept = self._found(cache)
        self._kept = self._decode_all(cache) if kept is None else kept
        if not self.paths:
            raise UserError(
                f"none of the {len(self._files)} images in {folder} can be read; the first: {self.unreadable[0]}"
            )
        if isinstance(self._kept, MappedImages):
            self.values_notes = self._kept.remarks
            self.note = (
                f"the decoded {self._parts} of {folder}, {self._kept.nbytes / 2**30:.2f} GiB, are kept in {cache.path}"
            )
        else:
            self.values_notes = self._notes_on_values()
        sizes = {path: path.stat().st_size for path in dict.fromkeys(self.paths)}
        self.names = [f"{name} {sizes[path]}" for name, path in zip(self.files, self.paths, strict=True)]

    @property
    def candidates(self) -> list[str]:
        """Names of all images, relative to the folder, also of those that cannot be read."""
        return [name for names in self._files.values() for name in names]

    @property
    def remarks(self) -> list[str]:
        """Lines on the files below the folder that are not, or not wholly, among the images."""
        pages = {str(self.folder / name): count for name, count in self.pages.items()}
        return self._left_out + note_on_pages(pages)

    def content(self) -> str:
        """Return a digest of parts of the files, see `digest_of_middles`."""
        return digest_of_middles(self.paths)

    @property
    def memory_bytes(self) -> int:
        """Bytes that the images take of `cache_bytes`; a mapped file takes none that the system cannot have back."""
        return 0 if isinstance(self._kept, MappedImages) else sum(samples.nbytes for samples in self._kept)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> SampleArray:
        if index < len(self._kept):
            return self._kept[index]
        path, name = self.paths[index], self.files[index]
        return self._decode(path, self._files[path].index(name))[0].samples

    @property
    def _parts(self) -> str:
        return "images" if self.half is None else f"{self.half} halves"

    def _notes_on_values(self) -> list[str]:
        where = str(self.folder)
        deep = note_on(merged(self._extents.values()), where, self.reader.deep_range, self.range_flag)
        return [*([deep] if deep else []), *notes_on_values(self._facts, self.reader.kind, where, self.range_flag)]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _images_of_files(self, files: Sequence[Path], limit: int | None) -> dict[Path, list[str]]:
        """Return the names of the images of each file, the first `limit` of them all."""
        if self.reader.frames != "slices":
            return {path: [self._name(path)] for path in files[:limit]}
        named: dict[Path, list[str]] = {}
        left = sys.maxsize if limit is None else limit
        with (
            ThreadPoolExecutor(max(1, self.workers)) as pool,
            closing(ahead(pool, self.reader.image_count, files, 2 * self.workers)) as counts,
        ):
            for path, count in zip(files, counts, strict=True):
                named[path] = names_of_images(self._name(path), count)[:left]
                left -= len(named[path])
                if not left:
                    break
        return named

    def _found(self, cache: PixelCache) -> MappedImages | None:
        """Return the images that `cache` holds, if they do not fit in memory and no other file can be read by now."""
        found = cache.read()
        if found is None or found.nbytes <= self.cache_bytes:
            return None
        kept = set(found.names)
        again = [self._try_to_decode(path) for path, names in self._files.items() if names[0] not in kept]
        still_unreadable = [result for result in again if isinstance(result, UnreadableImage)]
        if len(still_unreadable) < len(again):
            return None
        self.unreadable = []
        for error in still_unreadable:
            self._leave_out(error)
        self.pages = {}
        for name, count in found.pages.items():
            self._note_pages(name, count)
        file_of = {name: path for path, names in self._files.items() for name in names}
        self.files = found.names
        self.paths = [file_of[name] for name in found.names]
        self.sizes = [_size(found[index]) for index in range(len(found))]
        return found

    def _decode_all(self, cache: PixelCache) -> list[SampleArray] | MappedImages:
        """Fill `paths` and `unreadable`, and return all images, or as many of the first ones as can be kept."""
        with closing(self._readable()) as images:
            fitting, overflow = self._until_full(images)
            if overflow is not None:
                begun = [*fitting, overflow]
                mean_bytes = sum(samples.nbytes for _, samples in begun) / len(begun)
                try:
                    with cache.locked():
                        found = self._found(cache)
                        if found is not None:
                            return found
                        expected_bytes = int(mean_bytes * len(self.candidates))
                        return cache.write(
                            itertools.chain(begun, images), expected_bytes, self.pages, self._notes_on_values
                        )
                except OSError as error:
                    self.note = (
                        f"the decoded {self._parts} of {self.folder} do not fit in {self.cache_bytes / 2**30:.2f} GiB "
                        f"of memory and cannot be kept in {cache.path.parent} ({error.strerror or error}): some are "
                        "decoded at each use; --cache-gib allows more memory, --cache-dir names another disk"
                    )
                    for _ in images:
                        pass  # they are decoded only to find those that cannot be read
        return [samples for _, samples in fitting]

    def _until_full(
        self, images: Iterable[tuple[str, SampleArray]]
    ) -> tuple[list[tuple[str, SampleArray]], tuple[str, SampleArray] | None]:
        """Return the first images, as long as they fit in memory, and the one that did not; None where all fit."""
        fitting: list[tuple[str, SampleArray]] = []
        used_bytes = 0
        for image in images:
            used_bytes += image[1].nbytes
            if used_bytes > self.cache_bytes:
                return fitting, image
            fitting.append(image)
        return fitting, None

    def _readable(self) -> Generator[tuple[str, SampleArray]]:
        """Yield name and samples of all images that can be read, in order, and fill `paths` and `unreadable`."""
        with (
            ThreadPoolExecutor(max(1, self.workers)) as pool,
            closing(ahead(pool, self._try_to_decode, self._files, 2 * self.workers)) as results,
        ):
            description = f"reading {self.folder.name}" + (f", {self._parts}" if self.half else "")
            progress = progress_bar(results, total=len(self._files), desc=description, unit=" images", leave=False)
            for (path, names), result in zip(self._files.items(), progress, strict=True):
                if isinstance(result, UnreadableImage):
                    self._leave_out(result)
                    continue
                images, pages = result
                self._note_pages(self._name(path), pages)
                # A file that is cut off may hold fewer images than it says; one may be left out by a limit.
                for name, image in zip(names, images, strict=False):
                    self.paths.append(path)
                    self.files.append(name)
                    self.sizes.append(_size(image.samples))
                    if image.extent is not None:
                        self._extents[name] = image.extent
                    if image.facts is not None:
                        self._facts[name] = image.facts
                    yield name, image.samples

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

    def _try_to_decode(self, path: Path) -> tuple[list[PreparedSamples], int] | UnreadableImage:
        """Return a file's images and, where the first page is read, how many it has; the error where it is unreadable.

        Where all pages are read, they count as one.
        """
        try:
            return self._decode(path), page_count(path) if self.reader.frames == "first" else 1
        except UnreadableImage as error:
            return error

    def _decode(self, path: Path, index: int | None = None) -> list[PreparedSamples]:
        return self.reader.read(path, index)


def names_of_images(name: str, count: int) -> list[str]:
    """Return the names of the images in a file: its own where it has one image, else numbered from 0."""
    return [name] if count == 1 else [f"{name}#{index}" for index in range(count)]


def _size(samples: SampleArray) -> tuple[int, int]:
    height, width = samples.shape[:2]
    return width, height
