"""Which images are translated, and the files that their translations go to; needs no PyTorch."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import tyro
from PIL import Image

from cyclegan_fast.conventions import Direction, wrong_side
from cyclegan_fast.data.layouts import HALVES, is_side_by_side
from cyclegan_fast.images.files import Half
from cyclegan_fast.images.folders import (
    EXTENSIONS,
    OTHER_EXTENSIONS,
    Found,
    ending_of,
    is_service,
    lines_on_unread,
    search,
)
from cyclegan_fast.images.levels import check_range
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import LONGEST_NAME
from cyclegan_fast.system.progress import progress_bar

Item = TypeVar("Item")
Format = Literal["same", "png", "jpeg", "webp"]

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
WRITABLE = frozenset({".png", ".jpg", ".jpeg", ".webp"})
CONTACT_SHEET = "contact_sheet.jpg"
WILDCARDS = frozenset("*?[")
FEW = 10  # images of a folder that tell what the others are like


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
    """side of the square that images are resized to, a multiple of 4; by default every image keeps its own size"""
    keep_size: bool = False
    """keep every image's own size also where an engine takes one size only, and refuse images of another"""
    half: Literal["auto", "left", "right", "whole"] = "auto"
    """what to translate of each image: a half or the whole; "auto" is A's or B's half of pairs that stand side by side
    in one image, where the run was trained on such, and the whole elsewhere"""
    batch_size: int | None = None
    """images translated at once, at most; only images of one size share a batch; by default as many as make half a
    megapixel"""
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
        if wrong := wrong_side("--size", self.size):
            raise ValueError(wrong)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--batch-size must be positive, got {self.batch_size}")
        check_range(self.range)
        if self.contact_sheet is not None and self.no_contact_sheet:
            raise ValueError("--contact-sheet and --no-contact-sheet contradict each other: give one of them")
        if self.contact_sheet is not None and self.contact_sheet.suffix.lower() not in WRITABLE:
            raise ValueError(f"--contact-sheet must end in {', '.join(sorted(WRITABLE))}, got {self.contact_sheet}")

    def square(self, only: int | None = None) -> int | None:
        """The side of the square that images are resized to; None where each keeps its own size, as by default.

        `only` is the one side that the translator takes, where it takes one only.
        """
        return None if self.keep_size else self.size or only

    @property
    def sheet(self) -> Path | None:
        return None if self.no_contact_sheet else self.contact_sheet or self.out / CONTACT_SHEET


@dataclass(frozen=True)
class Job:
    """One image to translate: the file that is read, or one half of it, and the file that is written."""

    source: Path
    target: Path
    half: Half | None = None


class Input(NamedTuple):
    """An image file, and its name below the output folder."""

    source: Path
    name: Path


def plan(options: ImageOptions, notes: list[str] | None = None) -> list[Job]:
    """What is to be translated, in a fixed order; lines on files that are left out are appended to `notes`.

    Raises UserError where an argument gives no image, with `options.strict` where a file is left out that may have been
    meant, and where one file would be written twice, over an input, or under a name that no file system takes.
    """
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file; give a folder")
    resolve = Resolver()
    found = find_inputs(options.images, options.out, resolve, options.strict, [] if notes is None else notes)
    inputs = {resolve(source): Input(source, name) for source, name in _with_bar(found)}
    jobs = _jobs(inputs, options)
    for target in [*jobs, *([options.sheet] if options.sheet else [])]:
        if resolve(target) in inputs:
            raise UserError(f"{target} is an input and would be written over; give another --out or --contact-sheet")
        if len(os.fsencode(target.name)) > LONGEST_NAME:
            raise UserError(
                f"{target} has a longer name than files can have: give another --format, or rename the input"
            )
    if options.sheet and resolve(options.sheet) in map(resolve, jobs):
        raise UserError(
            f"{options.sheet} is a translation already; give another --contact-sheet, or --no-contact-sheet"
        )
    return list(jobs.values())


def _with_bar(items: Iterable[Item]) -> Iterator[Item]:
    """The same, with a bar where they take long to come."""
    yield from progress_bar(items, desc="planning", unit=" images", leave=False)


def _jobs(inputs: Mapping[str, Input], options: ImageOptions) -> dict[Path, Job]:
    """A job for each input, by its target. Raises UserError where two have the same one."""
    targets = {key: options.out / name.with_suffix(_suffix(name, options.format)) for key, (_, name) in inputs.items()}
    times = Counter(targets.values())
    jobs: dict[Path, Job] = {}
    for key, (source, name) in _with_bar(inputs.items()):
        target = targets[key]
        if times[target] > 1 and target.suffix != name.suffix:  # such as a.bmp beside a.png: a.bmp.png
            target = options.out / f"{name}{target.suffix}"
        other = jobs.setdefault(target, Job(source, target))
        if other.source is not source:
            raise UserError(
                f"{other.source} and {source} would both be written to {target}: give the folder that holds both, "
                "whose structure is kept, or translate them with one --out each"
            )
    return jobs


def _suffix(name: Path, format: Format) -> str:
    if format != "same":
        return SUFFIXES[format]
    return name.suffix if name.suffix.lower() in WRITABLE else ".png"


