"""Plans a translation: which images are translated, and to which files their translations go; needs no PyTorch.

inputs.py finds the images, and halves.py says which part of one is translated.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan_fast.images.files import Half
from cyclegan_fast.images.folders import ending_of
from cyclegan_fast.images.formats.recognition import TIFF_ENDINGS
from cyclegan_fast.images.levels import Level, check_range
from cyclegan_fast.images.pixel_type import RGB, PixelType
from cyclegan_fast.images.samples import Frames, describe_file, ending_for
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import BatchSize, Range, TranslatedSide, check_fields
from cyclegan_fast.translation.inputs import CONTACT_SHEET, Input, Resolver, find_inputs, with_planning_bar
from cyclegan_fast.translation.video.finding import is_video, video_ending
from cyclegan_fast.translation.video.options import VideoOptions

ImageFormat = Literal["same", "png", "jpeg", "webp", "tiff", "npy"]

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif", "npy": ".npy"}
WRITABLE = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""The endings of pictures, which hold one 8-bit image each; PNG holds 16 bits, too."""


@dataclass(frozen=True)
class ImageOptions:
    """Says which images are translated, how they are prepared, and where the translations go."""

    images: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGES...", help_behavior_hint="(required)")
    ]
    """files, folders (with their subfolders) or quoted globs such as "photos/**/*.jpg", of images and videos; folder
    structure is kept"""
    out: Path
    """folder for the translations, each with its image's name; what it holds already is kept, see --overwrite"""
    format: ImageFormat = "same"
    """format to write; "same" follows each image where its format holds the translation, and is PNG, or else TIFF,
    elsewhere"""
    size: TranslatedSide | None = None
    """side of the square that images are resized to, a multiple of 4, 65536 at most; by default every image keeps its
    own size"""
    keep_size: bool = False
    """keep every image's own size also where an engine takes one size only, and refuse images of another"""
    half: Literal["auto", "left", "right", "whole"] = "auto"
    """what to translate of each image: a half or the whole; "auto" is A's or B's half of pairs that stand side by side
    in one image, where the run was trained on such, and the whole elsewhere"""
    batch_size: BatchSize | None = None
    """images translated at once, at most; only images of one size share a batch; by default as many as make half a
    megapixel, and where the memory does not hold these, one by one"""
    range: tuple[Level, ...] = ()
    """the values of images of more than 8 bits that become black and white, or -1 and 1, such as 0 4095 of 12 bits in
    16; by default those that a run was trained with, or else the least and the greatest that a file can hold"""
    frames: Frames | None = None
    """what the pages of a TIFF and the slices of a volume are: all but the "first" are left out, or they are the
    "channels" of one image, or "slices" that are translated one by one and written as one file; by default as the run
    was trained, also of exported files; bare weights do not say it: the first"""
    axis: Annotated[int, Range(0, 2)] | None = None
    """the axis of a volume that its slices are across: 0 gives sagittal, 1 coronal and 2 axial ones; by default as the
    run was trained, or 2 of bare weights"""
    overwrite: bool = False
    """translate images again whose translation is there already"""
    strict: bool = False
    """stop at the first image or folder that cannot be read, instead of leaving it out with a note; and at one that
    does not fit the memory or the engine"""
    contact_sheet: Path | None = None
    """file for an overview of inputs beside translations; by default contact_sheet.jpg in the folder of --out"""
    no_contact_sheet: bool = False
    """write no such overview"""
    video: Annotated[VideoOptions, tyro.conf.arg(name="")] = field(default_factory=VideoOptions)

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        if not self.images:
            raise ValueError("no images given: name files, folders or quoted globs")
        if self.size is not None and self.keep_size:
            raise ValueError("--size and --keep-size contradict each other: give one of them")
        check_range(self.range)
        if self.contact_sheet is not None and self.no_contact_sheet:
            raise ValueError("--contact-sheet and --no-contact-sheet contradict each other: give one of them")
        if self.contact_sheet is not None and self.contact_sheet.suffix.lower() not in WRITABLE:
            raise ValueError(f"--contact-sheet must end in {', '.join(sorted(WRITABLE))}, got {self.contact_sheet}")

    def square(self, only: int | None = None) -> int | None:
        """Return the side of the square that images are resized to; None where each keeps its own, as by default.

        `only` is the one side that the translator takes, where it takes one only.
        """
        return None if self.keep_size else self.size or only

    @property
    def sheet(self) -> Path | None:
        """Return the file of the contact sheet; None where none is wanted."""
        return None if self.no_contact_sheet else self.contact_sheet or self.out / CONTACT_SHEET


@dataclass(frozen=True)
class Job:
    """Names one image to translate: the file that is read, or one half of it, and the file that is written.

    `name` is what the source is called below the folder that was given.
    """

    source: Path
    target: Path
    half: Half | None = None
    name: Path = Path()


def plan(options: ImageOptions, notes: list[str] | None = None) -> list[Job]:
    """Return what is to be translated, in a fixed order; lines on files that are left out are appended to `notes`.

    Raises UserError where an argument gives no image, with `options.strict` where a file is left out that may have been
    meant, and where one file would be written twice, or over an input. A name may be one that the system does not take.
    The files that are written are those of 8-bit RGB, see `planned_for`.
    """
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file; give a folder")
    resolve = Resolver()
    found = find_inputs(options.images, options.out, resolve, options.strict, [] if notes is None else notes)
    inputs = {resolve(source): Input(source, name) for source, name in with_planning_bar(found)}
    return _checked_jobs(inputs, options, resolve, RGB)


