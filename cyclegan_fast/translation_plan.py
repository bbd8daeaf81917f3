"""Which images are translated, and the files that their translations go to; needs no PyTorch."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan_fast.errors import UserError
from cyclegan_fast.images import EXTENSIONS, find_images
from cyclegan_fast.levels import check_range

Format = Literal["same", "png", "jpeg", "webp"]

SIDES = 4  # an image's sides must be multiples of this; a U-Net's of more
SMALLEST = 8  # two halvings must leave what a residual block can pad by reflection
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
WRITABLE = frozenset({".png", ".jpg", ".jpeg", ".webp"})
CONTACT_SHEET = "contact_sheet.jpg"


@dataclass(frozen=True)
class ImageOptions:
    """Which images are translated, how they are prepared, and where the translations go."""

    images: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGES...", help_behavior_hint="(required)")
    ]
    """files, folders (with their subfolders) or quoted globs such as "photos/**/*.jpg"; folder structure is kept"""
    out: Path
    """folder for the translations, each with its image's name; what it holds already is kept, see --overwrite"""
    format: Format = "same"
    """format to write; "same" follows each image where it is PNG, JPEG or WebP, and is PNG elsewhere"""
    size: int | None = None
    """side of the square that images are resized to, a multiple of 4; by default what the network was trained with"""
    keep_size: bool = False
    """translate every image at its own size instead"""
    batch_size: int = 4
    """images translated at once, at most; only images of one size share a batch"""
    range: tuple[float, ...] = ()
    """the values of images of more than 8 bits that become black and white, such as 0 4095 of 12 bits in 16; by default
    those that a run was trained with, or else the least and the greatest that a file can hold"""
    overwrite: bool = False
    """translate images again whose translation is there already"""
    strict: bool = False
    """stop at the first image that cannot be read, instead of leaving it out"""
    contact_sheet: Path | None = None
    """file for an overview of inputs beside translations; by default contact_sheet.jpg in the folder of --out"""
    no_contact_sheet: bool = False
    """write no such overview"""

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("no images given: name files, folders or quoted globs")
        if self.size is not None and self.keep_size:
            raise ValueError("--size and --keep-size contradict each other: give one of them")
        if self.size is not None and (self.size < SMALLEST or self.size % SIDES):
            raise ValueError(f"--size must be a multiple of {SIDES}, at least {SMALLEST}, got {self.size}")
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be positive, got {self.batch_size}")
        check_range(self.range)
        if self.contact_sheet is not None and self.no_contact_sheet:
            raise ValueError("--contact-sheet and --no-contact-sheet contradict each other: give one of them")
        if self.contact_sheet is not None and self.contact_sheet.suffix.lower() not in WRITABLE:
            raise ValueError(f"--contact-sheet must end in {', '.join(sorted(WRITABLE))}, got {self.contact_sheet}")

    @property
    def sheet(self) -> Path | None:
        return None if self.no_contact_sheet else self.contact_sheet or self.out / CONTACT_SHEET


@dataclass(frozen=True)
class Job:
    """One image to translate: the file that is read and the file that is written."""

    source: Path
    target: Path


def plan(options: ImageOptions) -> list[Job]:
    """What is to be translated, in a fixed order.

    Raises UserError where an argument gives no image, or where one file would be written twice or over an input.
    """
    jobs: dict[Path, Job] = {}
    for source, name in find_inputs(options.images, options.out):
        target = options.out / name.with_suffix(_suffix(name, options.format))
        other = jobs.setdefault(target, Job(source, target))
        if other.source.resolve() != source.resolve():
            raise UserError(
                f"{other.source} and {source} would both be written to {target}: give the folder that holds both, "
                "whose structure is kept, or translate them with one --out each"
            )
    inputs = {job.source.resolve() for job in jobs.values()}
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file; give a folder")
    for target in [*jobs, *([options.sheet] if options.sheet else [])]:
        if target.resolve() in inputs:
            raise UserError(f"{target} is an input and would be written over; give another --out or --contact-sheet")
    if options.sheet and options.sheet.resolve() in {target.resolve() for target in jobs}:
        raise UserError(
            f"{options.sheet} is a translation already; give another --contact-sheet, or --no-contact-sheet"
        )
    return list(jobs.values())


def _suffix(name: Path, format: Format) -> str:
    if format != "same":
        return SUFFIXES[format]
    return name.suffix if name.suffix.lower() in WRITABLE else ".png"


def find_inputs(arguments: Sequence[str], out: Path) -> Iterator[tuple[Path, Path]]:
    """(file, its name below the output folder) of every image that the arguments stand for.

    What an earlier translation left in `out` is not an input. Raises UserError for an argument without any image.
    """
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_file():
            yield path, Path(path.name)
            continue
        if path.is_dir():
            root, candidates = path, find_images(path)
        elif set(argument) & set("*?["):
            root, candidates = _expand(path)
        else:
            raise UserError(f"no file or folder {argument}")
        if root.resolve().is_relative_to(out.resolve()) and candidates:
            raise UserError(f"{argument} lies in the output folder {out}: give another --out")
        found = [p for p in candidates if p.name != CONTACT_SHEET and not p.resolve().is_relative_to(out.resolve())]
        if not found:
            raise UserError(f"no images in {argument} or below" if path.is_dir() else f"no image matches {argument}")
        yield from ((image, image.relative_to(root)) for image in found)


def _expand(pattern: Path) -> tuple[Path, list[Path]]:
    """The folder in front of a glob's first wildcard, and the images that match, or lie in a folder that matches."""
    first = next(index for index, part in enumerate(pattern.parts) if set(part) & set("*?["))
    # Not Path.glob: it refuses "**" as part of a name, and matches hidden files, neither of which a shell does.
    matches = [Path(match) for match in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207  # see above
    images = {image for match in matches for image in (find_images(match) if match.is_dir() else [match])}
    return Path(*pattern.parts[:first]), sorted(image for image in images if image.suffix.lower() in EXTENSIONS)
