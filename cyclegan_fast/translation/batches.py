"""Decodes images ahead, translates them in batches, writes results behind, for any `Translator`; needs no PyTorch."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, cast

import numpy as np

from cyclegan_fast.conventions import SIDE_MULTIPLE
from cyclegan_fast.images.files import none_can_be_read
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pages import note_on_pages
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.pixels import images_at_once
from cyclegan_fast.images.samples import Axis, Samples
from cyclegan_fast.images.unreadable import UnreadableImage, pixels_do_not_fit
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.system.process import release_free_memory
from cyclegan_fast.system.progress import progress_bar, waiting
from cyclegan_fast.system.shortage import DoesNotFit
from cyclegan_fast.translation.contact_sheet import draw_contact_sheet
from cyclegan_fast.translation.left_out import HasSource, LeftOut
from cyclegan_fast.translation.plan import ImageOptions, Job
from cyclegan_fast.translation.prepared import (
    PreparedFile,
    Reading,
    Slice,
    check_square_fits,
    prepare_image,
    with_missing,
)
from cyclegan_fast.translation.remarks import Remarks
from cyclegan_fast.translation.summary import Summary
from cyclegan_fast.translation.translator import (
    BatchDoesNotFit,
    NotFinite,
    OverlappingTranslator,
    Translator,
    images_do_not_fit,
)
from cyclegan_fast.translation.writing import Writer, check_folder, looked_up

THREADS = min(8, os.cpu_count() or 1)
_MORE_MEMORY = "end other programs, and raise the limit that this process may have (ulimit -v)"


class HasPixels(Protocol):
    """Has the samples of an image, [H, W, C]."""

    @property
    def pixels(self) -> SampleArray: ...


_Image = TypeVar("_Image", bound=HasPixels)
_Sourced = TypeVar("_Sourced", bound=HasSource)


def translate_images(
    translator: Translator,
    jobs: Sequence[Job],
    options: ImageOptions,
    size: int | None,
    *,
    multiple: int = SIDE_MULTIPLE,
    one_at_a_time: bool = False,
    value_range: ValueRange | None = None,
    splits: bool | None = None,
) -> Summary:
    """Translate every job whose target is not there yet (with `options.overwrite`, every job), and draw the overview.

    Threads decode ahead and write behind, so that the translator does not wait for either.

    Args:
        translator: called with batches of at most `options.batch_size` images of one shape, or of `images_at_once`. Its
            `source` says what files are decoded to, its `target` what is written.
        jobs: from `plan`.
        options: `images`, `size` and `keep_size` are not read here: they are in `jobs` and `size`.
        size: side of the square that images are resized to, or None to keep each image's own.
        multiple: what the sides must be multiples of for the translator, see `pad_sides`.
        one_at_a_time: for images so large that none should be in memory beside the one that is translated: nothing is
            decoded ahead or written behind, and `options.batch_size` is 1.
        value_range: that of `decode`; `options.range` is not read here.
        splits: whether a batch that does not fit the memory is translated image by image; by default unless there is
            an `options.batch_size`.

    Raises UserError where no image can be read, for one with `options.strict` that cannot be read or does not fit, for
    the first one of a `size` that does not fit, as none would, for a batch that does not fit without `splits`, and
    where the disk takes no file; DoesNotFit where the memory does not hold a square of `size`. A single image that does
    not fit is left out, and so is a file that cannot be written, such as one of a name that the system does not take. A
    file appears whole or not at all.
    """
    start = time.perf_counter()
    unwritten: list[str] = []
    placed = looked_up(jobs, unwritten)
    todo = [job for job, is_there in placed if options.overwrite or not is_there]
    if todo:
        check_square_fits(size, translator.source, translator.target)
        check_folder(options.out)
    unreadable: list[str] = []
    axis = cast(Axis, 2 if options.axis is None else options.axis)
    reading = Reading(translator.source, value_range, options.frames or "first", axis)
    remarks = Remarks(reading, translator.target)
    threads = 1 if one_at_a_time else THREADS
    batch_size = 1 if one_at_a_time else options.batch_size
    depth = 0 if one_at_a_time else 2 * max(THREADS, batch_size or 1)
    progress = progress_bar(total=len(todo), desc="translating", unit=" images")

    splits = options.batch_size is None if splits is None else splits
    left_out: LeftOut[Slice] = LeftOut(splits=splits, raises=options.strict or size is not None)

    def prepare(job: Job) -> PreparedFile | UnreadableImage | DoesNotFit:
        try:
            return prepare_image(job, size, multiple, reading)
        except UnreadableImage as error:
            return error
        except MemoryError as error:  # which holds what is there of the pixels, by its traceback
            return DoesNotFit(str(error)) if isinstance(error, DoesNotFit) else pixels_do_not_fit(job.source)

    with (
        ThreadPoolExecutor(threads, thread_name_prefix="images") as pool,
        closing(ahead(pool, prepare, todo, depth)) as decoded,
        progress,
    ):
        writer = Writer(pool, depth)
        slices = _slices(_readable(decoded, unreadable, left_out, remarks, options.strict))
        batches = translations_of_batches(translator, same_shaped(slices, batch_size), left_out)
        for image, samples in _whole_images(batches, translator.target, left_out):
            remarks.add(image)
            writer.write(Samples(samples, image.place, None), image.job.target, translator.target)
            progress.update()
        writer.wait()
        count = writer.written
        if unreadable and len(unreadable) == len(jobs):
            raise UserError(none_can_be_read(unreadable))
        lines = remarks.lines()
        if options.sheet:
            done = [job for job, is_there in looked_up(jobs, []) if is_there]
            with waiting("drawing the contact sheet"):
                sheet = draw_contact_sheet(done, pool, lines, reading, translator.target)
            if sheet is not None:
                writer.write_picture(sheet, options.sheet)
                writer.wait()
    return Summary(
        translated=count,
        existing=len(placed) - len(todo),
        unreadable=unreadable,
        unwritten=[*unwritten, *writer.unwritten],
        remarks=lines,
        elapsed_s=time.perf_counter() - start,
        left_out=left_out.lines,
    )


def _slices(images: Iterable[PreparedFile]) -> Iterator[Slice]:
    """Yield each slice of each image."""
    for image in images:
        yield from (Slice(image, index) for index in range(len(image.values)))


def _whole_images(
    batches: Iterable[tuple[list[Slice], SampleArray]], target: PixelType, left_out: LeftOut[Slice]
) -> Iterator[tuple[PreparedFile, SampleArray]]:
    """Yield images with their translations [S, height, width, C], once all of their slices were translated.

    One with a slice that is left out is left out as a whole, and so is one whose translation takes too much memory.
    """
    for batch, translated in batches:
        for part, samples in zip(batch, translated, strict=True):
            image, found = part.image, samples[None, : part.image.height, : part.image.width]
            if part.source in left_out:
                continue
            try:
                if len(image.values) > 1:
                    if part.index == 0:
                        volume = np.empty((len(image.values), *found.shape[1:]), found.dtype)
                    volume[part.index] = found[0]
                    found = volume
                if part.index < len(image.values) - 1:
                    continue
                found = with_missing(found, image.missing, target)
            except MemoryError:
                said = f"its translation does not fit in the memory that is free; {_MORE_MEMORY}"
                left_out.refuse([part], BatchDoesNotFit(said, is_of_memory=False))
                continue
            yield image, found


def translations_of_batches(
    translator: Translator, batches: Iterable[list[_Sourced]], left_out: LeftOut[_Sourced]
) -> Iterator[tuple[list[_Sourced], SampleArray]]:
    """Yield batches with their translations [N, H, W, C], in order, without what `left_out` leaves out.

    A translator that can is given the next batch before it is asked for the result of this one, which is yielded also
    where the next one cannot be had.
    """
    overlapping = translator if isinstance(translator, OverlappingTranslator) else None
    shape: tuple[int, ...] | None = None
    begun: tuple[list[_Sourced], Callable[[], SampleArray]] | None = None
    try:
        for batch in left_out.chosen(batches):
            if shape != (shape := batch[0].pixels.shape):
                release_free_memory()  # what images of other sizes took, and those that did not fit
            before, ended = begun, None
            try:
                with _explained(batch):
                    if overlapping is None:
                        ended = batch, translator(_stack(batch))
                    else:
                        begun = batch, overlapping.begin(_stack(batch))
            except BatchDoesNotFit as error:
                left_out.refuse(batch, error)
                shape = begun = None  # what was begun ends before anything else is tried
            if before:
                ended = before[0], _result(*before)
            if ended:
                yield ended
    except Exception:
        if begun:
            yield begun[0], _result(*begun)
        raise
    if begun:
        yield begun[0], _result(*begun)


def _result(batch: Sequence[HasSource], finish: Callable[[], SampleArray]) -> SampleArray:
    with _explained(batch):
        return finish()


@contextmanager
def _explained(batch: Sequence[HasSource]) -> Iterator[None]:
    """Name the file whose translation is not finite, and say which batch the memory of the host does not hold."""
    try:
        yield
    except NotFinite as error:
        raise not_finite(batch[error.index].source) from error
    except MemoryError as error:
        what = images_do_not_fit(len(batch), *batch[0].pixels.shape[:2])
        raise BatchDoesNotFit(f"{what} in the memory that is free; give a smaller --size, or {_MORE_MEMORY}") from error


def not_finite(source: Path) -> UserError:
    """Return the error that names a file whose translation is not finite."""
    return UserError(
        f"{source}: the translation is not finite: the network's weights have diverged, or its precision is too low "
        "for this image; give an earlier checkpoint, or leave out --amp"
    )


def _stack(batch: Sequence[HasPixels]) -> SampleArray:
    """Stack images to [N, H, W, C]; a single one, which may be very large, is not copied."""
    return np.stack([image.pixels for image in batch]) if len(batch) > 1 else batch[0].pixels[None]


def _readable(
    images: Iterable[PreparedFile | UnreadableImage | DoesNotFit],
    unreadable: list[str],
    left_out: LeftOut[Slice],
    remarks: Remarks,
    strict: bool,
) -> Iterator[PreparedFile]:
    """Yield the images that could be decoded; the others' messages are appended to `unreadable`, or `left_out`.

    `remarks` receives the files of several pages, with their number. Raises UserError with `strict` for any of these,
    or DoesNotFit.
    """
    for image in images:
        if isinstance(image, DoesNotFit):
            if strict:
                raise image
            left_out.lines.append(f"{image}; {_MORE_MEMORY}")
            continue
        if isinstance(image, UnreadableImage):
            if strict:
                raise UserError(f"{image} (leave --strict out to skip such files)")
            unreadable.append(str(image))
            continue
        if image.pages > 1:
            remarks.pages[str(image.job.source)] = image.pages
            if strict:
                raise UserError(f"{note_on_pages(remarks.pages)[0]} (leave --strict out to take that)")
        yield image


def same_shaped(images: Iterable[_Image], most: int | None) -> Iterator[list[_Image]]:
    """Group consecutive images of one shape, in order: at most `most` of them, or as many as `images_at_once` says."""
    group: list[_Image] = []
    for image in images:
        if group and image.pixels.shape != group[0].pixels.shape:
            yield group
            group = []
        group.append(image)
        if len(group) == (most or images_at_once(*image.pixels.shape[:2])):  # before the next image is decoded
            yield group
            group = []
    if group:
        yield group