def planned_for(
    jobs: Sequence[Job], options: ImageOptions, target: PixelType, scenes: Set[Path] = frozenset()
) -> list[Job]:
    """Return jobs of `plan` with the files that translations of another type of pixels are written to.

    Those of the sources that are `scenes` are TIFF.

    Raises UserError as `plan` does, and where the format that was asked for does not hold such pixels.
    """
    check_format(options, target)
    in_tiff = {job.source for job in jobs if job.source in scenes or (target.is_rgb and _is_georeferenced(job.source))}
    if target.is_rgb and options.frames != "slices" and not in_tiff:
        return [*jobs]
    resolve = Resolver()
    inputs = {resolve(job.source): Input(job.source, job.name) for job in jobs}
    halves = {job.source: job.half for job in jobs}
    made = _checked_jobs(inputs, options, resolve, target, in_tiff)
    return [replace(job, half=halves[job.source]) for job in made]


def fits_pictures(kind: PixelType) -> bool:
    """Tell whether any picture's format holds samples of a type."""
    return kind.dtype == "uint8" and kind.channels in (1, RGB.channels)


def check_format(options: ImageOptions, target: PixelType) -> None:
    """Raise UserError where the format that was asked for does not hold translations of a type."""
    ending = SUFFIXES.get(options.format)
    if ending not in WRITABLE:
        return
    if options.frames == "slices":
        raise UserError(f"--format {options.format} holds one image, and --frames slices gives several: --format tiff")
    if not fits_pictures(target) and (ending != ".png" or ending_for(target, ending) != ending):
        raise UserError(
            f"--format {options.format} does not hold what is translated to ({target}): give --format tiff, or npy"
        )


def _checked_jobs(
    inputs: Mapping[str, Input],
    options: ImageOptions,
    resolve: Resolver,
    target: PixelType,
    in_tiff: Set[Path] = frozenset(),
) -> list[Job]:
    """Return jobs; what is `in_tiff` is written in that format, which keeps its place and has levels.

    Raises UserError as `plan` does.
    """
    jobs = _jobs(inputs, options, target, in_tiff)
    for path in [*jobs, *([options.sheet] if options.sheet else [])]:
        if resolve(path) in inputs:
            raise UserError(f"{path} is an input and would be written over; give another --out or --contact-sheet")
    if options.sheet and resolve(options.sheet) in map(resolve, jobs):
        raise UserError(
            f"{options.sheet} is a translation already; give another --contact-sheet, or --no-contact-sheet"
        )
    return list(jobs.values())


def _jobs(inputs: Mapping[str, Input], options: ImageOptions, target: PixelType, in_tiff: Set[Path]) -> dict[Path, Job]:
    """Return a job for each input, by its target; raises UserError where two inputs have one name."""
    jobs: dict[Path, Job] = {}
    names = _names(inputs, options, target, in_tiff)
    for source, name in with_planning_bar(inputs.values()):
        written = options.out / names[name]
        other = jobs.setdefault(written, Job(source, written, name=name))
        if other.source is not source:
            raise UserError(
                f"{other.source} and {source} would both be written to {written}: give the folder that holds both, "
                "whose structure is kept, or translate them with one --out each"
            )
    return jobs


def _names(
    inputs: Mapping[str, Input], options: ImageOptions, target: PixelType, in_tiff: Set[Path]
) -> dict[Path, Path]:
    """Return what each input's translation is called, by the input's name: no two inputs have the same.

    Where several images differ only by their suffix, those that get another one keep both: beside a.png, a.bmp becomes
    a.bmp.png. Where there is an image of that name, too, the suffix is added once more.
    """
    endings = {
        name: video_ending(source, options.video)
        if is_video(source)
        else _ending(name, options, target, source in in_tiff)
        for source, name in inputs.values()
    }
    wanted = {name: _with_ending(name, ending) for name, ending in endings.items()}
    times = Counter(wanted.values())
    names = {name: new for name, new in wanted.items() if times[new] == 1 or new == name}
    taken = {*names.values()}
    for name in sorted(wanted.keys() - names.keys()):
        new = name
        while new == name or new in taken:
            new = new.with_name(f"{new.name}{endings[name]}")
        names[name] = new
        taken.add(new)
    return names


def _ending(name: Path, options: ImageOptions, target: PixelType, is_in_tiff: bool) -> str:
    """Return the ending of a translation's name: that of its input where its format holds what is written."""
    if options.format != "same":
        return SUFFIXES[options.format]
    own = whole_ending(name)
    ending = ending_for(target, own, frames=options.frames or "first", is_georeferenced=is_in_tiff)
    return own if own.lower() == ending else ending


def whole_ending(name: Path) -> str:
    """Return the ending of a file's name as it is written, such as ".PNG", and that of compressed ones, ".nii.gz"."""
    return name.name[len(name.name) - len(ending_of(name.name)) :]


def _is_georeferenced(path: Path) -> bool:
    """Tell whether a file says where on the Earth it lies; False where it cannot be read, which is reported later."""
    if ending_of(path.name) not in TIFF_ENDINGS:
        return False
    try:
        return describe_file(path).is_georeferenced
    except UnreadableImage:
        return False


def _with_ending(name: Path, ending: str) -> Path:
    return name.with_name(name.name.removesuffix(whole_ending(name)) + ending)
