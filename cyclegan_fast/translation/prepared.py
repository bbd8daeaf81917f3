"""Prepares an image file for a network: decodes, resizes and pads it; needs no PyTorch.

batches.py prepares the images of a whole translation ahead, and any_image.py those of a Python program.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cyclegan_fast.conventions import SIDE_MULTIPLE, padded_side
from cyclegan_fast.data.file_reading import half_of_samples
from cyclegan_fast.data.preparation import resize, resize_samples
from cyclegan_fast.data.value_facts import ValueFacts
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.files import part_of
from cyclegan_fast.images.formats.recognition import format_of_file
from cyclegan_fast.images.formats.stored import FilePlace
from cyclegan_fast.images.levels import Extent, ValueRange
from cyclegan_fast.images.pages import page_count
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.samples import Axis, Frames, Samples, read_samples
from cyclegan_fast.images.unreadable import reading as explaining
from cyclegan_fast.system.process import available_bytes
from cyclegan_fast.system.shortage import DoesNotFit
from cyclegan_fast.translation.plan import Job

Mask = npt.NDArray[np.bool_]
"""Tells of pixels, [..., H, W], whether any of their samples has no value."""


class Reading(NamedTuple):
    """Says how files are read: as samples of `source`.

    value_range: the values of samples of more than 8 bits that become black and white in 8 bits, see `decode`.
    frames, axis: those of `read_samples`.
    """

    source: PixelType = RGB
    value_range: ValueRange | None = None
    frames: Frames = "first"
    axis: Axis = 2

    @property
    def takes_pictures(self) -> bool:
        """Tells whether pictures are read as `decode` reads them."""
        return self.source.is_rgb and self.frames == "first"

    def samples(self, path: Path) -> Samples:
        """Return the samples of a file; raises UnreadableImage."""
        return read_samples(path, self.source, frames=self.frames, deep_range=self.value_range, axis=self.axis)


DEFAULT_READING = Reading()


@dataclass(frozen=True)
class PreparedFile:
    """Holds a decoded file, ready for the network: samples [S, H, W, C] of S slices, mostly 1.

    The first `height` x `width` of each slice are the image. `pages` counts the pages of its file where the first alone
    is taken; `extent` is that of `Decoded`; `place` is that of `Samples`. `missing`, [S, height, width], tells which
    pixels had no value, NaN, and have the range's low end here; None where all have one. `facts` are those of the
    values of other than 8-bit RGB.
    """

    job: Job
    values: SampleArray
    height: int
    width: int
    pages: int = 1
    extent: Extent | None = None
    place: FilePlace | None = None
    missing: Mask | None = None
    facts: ValueFacts | None = None

    @property
    def is_of_one_colour(self) -> bool:
        """Tells whether all its pixels are the same."""
        return bool((self.values == self.values[0, 0, 0]).all())


@dataclass(frozen=True)
class Slice:
    """Names one of the slices of a prepared image, which is translated as an image of its own."""

    image: PreparedFile
    index: int

    @property
    def source(self) -> Path:
        """Return the file that it is of."""
        return self.image.job.source

    @property
    def pixels(self) -> SampleArray:
        """Return its samples, [H, W, C]."""
        found: SampleArray = self.image.values[self.index]
        return found


def pad_sides(samples: SampleArray, multiple: int = SIDE_MULTIPLE) -> SampleArray:
    """Continue [..., H, W, C] to the right and below by reflection, up to sides that a generator takes."""
    missing = [padded_side(side, multiple) - side for side in samples.shape[-3:-1]]
    before = [(0, 0)] * (samples.ndim - 3)
    return np.pad(samples, (*before, (0, missing[0]), (0, missing[1]), (0, 0)), "reflect") if any(missing) else samples


def check_square_fits(size: int | None, source: PixelType, target: PixelType) -> None:
    """Raise DoesNotFit where the memory does not hold a square image of `size` and its translation."""
    if size is None:
        return
    a_pixel = sum(kind.channels * kind.as_numpy.itemsize for kind in (source, target))
    needed, free = a_pixel * size**2, available_bytes()
    if needed > free:
        raise DoesNotFit(
            f"an image of {size}x{size} and its translation take {needed / 2**30:.3g} GiB, and {free / 2**30:.1f} GiB "
            "of memory are free: give a smaller --size"
        )


def prepare_image(
    job: Job, size: int | None, multiple: int = SIDE_MULTIPLE, reading: Reading = DEFAULT_READING
) -> PreparedFile:
    """Decode an image, and resize it to a square as test images are, or with None pad it. Raises UnreadableImage."""
    pages, source = page_count(job.source) if reading.frames == "first" else 1, reading.source
    if reading.takes_pictures and is_picture(job.source):
        return _prepared_picture(job, size, multiple, reading.value_range, pages)
    samples = reading.samples(job.source)
    values, place = samples.values, samples.place
    if job.half is not None:
        with explaining(job.source):
            values, place = np.stack([half_of_samples(one, job.half) for one in values]), None  # that of the whole
    facts = None if source.is_rgb else ValueFacts.of(values, source)
    values, missing = fill_missing(values, source)
    if size is not None and values.shape[1:3] != (size, size):
        values, place = np.stack([resize_samples(one, size, size) for one in values]), None
        missing = None if missing is None else resized_mask(missing, size, size)
    height, width = values.shape[1:3]
    return PreparedFile(job, pad_sides(values, multiple), height, width, pages, samples.extent, place, missing, facts)


def is_picture(path: Path) -> bool:
    """Tell whether Pillow decodes a file, whatever it holds, and it has no place to keep; raises UnreadableImage."""
    with explaining(path):
        return format_of_file(path) == "picture"


def _prepared_picture(
    job: Job, size: int | None, multiple: int, value_range: ValueRange | None, pages: int
) -> PreparedFile:
    decoded = decode(job.source, value_range)
    if size is None and job.half is None:
        pixels = decoded.pixels
    else:
        image = part_of(decoded.image, job.half, job.source)
        pixels = np.asarray(image if size is None else resize(image, size, size))
    height, width = pixels.shape[:2]
    return PreparedFile(job, pad_sides(pixels, multiple)[None], height, width, pages, decoded.extent)


# --- pixels without a value ------------------------------------------------------------------------------------------


def fill_missing(samples: SampleArray, source: PixelType) -> tuple[SampleArray, Mask | None]:
    """Return samples [..., H, W, C] with the range's low end in place of NaN, and the pixels where that is."""
    if samples.dtype.kind != "f":
        return samples, None
    absent = np.isnan(samples)
    if not absent.any():
        return samples, None
    missing: Mask = np.asarray(absent.any(-1))
    return np.where(absent, samples.dtype.type(source.low), samples), missing


def with_missing(samples: SampleArray, missing: Mask | None, target: PixelType) -> SampleArray:
    """Return samples [..., H, W, C] of `target` with NaN where pixels are missing; whole numbers stay as they are."""
    if missing is None or target.dtype != "float32":
        return samples
    return np.where(missing[..., None], np.float32(np.nan), samples)


def resized_mask(missing: Mask, width: int, height: int) -> Mask:
    """Return a mask [S, H, W] at width x height pixels: each is as the nearest one of before."""
    across, down = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
        for new, old in ((width, missing.shape[2]), (height, missing.shape[1]))
    )
    resized: Mask = missing[:, down][:, :, across]
    return resized
