"""Translates scenes: rows come from the file, go through the passes of a network, and into a pyramid."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from cyclegan_fast.images.files import none_can_be_read
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pages import note_on_pages
from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.images.pixels import to_pixels
from cyclegan_fast.images.scenes.opening import open_scene
from cyclegan_fast.images.scenes.scene import Scene
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.files import replacing
from cyclegan_fast.translation.batches import not_finite
from cyclegan_fast.translation.plan import ImageOptions, Job
from cyclegan_fast.translation.prepared import Reading, with_missing
from cyclegan_fast.translation.remarks import Remarks
from cyclegan_fast.translation.scenes.empty_pixels import EmptyPixels
from cyclegan_fast.translation.scenes.finding import Masking
from cyclegan_fast.translation.scenes.kept_scratch import (
    PEAK_OF_KEPT,
    KeptScratchFile,
    identity_of,
    paths_of_kept,
    remove_kept,
)
from cyclegan_fast.translation.scenes.pyramid import sizes_of_levels, write_pyramid
from cyclegan_fast.translation.scenes.scene_rows import SceneRows
from cyclegan_fast.translation.strips.passes import StripTranslator
from cyclegan_fast.translation.strips.scratch_file import check_free_space
from cyclegan_fast.translation.summary import Summary
from cyclegan_fast.translation.translator import BatchDoesNotFit, NotFinite
from cyclegan_fast.translation.writing import NotWritten, check_folder, looked_up, writing_explained
from cyclegan_fast.version import __version__


def translate_scenes(
    translator: StripTranslator,
    jobs: Sequence[Job],
    options: ImageOptions,
    multiple: int,
    value_range: ValueRange | None,
    *,
    levels: bool = True,
    masking: Masking = "none",
) -> Summary:
    """Translate every scene whose translation is not there yet, one after another.

    A translation that was ended before continues with the pass that was under way.

    Args:
        multiple: what the sides must be multiples of for the translator.
        value_range: the values of samples of more than 8 bits that become black and white in 8 bits.
        levels: whether translations get a pyramid.
        masking: whether one value is written where a scene is empty, see empty_pixels.py.

    Raises UserError as `translate_images` does: a single scene is left out where the disk has no room for its scratch
    file, or the memory none for its strips.
    """
    start = time.perf_counter()
    unwritten: list[str] = []
    unreadable: list[str] = []
    left_out: list[str] = []
    placed = looked_up(jobs, unwritten)
    todo = [job for job, is_there in placed if options.overwrite or not is_there]
    if todo:
        check_folder(options.out)
    remarks = Remarks(Reading(translator.source, value_range), translator.target)
    on_empty: list[str] = []
    translated = 0
    for job, is_there in placed:
        try:
            with open_scene(job.source) as scene:
                rows = SceneRows(scene, job, translator.source, value_range, multiple)
                identity = _identity(translator, rows, scene, value_range)
                if is_there and not options.overwrite:
                    remove_kept(*paths_of_kept(translator.scratch, identity))  # where the end came just before that
                    continue
                rows.check_values()
                if scene.layout.images > 1:
                    remarks.pages[str(job.source)] = scene.layout.images
                    if options.strict:
                        raise UserError(f"{note_on_pages(remarks.pages)[0]} (leave --strict out to take that)")
                empty = EmptyPixels(scene, translator.target) if masking == "data" else None
                _translate(translator, scene, rows, identity, empty, levels=levels)
            remarks.add(rows)
            on_empty += [f"{job.source}: {line}" for line in (empty.lines() if empty else [])]
            translated += 1
        except UnreadableImage as error:
            if options.strict:
                raise UserError(f"{error} (leave --strict out to skip such files)") from error
            unreadable.append(str(error))
        except NotWritten as error:
            unwritten.append(str(error))
        except BatchDoesNotFit as error:
            if options.strict:
                raise
            left_out.append(f"{job.source}: {error}")
    if unreadable and len(unreadable) == len(jobs):
        raise UserError(none_can_be_read(unreadable))
    return Summary(
        translated=translated,
        existing=len(placed) - len(todo),
        unreadable=unreadable,
        unwritten=unwritten,
        remarks=[*remarks.lines(), *on_empty],
        elapsed_s=time.perf_counter() - start,
        left_out=left_out,
    )


def _translate(
    translator: StripTranslator,
    scene: Scene,
    rows: SceneRows,
    identity: str,
    empty: EmptyPixels | None,
    *,
    levels: bool,
) -> None:
    """Translate one scene, and write the translation. Raises UserError, and UnreadableImage for damage."""
    height, width, _ = rows.shape
    target = rows.job.target
    kept = KeptScratchFile(
        translator.scratch, translator.row_bytes(width), identity, translator.device, translator.dtype
    )
    try:
        _announce(translator, kept, rows, levels=levels)
        with (
            translator.fitting(height, width),
            writing_explained(target),
            replacing(target) as file,
            closing(_samples(translator, rows, kept)) as strips,
        ):
            write_pyramid(
                file,
                strips if empty is None else empty.written(strips),
                (rows.height, rows.width),
                translator.target,
                scene.layout.place,
                translator.scratch,
                levels=levels,
                has_no_data=empty is not None and empty.is_no_data,
            )
    except NotFinite as error:
        kept.remove()
        raise not_finite(rows.job.source) from error
    except BaseException:
        kept.give_up()
        raise
    kept.remove()
    rows.look_at_all()


def _samples(translator: StripTranslator, rows: SceneRows, kept: KeptScratchFile) -> Generator[SampleArray]:
    """Yield the translation of a scene's own pixels, strip by strip, [rows, W, C]."""
    first = 0
    with closing(translator.strips(rows, 0, kept)) as strips:
        for strip in strips:
            samples = to_pixels(strip, translator.target)[0][: rows.height - first, : rows.width]
            if len(samples):
                missing = rows.missing(first, first + len(samples))
                yield with_missing(samples, missing, translator.target)
            first += strip.size(2)