class Resolver:
    """Tells which file a path leads to, whatever links are on the way; asks the system once for each folder."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: Path) -> str:
        folder, name = os.path.split(path)  # strings, which are a tenth of a Path's cost for very many files
        if os.path.islink(path) or name in ("", "..", "."):  # noqa: PTH114
            return os.path.realpath(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def find_inputs(
    arguments: Sequence[str], out: Path, resolve: Resolver, strict: bool, notes: list[str]
) -> Iterator[Input]:
    """Every image that the arguments stand for.

    What an earlier translation left in `out` is not an input; `resolve`, `strict` and `notes` are those of `plan`.
    Raises UserError for an argument without any image.
    """
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_file():
            yield Input(path, Path(path.name))
            continue
        if path.is_dir():
            root, found = path, search(path)
        elif set(argument) & WILDCARDS:
            root, found = _expand(path, resolve)
        else:
            raise UserError(f"no file or folder {argument}")
        written = os.path.realpath(out)
        if found.images and _is_below(os.path.realpath(root), written):
            raise UserError(f"{argument} lies in the output folder {out}: give another --out")
        images = [
            image for image in found.images if image.name != CONTACT_SHEET and not _is_below(resolve(image), written)
        ]
        if not images:
            nothing = f"no images in {argument} or below" if path.is_dir() else f"no image matches {argument}"
            raise UserError("; ".join([nothing, *found.missing]))
        notes.extend(found.told(strict=strict))
        prefix = len(root.parts)
        yield from (Input(image, Path(*image.parts[prefix:])) for image in images)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _expand(pattern: Path, resolve: Resolver) -> tuple[Path, Found]:
    """The folder in front of a glob's first wildcard, and the images that match, or lie in a folder that matches."""
    first = _first_wildcard(pattern)
    root = Path(*pattern.parts[:first])
    escaped = Path(glob.escape(str(root)), *pattern.parts[first:])
    # Not Path.glob: it refuses "**" as part of a name, and matches hidden files, neither of which a shell does.
    matches = [Path(match) for match in glob.glob(str(escaped), recursive=True)]  # noqa: PTH207  # see above
    wanted = {*pattern.parts}
    images: dict[str, Path] = {}
    unread: list[str] = []
    notes: list[str] = []
    missing: list[str] = []
    for match in sorted(matches, key=lambda match: (len(match.parts), match)):
        if any(is_service(part) and part not in wanted for part in match.parts[first:]):
            continue
        if match.is_dir():
            below = search(match)
            notes, missing = notes + below.notes, missing + below.missing
        else:
            below = Found([match] if ending_of(match.name) in EXTENSIONS else [], [], [])
            unread += [str(match)] if ending_of(match.name) in OTHER_EXTENSIONS else []
        for image in below.images:
            images.setdefault(resolve(image), image)  # "**" follows links round and round: the shortest path counts
    missing += lines_on_unread(unread, f"that {pattern} matches")
    return root, Found(sorted(images.values()), list(dict.fromkeys(notes)), list(dict.fromkeys(missing)))


def _first_wildcard(pattern: Path) -> int:
    """The place of the first part with a wildcard; a folder that has such a character in its name is not meant so."""
    for index, part in enumerate(pattern.parts):
        if set(part) & WILDCARDS and not Path(*pattern.parts[: index + 1]).exists():
            return index
    raise AssertionError(f"{pattern} exists")


# --- pairs side by side --------------------------------------------------------------------------------------------


def halved(
    jobs: Sequence[Job], options: ImageOptions, config: Mapping[str, Any], direction: Direction, notes: list[str]
) -> list[Job]:
    """The same jobs, with the half that is translated of images that show a pair side by side.

    Such are those of a data set that a run learned from in that layout, and others that are twice as wide as high, as
    most of its kind are; `options.half` decides otherwise. A line on them is appended to `notes`.

    Args:
        config: of the run, empty for bare weights.
        direction: "a2b" takes left halves, where A is.

    Raises UserError where it cannot be known any more.
    """
    if options.half in ("left", "right"):
        return [replace(job, half=options.half) for job in jobs]
    data, loss = config.get("data"), config.get("loss")
    trained_on = data.get("data") if isinstance(data, dict) else None
    if options.half == "whole" or not isinstance(trained_on, str):
        return [*jobs]
    root = Path(trained_on)
    if not root.is_dir():
        learned_pairs = isinstance(loss, dict) and loss.get("method") == "pix2pix"
        doubtful = next((job.source for job in jobs[:FEW] if is_twice_as_wide(job.source)), None)
        if doubtful is not None and learned_pairs:
            raise UserError(
                f"{doubtful} is twice as wide as high, as pairs side by side are, and the run's data, {root}, are not "
                "there to tell whether it is one: give --half left, right or whole"
            )
        return [*jobs]
    if not is_side_by_side(root):
        return [*jobs]
    half = HALVES["A" if direction == "a2b" else "B"]
    resolve, own = Resolver(), os.path.realpath(root)
    new = [
        replace(job, half=half) if _is_below(resolve(job.source), own) or is_twice_as_wide(job.source) else job
        for job in _with_bar(jobs)
    ]
    count = sum(job.half is not None for job in new)
    if count:
        notes.append(
            f"the run was trained on pairs side by side: of {count} of {len(jobs)} images the {half} half is "
            "translated (--half whole takes whole images)"
        )
    return new


def is_twice_as_wide(path: Path) -> bool:
    """Whether an image is as wide as two squares of its height; not where it cannot be read, which is said later."""
    try:
        with Image.open(path) as image:
            return image.width == 2 * image.height
    except Exception:  # damaged files raise anything
        return False
