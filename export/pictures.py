"""Chooses pictures of a generator's domain: some to measure the ranges of 8-bit types on, others to compare on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cyclegan_fast.config.values import pixels_of_run
from cyclegan_fast.data import sample_photos
from cyclegan_fast.data.preparation import resize_samples
from cyclegan_fast.images.folders import find_images
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import Pixels, to_pixels_array
from cyclegan_fast.images.samples import Axis, Frames, read_samples
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted
from export.options import ExportOptions, is_eight_bits

if TYPE_CHECKING:
    from export.source import GeneratorSource

Pictures = Callable[[int, int, int], SampleArray]
"""returns pictures by batch, height and width: [batch, height, width, C] of the type that the generator takes, always
the same for one shape"""

PictureReader = Callable[[Path, int, int], SampleArray]
"""reads an image of a file, resized to a width and a height: [height, width, C]; raises UnreadableImage"""

CALIBRATED = 64  # ranges change little with more
MOST_COMPARED = 3  # the largest batch of `export.parity.shapes`
FEWEST = 4 * MOST_COMPARED


def photographs(batch: int, height: int, width: int) -> Pixels:
    """Return crops of those embedded photographs that no training sees, uint8 [batch, height, width, 3]."""
    return _corner(sample_photos.make_test(max(height, width), batch).photographs, height, width)


def photographs_as(kind: PixelType) -> Pictures:
    """Return the pictures of `photographs` as images of another type, whose range they fill.

    A single channel is their mean; of several, each takes red, green or blue in turn, and every second three of them
    upside down. Each pixel is the mean of four, so that there are values between the levels of 8 bits.
    """
    if kind.is_rgb:
        return photographs

    def pictures(batch: int, height: int, width: int) -> SampleArray:
        halves = photographs(batch, 2 * height, 2 * width).astype(np.float32) / 127.5 - 1
        colours = halves.reshape(batch, height, 2, width, 2, 3).mean((2, 4), dtype=np.float32)
        if kind.channels == 1:
            images = colours.mean(3, keepdims=True)
        else:
            ways = [colours[:, :: -1 if channel // 3 % 2 else 1, :, channel % 3] for channel in range(kind.channels)]
            images = np.stack(ways, 3)
        return to_pixels_array(np.moveaxis(images, 3, 1), kind)

    return pictures


def pictures_for(options: ExportOptions, source: "GeneratorSource") -> tuple[Pictures | None, Pictures]:
    """Return the pictures to calibrate with, or None where the precision needs none, and those to compare with.

    Raises UserError as `of_domain` does.
    """
    if is_eight_bits(options.precision):
        return of_domain(options.calibration, source)
    return None, compared_with(source)


def compared_with(source: "GeneratorSource") -> Pictures:
    """Return the pictures to compare a generator on: photographs, or of other types than 8-bit RGB those of its run.

    Where these are not there, or are too few, it is photographs made to that type.
    """
    kind, root, domain = source.ends.source, _root_of(source), _domain_of(source)
    if kind.is_rgb or root is None:
        return photographs_as(kind)
    for folder in (root / f"test{domain}", root / f"train{domain}"):
        if len(files := find_images(folder)) >= MOST_COMPARED:
            return _of_files(files, _reader_of_run(source))
    return photographs_as(kind)


def _reader(
    kind: PixelType, deep_range: ValueRange | None = None, frames: Frames = "first", axis: Axis = 2
) -> PictureReader:
    """Return what reads images of a domain, with arguments of `read_samples`: of several slices the middle one.

    Images are resized as the training's test images are. What has no value, NaN, is the range's low end.
    """

    def read(file: Path, width: int, height: int) -> SampleArray:
        values = read_samples(file, kind, frames=frames, deep_range=deep_range, axis=axis).values
        image = values[len(values) // 2]
        return resize_samples(np.nan_to_num(image, nan=kind.low) if image.dtype.kind == "f" else image, width, height)

    return read


def _reader_of_run(source: "GeneratorSource") -> PictureReader:
    """Return what reads images as the run of a generator does."""
    options, domain = pixels_of_run(source.config, str(source.checkpoint)), _domain_of(source)
    return _reader(source.ends.source, options.range_of_deep(domain), options.frames, options.slice_axis)


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
        return _parted(folder, _reader(source.ends.source))
    data = source.config.get("data")
    if not isinstance(data, dict):
        raise UserError(
            f"{source.checkpoint} does not say what it was trained on: give images like those that will be translated "
            f"as {flag} FOLDER"
        )
    domain, read = _domain_of(source), _reader_of_run(source)
    if data.get("data") is None and source.ends.source.is_rgb:
        return _embedded(domain, sample_photos.make_training), _embedded(domain, sample_photos.make_test)
    root = _root_of(source)
    if root is None or not (root / f"train{domain}").is_dir():
        raise UserError(f"the images that it was trained on are no longer in {root}: give others as {flag} FOLDER")
    held_out = find_images(root / f"test{domain}")
    if len(held_out) < MOST_COMPARED:
        return _parted(root / f"train{domain}", read)
    return _of_files(_found(root / f"train{domain}", 1), read), _of_files(held_out, read)


def _domain_of(source: "GeneratorSource") -> Literal["A", "B"]:
    return "B" if source.direction == "b2a" else "A"


def _root_of(source: "GeneratorSource") -> Path | None:
    """Return the folder that a run was trained on; None for embedded photographs and bare weights."""
    data = source.config.get("data")
    return Path(data["data"]) if isinstance(data, dict) and data.get("data") is not None else None


def _embedded(domain: str, make: Callable[[int, int], sample_photos.SamplePhotos]) -> Pictures:
    def pictures(batch: int, height: int, width: int) -> Pixels:
        made = make(max(height, width), batch)
        return _corner(made.drawings if domain == "B" else made.photographs, height, width)

    return pictures


def of_folder(folder: Path, kind: PixelType = RGB) -> Pictures:
    """Return pictures from all images of a folder. Raises UserError where there are too few to compare."""
    return _of_files(_found(folder, MOST_COMPARED), _reader(kind))


def _parted(folder: Path, read: PictureReader) -> tuple[Pictures, Pictures]:
    files = _found(folder, FEWEST)
    others = [file for place, file in enumerate(files) if place % 4]
    return _of_files(others, read), _of_files(files[::4], read)


def _found(folder: Path, fewest: int) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    files = find_images(folder)
    if len(files) < fewest:
        raise UserError(f"{folder} has {counted(len(files), 'image')}, and {fewest} are needed")
    return files


def _of_files(files: Sequence[Path], read: PictureReader) -> Pictures:
    """Return pictures from files all over a list; they are fewer than asked for where the list is shorter."""

    def pictures(batch: int, height: int, width: int) -> SampleArray:
        chosen = np.linspace(0, len(files) - 1, min(batch, len(files))).astype(int)
        try:
            return np.stack([read(files[place], width, height) for place in chosen])
        except UnreadableImage as error:
            raise UserError(str(error)) from error

    return pictures


def _corner(squares: Pixels, height: int, width: int) -> Pixels:
    return np.ascontiguousarray(squares[:, :height, :width])
