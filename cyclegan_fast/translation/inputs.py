"""Finds the images and videos that a command line names, by files, folders and globs; needs no PyTorch.

images/folders.py searches a single folder, plan.py says where the translations go.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from cyclegan_fast.images.folders import (
    EXTENSIONS,
    OTHER_EXTENSIONS,
    Found,
    Wanted,
    ending_of,
    is_service,
    line_on_closed,
    lines_on_unread,
    search,
)
from cyclegan_fast.images.patterns import WILDCARDS, PatternSearch
from cyclegan_fast.images.scenes.zarr_scene import is_zarr
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.translation.video.finding import VIDEO_ENDINGS

_Item = TypeVar("_Item")

CONTACT_SHEET = "contact_sheet.jpg"
_WANTED = Wanted(EXTENSIONS | VIDEO_ENDINGS)


class Input(NamedTuple):
    """Names an image file, and what it is called below the output folder."""

    source: Path
    name: Path


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
    """Yield every image that the arguments stand for.

    What an earlier translation left in `out` is not an input; `resolve`, `strict` and `notes` are those of `plan`.
    Raises UserError for an argument without any image.
    """
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_file() or is_zarr(path):
            yield Input(path, Path(path.name))
            continue
        if path.is_dir():
            root, found = path, search(path, _WANTED)
        elif set(argument) & WILDCARDS:
            root, found = _expand(path, resolve)
        else:
            raise UserError(f"no file or folder {argument}")
        written = os.path.realpath(out)
        if found.images and is_below(os.path.realpath(root), written):
            raise UserError(f"{argument} lies in the output folder {out}: give another --out")
        images = [
            image for image in found.images if image.name != CONTACT_SHEET and not is_below(resolve(image), written)
        ]
        if not images:
            nothing = f"no images in {argument} or below" if path.is_dir() else f"no image matches {argument}"
            raise UserError("; ".join([nothing, *found.missing]))
        notes.extend(found.told(strict=strict))
        prefix = len(root.parts)
        yield from (Input(image, Path(*image.parts[prefix:])) for image in images)


def is_below(path: str, folder: str) -> bool:
    """Say whether a resolved path is a folder, or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _expand(pattern: Path, resolve: Resolver) -> tuple[Path, Found]:
    """Return the folder in front of a glob's first wildcard, and the images that match or lie in a matching folder."""
    first = _first_wildcard(pattern)
    root = Path(*pattern.parts[:first])
    matching = PatternSearch()
    matches = list(matching.matches(root, pattern.parts[first:]))
    wanted = {*pattern.parts}
    images: dict[str, Path] = {}
    unread: list[str] = []
    notes: list[str] = []
    missing = [line_on_closed(*closed) for closed in matching.closed]
    for match, is_folder in sorted(matches, key=lambda match: (len(match.path.parts), match.path)):
        if any(is_service(part) and part not in wanted for part in match.parts[first:]):
            continue
        if is_folder:
            below = search(match, _WANTED)
            notes, missing = notes + below.notes, missing + below.missing
        else:
            below = Found([match] if ending_of(match.name) in _WANTED.endings else [], [], [])
            unread += [str(match)] if ending_of(match.name) in OTHER_EXTENSIONS else []
        for image in below.images:
            images.setdefault(resolve(image), image)  # "**" follows links round and round: the shortest path counts
    missing += lines_on_unread(unread, f"that {pattern} matches")
    return root, Found(sorted(images.values()), list(dict.fromkeys(notes)), list(dict.fromkeys(missing)))


def _first_wildcard(pattern: Path) -> int:
    """Return the place of the first part with a wildcard; a folder with such a character in its name is none."""
    for index, part in enumerate(pattern.parts):
        if set(part) & WILDCARDS and not Path(*pattern.parts[: index + 1]).exists():
            return index
    raise AssertionError(f"{pattern} exists")


def with_planning_bar(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items, with a progress bar where they take long to come."""
    yield from progress_bar(items, desc="planning", unit=" images", leave=False)
