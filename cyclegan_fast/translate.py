"""`python -m cyclegan_fast.translate`: a trained generator over image files.

Owns reading, batching and writing for any `Translator`: PyTorch's, and the engines of export/run.py, which need no
PyTorch. That is why torch is imported only where it is used; it also keeps --help quick.
"""

if __name__ == "__main__":
    from cyclegan_fast.process import set_up_process

    set_up_process()  # before torch is imported, below

import math
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from cyclegan_fast.command_line import parse_command
from cyclegan_fast.contact_sheet import draw_contact_sheet
from cyclegan_fast.errors import UserError, printable, run_command
from cyclegan_fast.images import UnreadableImage, read_image, write_image
from cyclegan_fast.pixels import Pixels
from cyclegan_fast.prefetch import ahead
from cyclegan_fast.process import release_free_memory
from cyclegan_fast.translation_plan import SIDES, SMALLEST, ImageOptions, Job, plan
from cyclegan_fast.translator import Direction, NotFinite, TorchTranslator, Translator

BARE_WEIGHTS_SIZE = 256
THREADS = min(8, os.cpu_count() or 1)
RUNS = Path("runs")


# --- pixels in and out ---------------------------------------------------------------------------------------------


def pad_sides(pixels: Pixels, multiple: int = SIDES) -> Pixels:
    """[H, W, 3] continued to the right and below by reflection, up to sides that a generator takes."""
    missing = [max(SMALLEST, math.ceil(side / multiple) * multiple) - side for side in pixels.shape[:2]]
    return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect") if any(missing) else pixels


@dataclass(frozen=True)
class Prepared:
    """A decoded image, ready for the network: uint8 [H, W, 3], of which the first `height` x `width` are the image."""

    job: Job
    pixels: Pixels
    height: int
    width: int


def prepare(job: Job, size: int | None, multiple: int = SIDES) -> Prepared:
    """Decode an image, and resize it to a square as test images are, or with None pad it. Raises UnreadableImage."""
    image = read_image(job.source)
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return Prepared(job, pad_sides(np.asarray(image), multiple), height=image.height, width=image.width)


def finish(prepared: Prepared, translated: Pixels) -> None:
    """Write one translation, [H, W, 3]. Raises UserError where the system refuses the file."""
    pixels = translated[: prepared.height, : prepared.width]
    _write(
        pixels, prepared.job.target, "what is written already is whole; the same command continues once this is mended"
    )


def _write(pixels: Pixels, path: Path, advice: str) -> None:
    options = {} if path.suffix.lower() == ".png" else {"quality": 95}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(pixels, path, **options)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise UserError(f"could not write {path}: {reason}; {advice}") from error


