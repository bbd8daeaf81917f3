"""Decodes images ahead, translates them in batches, writes results behind, for any `Translator`; needs no PyTorch."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from cyclegan_fast.conventions import SIDE_MULTIPLE, padded_side
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.files import none_can_be_read, part_of
from cyclegan_fast.images.levels import Extent, ValueRange, merged, note_on
from cyclegan_fast.images.pages import note_on_pages, page_count
from cyclegan_fast.images.pixels import Pixels, images_at_once
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.prefetch import ahead
from cyclegan_fast.system.process import available_bytes, release_free_memory
from cyclegan_fast.system.progress import progress_bar, waiting
from cyclegan_fast.system.shortage import DoesNotFit
from cyclegan_fast.translation.contact_sheet import draw_contact_sheet
from cyclegan_fast.translation.plan import ImageOptions, Job
from cyclegan_fast.translation.summary import Summary
from cyclegan_fast.translation.translator import NotFinite, OverlappingTranslator, Translator
from cyclegan_fast.translation.writing import Writer, check_folder, looked_up

THREADS = min(8, os.cpu_count() or 1)
BICUBIC = Image.Resampling.BICUBIC


def pad_sides(pixels: Pixels, multiple: int = SIDE_MULTIPLE) -> Pixels:
    """Continue [H, W, 3] to the right and below by reflection, up to sides that a generator takes."""
    missing = [padded_side(side, multiple) - side for side in pixels.shape[:2]]
    return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect") if any(missing) else pixels


class HasPixels(Protocol):
    """Has the pixels of an image, uint8 [H, W, 3]."""

    @property
    def pixels(self) -> Pixels: ...


_Image = TypeVar("_Image", bound=HasPixels)


@dataclass(frozen=True)
class PreparedImage:
    """Holds a decoded image, ready for the network: uint8 [H, W, 3], whose first `height` x `width` are the image.

    `pages` counts the pages of its file, of which it is the first; `extent` is that of `Decoded`.
    """

    job: Job
    pixels: Pixels
    height: int
    width: int
    pages: int = 1
    extent: Extent | None = None


def check_square_fits(size: int | None) -> None:
    """Raise DoesNotFit where the memory does not hold a square image of `size` and its translation, 3 bytes a pixel."""
    if size is None:
        return
    needed, free = 2 * 3 * size**2, available_bytes()
    if needed > free:
        raise DoesNotFit(
            f"an image of {size}x{size} and its translation take {needed / 2**30:.3g} GiB, and {free / 2**30:.1f} GiB "
            "of memory are free: give a smaller --size"
        )


def prepare_image(
    job: Job, size: int | None, multiple: int = SIDE_MULTIPLE, value_range: ValueRange | None = None
) -> PreparedImage:
    """Decode an image, and resize it to a square as test images are, or with None pad it.

    `value_range` is that of `decode`. Raises UnreadableImage.
    """
    decoded = decode(job.source, value_range)
    if size is None and job.half is None:
        pixels = decoded.pixels
    else:
        image = part_of(decoded.image, job.half, job.source)
        if size is not None and image.size != (size, size):
            image = image.resize((size, size), BICUBIC)
        pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    pages = page_count(job.source)
    return PreparedImage(job, pad_sides(pixels, multiple), height, width, pages, decoded.extent)


def translate_images(
    translator: Translator,
    jobs: Sequence[Job],
    options: ImageOptions,
    size: int | None,
    *,
    multiple: int = SIDE_MULTIPLE,
    one_at_a_time: bool = False,
    value_range: ValueRange | None = None,
) -> Summary:
    """Translate every job whose target is not there yet (with `options.overwrite`, every job), and draw the overview.

    Threads decode ahead and write behind, so that the translator does not wait for either.

    Args:
        translator: called with batches of at most `options.batch_size` images of one shape, or of `images_at_once`.
        jobs: from `plan`.
        options: `images`, `size` and `keep_size` are not read here: they are in `jobs` and `size`.
        size: side of the square that images are resized to, or None to keep each image's own.
        multiple: what the sides must be multiples of for the translator, see `pad_sides`.
        one_at_a_time: for images so large that none should be in memory beside the one that is translated: nothing is
            decoded ahead or written behind, and `options.batch_size` is 1.
        value_range: that of `decode`; `options.range` is not read here.

    Raises UserError where no image can be read, for an unreadable one with `options.strict`, and where the disk takes
    no file; DoesNotFit where the memory does not hold a square of `size`. A single file that cannot be written, such as
    one of a name that the system does not take, is left out. A file appears whole or not at all.
    """
    start = time.perf_counter()
    unwritten: list[str] = []
    placed = looked_up(jobs, unwritten)
    todo = [job for job, is_there in placed if options.overwrite or not is_there]
    if todo:
        check_square_fits(size)
        check_folder(options.out)
    unreadable: list[str] = []
    one_colour: list[Path] = []
    pages: dict[str, int] = {}
    extents: dict[Path, Extent] = {}
    threads = 1 if one_at_a_time else THREADS
    batch_size = 1 if one_at_a_time else options.batch_size
    depth = 0 if one_at_a_time else 2 * max(THREADS, batch_size or 1)
    progress = progress_bar(total=len(todo), desc="translating", unit=" images")
    with (
        ThreadPoolExecutor(threads, thread_name_prefix="images") as pool,
        closing(ahead(pool, lambda job: _try_to_prepare(job, size, multiple, value_range), todo, depth)) as decoded,
        progress,
    ):
        writer = Writer(pool, depth)
        batches = same_shaped(_readable(decoded, unreadable, pages, options.strict), batch_size)
        for batch, translated in _translated(translator, batches):
            one_colour += [prepared.job.source for prepared in batch if is_of_one_colour(prepared.pixels)]
            extents.update((prepared.job.source, prepared.extent) for prepared in batch if prepared.extent)
            for prepared, pixels in zip(batch, translated, strict=True):
                writer.write(pixels[: prepared.height, : prepared.width], prepared.job.target)
            progress.update(len(batch))
        writer.wait()
        count = writer.written
        if unreadable and len(unreadable) == len(jobs):
            raise UserError(none_can_be_read(unreadable))
        remarks = [
            *note_on_pages(pages),
            *_values_notes(extents, value_range),
            *([on_one_colour(one_colour)] if one_colour else []),
        ]
        if options.sheet:
            done = [job for job, is_there in looked_up(jobs, []) if is_there]
            with waiting("drawing the contact sheet"):
                sheet = draw_contact_sheet(done, pool, remarks, value_range)
            if sheet is not None:
                writer.write(sheet, options.sheet)
                writer.wait()
    return Summary(
        translated=count,
        existing=len(placed) - len(todo),
        unreadable=unreadable,
        unwritten=[*unwritten, *writer.unwritten],
        remarks=remarks,
        elapsed_s=time.perf_counter() - start,
    )


def _translated(
    translator: Translator, batches: Iterable[list[PreparedImage]]
) -> Iterator[tuple[list[PreparedImage], Pixels]]:
    """Yield batches with their translations [N, H, W, 3], in order.

    A translator that can is given the next batch before it is asked for the result of this one, which is yielded also
    where the next one cannot be had.
    """
    overlapping = translator if isinstance(translator, OverlappingTranslator) else None
    shape: tuple[int, ...] | None = None
    begun: tuple[list[PreparedImage], Callable[[], Pixels]] | None = None
    try:
        for batch in batches:
            if shape != (shape := batch[0].pixels.shape):
                release_free_memory()  # what images of other sizes took
            if overlapping is None:
                yield batch, _result(batch, partial(translator, _stack(batch)))
                continue
            with _explained(batch):
                begun, before = (batch, overlapping.begin(_stack(batch))), begun
            if before:
                yield before[0], _result(*before)
    except Exception:
        if begun:
            yield begun[0], _result(*begun)
        raise
    if begun:
        yield begun[0], _result(*begun)


def _result(batch: list[PreparedImage], finish: Callable[[], Pixels]) -> Pixels:
    with _explained(batch):
        return finish()


@contextmanager
def _explained(batch: list[PreparedImage]) -> Iterator[None]:
    """Name the file whose translation is not finite."""
    try:
        yield
    except NotFinite as error:
        raise UserError(
            f"{batch[error.index].job.source}: the translation is not finite: the network's weights have "
            "diverged, or its precision is too low for this image; give an earlier checkpoint, or leave out "
            "--amp"
        ) from error


def is_of_one_colour(pixels: Pixels) -> bool:
    """Say whether all pixels of [H, W, 3] are the same."""
    return bool((pixels == pixels[0, 0]).all())


def on_one_colour(paths: Sequence[Path]) -> str:
    """Write the remark on images of one colour, whose rounding noise a norm divides by sqrt(eps)."""
    some = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
    subject = "1 image is" if len(paths) == 1 else f"{len(paths)} images are"
    return (
        f"{subject} of one colour ({some}): what a generator makes of that is rounding noise, and differs from one "
        "computer to another"
    )


def _stack(batch: Sequence[PreparedImage]) -> Pixels:
    """Stack images to [N, H, W, 3]; a single one, which may be very large, is not copied."""
    return np.stack([prepared.pixels for prepared in batch]) if len(batch) > 1 else batch[0].pixels[None]


def _values_notes(extents: Mapping[Path, Extent], value_range: ValueRange | None) -> list[str]:
    """Write the remark on the images of more than 8 bits: one for all of them together."""
    if not extents:
        return []
    folder = os.path.commonpath([path.absolute().parent for path in extents])
    note = note_on(merged(extents.values()), folder, value_range)
    return [note] if note else []


def _try_to_prepare(
    job: Job, size: int | None, multiple: int, value_range: ValueRange | None
) -> PreparedImage | UnreadableImage:
    try:
        return prepare_image(job, size, multiple, value_range)
    except UnreadableImage as error:
        return error


def _readable(
    images: Iterable[PreparedImage | UnreadableImage], unreadable: list[str], pages: dict[str, int], strict: bool
) -> Iterator[PreparedImage]:
    """Yield the images that could be decoded; the others' messages are appended to `unreadable`.

    `pages` receives the files of several pages, with their number. Raises UserError with `strict` for either.
    """
    for image in images:
        if isinstance(image, UnreadableImage):
            if strict:
                raise UserError(f"{image} (leave --strict out to skip such files)")
            unreadable.append(str(image))
            continue
        if image.pages > 1:
            pages[str(image.job.source)] = image.pages
            if strict:
                raise UserError(f"{note_on_pages(pages)[0]} (leave --strict out to take that)")
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
