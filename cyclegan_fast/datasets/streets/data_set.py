"""Writes the drawn streets as a data set: photographs in domain A, label maps in Cityscapes' colours in domain B."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclegan_fast.data.layouts import STREETS_MARK, TRAINING_LABELS
from cyclegan_fast.datasets.streets import rendering
from cyclegan_fast.datasets.streets.layout import Seed, make_scene
from cyclegan_fast.images.files import write_image
from cyclegan_fast.images.labels import CLASSES, Labels, colours_of
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.progress import progress_bar

DRAWN = tuple(row for row in CLASSES if row.name not in ("bus", "train", "motorcycle"))
"""The classes that streets here show."""
SMALLEST_STREET = 32
SPLITS = ("trainA", "trainB", "test")


@dataclass(frozen=True, eq=False)
class Street:
    """Holds a street's photograph and label map."""

    photograph: Pixels  # [size, size, 3]
    labels: Labels  # [size, size] of train ids, of DRAWN classes


def make_street(seed: Seed, size: int) -> Street:
    """Draw the street of a seed, `size` pixels high and wide.

    The seed is one or several numbers from 0; `seed_of` gives those of a data set. Another size shows the same street.
    Raises ValueError for a size below 32.
    """
    scene = make_scene(seed)
    view, labels = rendering.see(scene, _checked(size))
    numbers = (seed,) if isinstance(seed, int) else seed
    # The photograph has random numbers of its own: clouds and noise do not depend on how many the layout drew.
    return Street(rendering.photograph(scene, view, np.random.default_rng((*numbers, 1))), labels)


def make_labels(seed: Seed, size: int) -> Labels:
    """Draw the labels of `make_street(seed, size)` alone, without the time that the photograph takes."""
    return rendering.see(make_scene(seed), _checked(size))[1]


def _checked(size: int) -> int:
    if size < SMALLEST_STREET:
        raise ValueError(f"size must be {SMALLEST_STREET} or more, got {size}")
    return size


def seed_of(seed: int, split: str, index: int) -> Seed:
    """Return the seed of the street `index` of trainA, trainB or test (testA and testB)."""
    return seed, SPLITS.index(split), index


@dataclass(frozen=True)
class _Drawing:
    """Names the files that show a street; either may be missing."""

    seed: Seed
    photograph: str | None
    labels: str | None

    @property
    def files(self) -> list[str]:
        return [name for name in (self.photograph, self.labels) if name]

    def draw(self, size: int) -> Iterator[tuple[str, Pixels]]:
        """Yield the files' names and contents."""
        if self.photograph:
            street = make_street(self.seed, size)
            yield self.photograph, street.photograph
            labels = street.labels
        else:
            labels = make_labels(self.seed, size)
        if self.labels:
            yield self.labels, colours_of(labels)


def _drawings(count: int, test_count: int, seed: int) -> list[_Drawing]:
    training, test = (tuple(f"{index:04d}.png" for index in range(number)) for number in (count, test_count))
    return [
        *(
            _Drawing(seed_of(seed, "trainA", index), f"trainA/{name}", f"{TRAINING_LABELS}/{name}")
            for index, name in enumerate(training)
        ),
        *(_Drawing(seed_of(seed, "trainB", index), None, f"trainB/{name}") for index, name in enumerate(training)),
        *(_Drawing(seed_of(seed, "test", index), f"testA/{name}", f"testB/{name}") for index, name in enumerate(test)),
    ]


def write_streets(out: Path, size: int = 128, count: int = 500, test_count: int = 100, seed: int = 0) -> None:
    """Write trainA, trainB, testA, testB and trainA_labels below `out`; files that are there stay as they are.

    Raises UserError for numbers that make no sense, and where `out` holds anything but a part of this very set.
    """
    for name, value, least in (
        ("size", size, SMALLEST_STREET),
        ("count", count, 1),
        ("test-count", test_count, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"--{name} must be {least} or more, got {value}")
    drawings = _drawings(count, test_count, seed)
    _claim(out, {"size": size, "seed": seed}, {name for drawing in drawings for name in drawing.files})
    todo = [drawing for drawing in drawings if not all((out / name).exists() for name in drawing.files)]
    done = len(drawings) - len(todo)
    with progress_bar(desc="drawing streets", unit=" streets", initial=done, total=len(drawings)) as progress:
        for drawing in todo:
            for name, pixels in drawing.draw(size):
                if not (out / name).exists():
                    write_image(pixels, out / name)
            progress.update()


def _claim(out: Path, mark: dict[str, int], names: set[str]) -> None:
    """Make the folders below `out` and mark them; raises UserError where something else is there."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder to write to")
    present = sorted(path for path in out.rglob("*") if path.name[0] != ".") if out.exists() else []
    folders = sorted({str(Path(name).parent) for name in names})
    for path in present:
        if str(path.relative_to(out)) not in {*names, *folders, STREETS_MARK}:
            raise UserError(f"{out} holds {path.relative_to(out)}, which is not of this data set; give another folder")
    if (out / STREETS_MARK).exists():
        found = (out / STREETS_MARK).read_text(errors="replace")
        if found != json.dumps(mark):
            raise UserError(f"{out} holds streets of {found}, not of {json.dumps(mark)}; give another folder")
    elif present:
        raise UserError(f"{out} holds images of unknown origin ({STREETS_MARK} is missing); give another folder")
    out.mkdir(parents=True, exist_ok=True)
    if not (out / STREETS_MARK).exists():  # before anything else, so that a set cut short at any moment is known again
        write_atomically(out / STREETS_MARK, json.dumps(mark).encode())
    for folder in folders:
        (out / folder).mkdir(exist_ok=True)