# --- the translation -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """What became of the images.

    `unreadable` has a line for each input that could not be read, `remarks` for what is missing on the contact sheet.
    """

    translated: int
    existing: int
    unreadable: list[str]
    remarks: list[str]
    elapsed_s: float

    def __str__(self) -> str:
        line = f"translated {_count(self.translated)} in {self.elapsed_s:.1f} s"
        if self.existing:
            line += f"; kept {_count(self.existing, 'translation')} from before (--overwrite replaces them)"
        if self.unreadable:
            line += f"; skipped {_count(len(self.unreadable), 'unreadable image')} (--strict refuses them)"
        return line


def _count(number: int, noun: str = "image") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def translate_images(
    translator: Translator,
    jobs: Sequence[Job],
    options: ImageOptions,
    size: int | None,
    *,
    multiple: int = SIDES,
    one_at_a_time: bool = False,
) -> Summary:
    """Translate every job whose target is not there yet (with `options.overwrite`, every job), and draw the overview.

    Threads decode ahead and write behind, so that the translator does not wait for either.

    Args:
        translator: called with batches of at most `options.batch_size` images of one shape.
        jobs: from `plan`.
        options: `images`, `size` and `keep_size` are not read here: they are in `jobs` and `size`.
        size: side of the square that images are resized to, or None to keep each image's own.
        multiple: what the sides must be multiples of for the translator, see `pad_sides`.
        one_at_a_time: for images so large that none should be in memory beside the one that is translated: nothing is
            decoded ahead or written behind, and `options.batch_size` is 1.

    Raises UserError where no image can be read, for an unreadable one with `options.strict`, and where a file cannot be
    written. A file appears whole or not at all.
    """
    start = time.perf_counter()
    todo = [job for job in jobs if options.overwrite or not job.target.exists()]
    unreadable: list[str] = []
    writing: deque[Future[None]] = deque()
    threads = 1 if one_at_a_time else THREADS
    batch_size = 1 if one_at_a_time else options.batch_size
    depth = 0 if one_at_a_time else 2 * max(THREADS, batch_size)
    shape: tuple[int, ...] | None = None
    progress = tqdm(total=len(todo), desc="translating", unit="image", disable=None)
    with (
        ThreadPoolExecutor(threads, thread_name_prefix="images") as pool,
        closing(ahead(pool, lambda job: _try_to_prepare(job, size, multiple), todo, depth)) as decoded,
        progress,
    ):
        for batch in same_shaped(_readable(decoded, unreadable, options.strict), batch_size):
            if shape != (shape := batch[0].pixels.shape):
                release_free_memory()  # of images of other sizes
            try:
                translated = translator(_stack(batch))
            except NotFinite as error:
                raise UserError(
                    f"{batch[error.index].job.source}: the translation is not finite: the network's weights have "
                    "diverged, or its precision is too low for this image; give an earlier checkpoint, or leave out "
                    "--amp"
                ) from error
            writing.extend(pool.submit(finish, *pair) for pair in zip(batch, translated, strict=True))
            while len(writing) > depth:
                writing.popleft().result()
            progress.update(len(batch))
        for written in writing:
            written.result()
        if unreadable and len(unreadable) == len(jobs):
            raise UserError(f"none of {_count(len(jobs))} can be read; the first: {unreadable[0]}")
        remarks: list[str] = []
        if options.sheet:
            pairs = [(job.source, job.target) for job in jobs if job.target.exists()]
            sheet = draw_contact_sheet(pairs, pool, remarks)
            if sheet is not None:
                _write(sheet, options.sheet, "the translations themselves are written")
    return Summary(
        translated=len(todo) - len(unreadable),
        existing=len(jobs) - len(todo),
        unreadable=unreadable,
        remarks=remarks,
        elapsed_s=time.perf_counter() - start,
    )


def _stack(batch: Sequence[Prepared]) -> Pixels:
    """[N, H, W, 3]; one image, which may be very large, is not copied."""
    return np.stack([prepared.pixels for prepared in batch]) if len(batch) > 1 else batch[0].pixels[None]


def _try_to_prepare(job: Job, size: int | None, multiple: int) -> Prepared | UnreadableImage:
    try:
        return prepare(job, size, multiple)
    except UnreadableImage as error:
        return error


def _readable(images: Iterable[Prepared | UnreadableImage], unreadable: list[str], strict: bool) -> Iterator[Prepared]:
    """The images that could be decoded; the others' messages are appended to `unreadable`."""
    for image in images:
        if isinstance(image, Prepared):
            yield image
        elif strict:
            raise UserError(f"{image} (leave --strict out to skip such files)")
        else:
            unreadable.append(str(image))


def same_shaped(images: Iterable[Prepared], most: int) -> Iterator[list[Prepared]]:
    """Consecutive images of one shape in groups of at most `most`, in order."""
    group: list[Prepared] = []
    for image in images:
        if group and image.pixels.shape != group[0].pixels.shape:
            yield group
            group = []
        group.append(image)
        if len(group) == most:  # before the next image is decoded
            yield group
            group = []
    if group:
        yield group


# --- the command line ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CommandLine:
    """Translate images with a trained generator.

    The same command continues a translation that was interrupted. Where a folder is searched, the contact sheet of an
    earlier translation is left out.

    Examples:
        python -m cyclegan_fast.translate photos --checkpoint runs/x --direction a2b --out translated
        python -m cyclegan_fast.translate "photos/**/*.jpg" --keep-size --format png --out translated
        python -m cyclegan_fast.translate panorama.jpg --tile --scratch /var/tmp --out translated
    """

    options: Annotated[ImageOptions, tyro.conf.arg(name="")]
    checkpoint: Path | None = None
    """a run's folder or .pt file, latest_net_G.pth of the original, or .safetensors; by default the newest of runs/"""
    direction: Direction = "a2b"
    """a2b makes images like those of trainA into those of trainB, b2a the reverse; bare weights know one way only"""
    device: str = "auto"
    """"auto" is the first CUDA device where there is one and the CPU otherwise; or "cpu", "cuda", "cuda:1" """
    amp: bool = False
    """compute in low precision where that is faster: bfloat16, or float16 on a GPU without it"""
    threads: int | None = None
    """threads that compute on a CPU; by default one for each processor"""
    tile: bool = False
    """translate images of any size in bounded memory: one at a time, in strips without seams, through scratch files;
    at their own size unless --size is given"""
    scratch: Path | None = None
    """folder for the scratch files of --tile, on a disk; by default the system's for temporary files"""

    def size_of(self, config: dict[str, Any], origin: Path, multiple: int) -> int | None:
        """Side of the square that images are resized to, or None for their own; `config` is that of the run."""
        if self.options.keep_size or (self.tile and self.options.size is None):
            return None
        return checked_size(self.options.size, config, origin, multiple)


