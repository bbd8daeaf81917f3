"""Chooses pictures of a generator's domain: some to measure the ranges of 8-bit types on, others to compare on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cyclegan_fast.config.values import pixels_of_run
from cyclegan_fast.data import sample_photos
from cyclegan_fast.data.preparation import resize
from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.folders import find_images
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted
from export.options import ExportOptions, is_eight_bits

if TYPE_CHECKING:
    from export.source import GeneratorSource

Pictures = Callable[[int, int, int], Pixels]
"""returns pictures by batch, height and width: uint8 [batch, height, width, 3], always the same for one shape"""

CALIBRATED = 64  # ranges change little with more
MOST_COMPARED = 3  # the largest batch of `export.parity.shapes`
FEWEST = 4 * MOST_COMPARED


def photographs(batch: int, height: int, width: int) -> Pixels:
    """Return crops of those embedded photographs that no training sees, uint8 [batch, height, width, 3]."""
    return _corner(sample_photos.make_test(max(height, width), batch).photographs, height, width)


def pictures_for(options: ExportOptions, source: "GeneratorSource") -> tuple[Pictures | None, Pictures]:
    """Return the pictures to calibrate with, or None where the precision needs none, and those to compare with.

    Raises UserError as `of_domain` does.
    """
    if is_eight_bits(options.precision):
        return of_domain(options.calibration, source)
    return None, photographs


def of_domain(folder: Path | None, source: "GeneratorSource", flag: str = "--calibration") -> tuple[Pictures, Pictures]:
    """Return the pictures to calibrate with, and those to compare with; none is in both.

    Args:
        folder: images like those that will be translated, of which every fourth is compared. None for the images
            that the run was trained with in the domain that is translated; its test images are then compared, where
            there are enough.
        source: the generator.
        flag: the command's flag for the folder, for messages.

    Raises UserError where there are too few images, for one that cannot be read, and where there is neither folder nor
    run.
    """
    if folder is not None:
        return _parted(folder)
    data = source.config.get("data")
    if not isinstance(data, dict):
        raise UserError(
            f"{source.checkpoint} does not say what it was trained on: give images like those that will be translated "
            f"as {flag} FOLDER"
        )
    domain: Literal["A", "B"] = "B" if source.direction == "b2a" else "A"
    if data.get("data") is None:
        return _embedded(domain, sample_photos.make_training), _embedded(domain, sample_photos.make_test)
    root = Path(data["data"])
    value_range = pixels_of_run(source.config, str(source.checkpoint)).range_of_deep(domain)
    if not (root / f"train{domain}").is_dir():
        raise UserError(f"the images that it was trained on are no longer in {root}: give others as {flag} FOLDER")
    held_out = find_images(root / f"test{domain}")
    if len(held_out) < MOST_COMPARED:
        return _parted(root / f"train{domain}", value_range)
    return _of_files(_found(root / f"train{domain}", 1), value_range), _of_files(held_out, value_range)


def _embedded(domain: str, make: Callable[[int, int], sample_photos.SamplePhotos]) -> Pictures:
    def pictures(batch: int, height: int, width: int) -> Pixels:
        made = make(max(height, width), batch)
        return _corner(made.drawings if domain == "B" else made.photographs, height, width)

    return pictures


def of_folder(folder: Path) -> Pictures:
    """Return pictures from all images of a folder. Raises UserError where there are too few to compare."""
    return _of_files(_found(folder, MOST_COMPARED))


def _parted(folder: Path, value_range: ValueRange | None = None) -> tuple[Pictures, Pictures]:
    files = _found(folder, FEWEST)
    others = [file for place, file in enumerate(files) if place % 4]
    return _of_files(others, value_range), _of_files(files[::4], value_range)


def _found(folder: Path, fewest: int) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    files = find_images(folder)
    if len(files) < fewest:
        raise UserError(f"{folder} has {counted(len(files), 'image')}, and {fewest} are needed")
    return files


def _of_files(files: Sequence[Path], value_range: ValueRange | None = None) -> Pictures:
    """Return pictures from files all over a list, resized as the training's test images are.

    They are fewer than asked for where the list is shorter. `value_range` is that of
    `cyclegan_fast.images.decoding.decode`.
    """

    def pictures(batch: int, height: int, width: int) -> Pixels:
        chosen = np.linspace(0, len(files) - 1, min(batch, len(files))).astype(int)
        try:
            images = [read_image(files[place], value_range=value_range) for place in chosen]
            return np.stack([np.asarray(resize(image, width, height)) for image in images])
        except UnreadableImage as error:
            raise UserError(str(error)) from error

    return pictures


def _corner(squares: Pixels, height: int, width: int) -> Pixels:
    return np.ascontiguousarray(squares[:, :height, :width])