def _announce(translator: StripTranslator, kept: KeptScratchFile, rows: SceneRows, *, levels: bool) -> None:
    """Say what is needed, and what is there already. Raises UserError where the disk does not suffice."""
    height, width, _ = rows.shape
    needed_bytes = PEAK_OF_KEPT * translator.scratch_bytes(height, width) - kept.peak_bytes
    kind = translator.target
    for below_height, below_width in sizes_of_levels((rows.height, rows.width))[1:] if levels else []:
        needed_bytes += below_height * below_width * kind.channels * kind.as_numpy.itemsize
    purpose = f"translating {rows.width}x{rows.height} in strips"
    lines = [check_free_space(translator.scratch, max(needed_bytes, 0), purpose)]
    if kept.skipped:
        lines.append(f"{rows.job.source} continues: {kept.skipped} passes are there from before")
    for line in lines:
        tqdm.write(f"note: {printable(line)}")


def _identity(translator: StripTranslator, rows: SceneRows, scene: Scene, value_range: ValueRange | None) -> str:
    """Return a name for all that the activations of a scene depend on."""
    network = translator.network
    modules: list[nn.Module] = list(network.modules())
    facts = [
        *(scene.path.resolve(), _state_of(scene.path), scene.levels, rows.shape),
        *(translator.source, translator.target, value_range),
        *(translator.device.type, translator.dtype, translator.strip_rows(rows.shape[1])),
        *(torch.__version__, torch.get_num_threads(), __version__),
        [getattr(module, "uses_running_statistics", None) for module in modules],
    ]
    return identity_of(network, facts)


def _state_of(path: Path) -> list[tuple[str, int, int]]:
    """Return the size and time of a file, or of all files of a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [(str(file), state.st_size, state.st_mtime_ns) for file in files for state in [file.stat()]]