def newest_run(runs: Path) -> Path:
    """The folder of the run that saved a checkpoint last; raises UserError where there is none."""
    folders = [folder for folder in runs.glob("*/checkpoints") if any(folder.glob("*.pt"))]
    if not folders:
        raise UserError(f"no run with a checkpoint under {runs}: train one, or give --checkpoint FILE")
    return max(folders, key=lambda folder: folder.stat().st_mtime).parent


def trained_size(config: dict[str, Any], origin: Path) -> int:
    """The crop that a run was trained on, from its configuration; 256 for bare weights, which have none."""
    if not config:
        return BARE_WEIGHTS_SIZE
    data = config.get("data")
    size = data.get("crop_size") if isinstance(data, dict) else None
    if not isinstance(size, int) or size < SMALLEST or size % SIDES:
        raise UserError(f"{origin} does not say what size it was trained at (crop_size {size}); give --size")
    return size


def checked_size(asked: int | None, config: dict[str, Any], origin: Path, multiple: int) -> int:
    """The side asked for, or else the one trained on, which for bare weights is rounded up to what they can take.

    Raises UserError where it is no multiple of what the network halves images by.
    """
    size = asked or trained_size(config, origin)
    if asked is None and not config:
        size = math.ceil(size / multiple) * multiple
    if size % multiple:
        raise UserError(
            f"{origin} takes images whose sides are multiples of {multiple}, not {size}: give another --size"
        )
    return size


def translate(command: CommandLine) -> int:
    """Plan, load, translate, and say what happened; returns the exit status."""
    options = command.options
    if command.scratch is not None and not command.tile:
        raise UserError("--scratch is for the scratch files of --tile: give both or neither")
    jobs = plan(options)
    checkpoint = command.checkpoint or newest_run(RUNS)

    from cyclegan_fast.device import choose_device, describe, use_threads, working_dtype
    from cyclegan_fast.trained import load_generator
    from cyclegan_fast.trouble import told_of_translation

    use_threads(command.threads)
    device = choose_device(command.device)
    dtype, remark = working_dtype(device, command.amp, "auto")
    warnings: list[str] = []
    network, config, _ = load_generator(checkpoint, command.direction, warnings)
    size = command.size_of(config, checkpoint, network.multiple)
    print(
        f"{_count(len(jobs))} through {checkpoint} ({command.direction if config else 'bare weights'}) "
        f"at {f'{size}x{size}' if size else 'their own size'}; {describe(device)}, {str(dtype).removeprefix('torch.')}"
    )
    for line in [*warnings, *([remark] if remark else [])]:
        print(f"note: {line}")
    translator: Translator
    if command.tile:
        from cyclegan_fast.networks import ResnetGenerator
        from cyclegan_fast.tiled import TiledTranslator

        if not isinstance(network, ResnetGenerator):
            raise UserError(
                f"--tile goes through ResNet generators only, and {checkpoint} holds a U-Net: leave --tile out"
            )
        translator = TiledTranslator(network, device, dtype, command.scratch or Path(tempfile.gettempdir()))
    else:
        translator = TorchTranslator(network, device, dtype)
    with told_of_translation(command.device):
        summary = translate_images(
            translator, jobs, options, size, multiple=network.multiple, one_at_a_time=command.tile
        )
    report(summary, options.out)
    return 0


def report(summary: Summary, out: Path) -> None:
    for line in summary.unreadable:
        print(f"skipped {printable(line)}", file=sys.stderr)
    for line in summary.remarks:
        print(f"note: {printable(line)}", file=sys.stderr)
    print(f"{summary}: {out}")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(lambda: translate(parse_command(CommandLine, "python -m cyclegan_fast.translate", arguments)))


if __name__ == "__main__":
    sys.exit(main())
