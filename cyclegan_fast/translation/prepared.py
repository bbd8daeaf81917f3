"""Prepares an image file for a network: decodes, resizes and pads it; needs no PyTorch.

batches.py prepares the images of a whole translation ahead, and any_image.py those of a Python program.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cyclegan_fast.conventions import SIDE_MULTIPLE, padded_side
from cyclegan_fast.data.preparation import resize, resize_samples
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.files import middle_of, part_of
from cyclegan_fast.images.formats.recognition import format_of
from cyclegan_fast.images.formats.stored import Place
from cyclegan_fast.images.levels import Extent, ValueRange
from cyclegan_fast.images.pages import page_count
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.samples import Axis, Frames, Samples, read_samples
from cyclegan_fast.images.unreadable import reading as explaining
from cyclegan_fast.system.process import available_bytes
from cyclegan_fast.system.shortage import DoesNotFit
from cyclegan_fast.translation.plan import Job
from cyclegan_fast.translation.unmapped import Mask, resized_mask, share_beyond, without_missing


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
class PreparedImage:
    """Holds a decoded file, ready for the network: samples [S, H, W, C] of S slices, mostly 1.

    The first `height` x `width` of each slice are the image. `pages` counts the pages of its file where the first alone
    is taken; `extent` is that of `Decoded`; `place` is that of `Samples`. `missing`, [S, height, width], tells which
    pixels had no value, NaN, and have the range's low end here; None where all have one. `beyond` is the share of
    samples that lie beyond the range.
    """

    job: Job
    values: SampleArray
    height: int
    width: int
    pages: int = 1
    extent: Extent | None = None
    place: Place | None = None
    missing: Mask | None = None
    beyond: float = 0.0

    @property
    def is_of_one_colour(self) -> bool:
        """Tells whether all its pixels are the same."""
        return bool((self.values == self.values[0, 0, 0]).all())


@dataclass(frozen=True)
class Slice:
    """Names one of the slices of a prepared image, which is translated as an image of its own."""

    image: PreparedImage
    index: int

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
) -> PreparedImage:
    """Decode an image, and resize it to a square as test images are, or with None pad it. Raises UnreadableImage."""
    pages, source = page_count(job.source) if reading.frames == "first" else 1, reading.source
    if reading.takes_pictures and is_picture(job.source):
        return _prepared_picture(job, size, multiple, reading.value_range, pages)
    samples = reading.samples(job.source)
    place = samples.place
    beyond = share_beyond(samples.values, source)
    values, missing = without_missing(samples.values, source)
    if job.half is not None:
        values, missing = _half(values, job), None if missing is None else _half(missing[..., None], job)[..., 0]
        place = None  # that of the whole image
    if size is not None and values.shape[1:3] != (size, size):
        values, place = np.stack([_square(one, size, source) for one in values]), None
        missing = None if missing is None else resized_mask(missing, size, size)
    height, width = values.shape[1:3]
    return PreparedImage(job, pad_sides(values, multiple), height, width, pages, samples.extent, place, missing, beyond)


def is_picture(path: Path) -> bool:
    """Tell whether Pillow decodes a file, whatever it holds, and it has no place to keep; raises UnreadableImage."""
    with explaining(path):
        return format_of(path) == "picture"


def _prepared_picture(
    job: Job, size: int | None, multiple: int, value_range: ValueRange | None, pages: int
) -> PreparedImage:
    decoded = decode(job.source, value_range)
    if size is None and job.half is None:
        pixels = decoded.pixels
    else:
        image = part_of(decoded.image, job.half, job.source)
        pixels = np.asarray(image if size is None else resize(image, size, size))
    height, width = pixels.shape[:2]
    return PreparedImage(job, pad_sides(pixels, multiple)[None], height, width, pages, decoded.extent)


def _square(values: SampleArray, size: int, source: PixelType) -> SampleArray:
    """Return one slice [H, W, C] resized to a square, as test images are."""
    if source.is_rgb:
        return np.asarray(resize(Image.fromarray(values), size, size))
    return resize_samples(values, size, size)


def _half(values: SampleArray, job: Job) -> SampleArray:
    """Return the half of [S, H, W, C] that a job names; raises UnreadableImage where the width is odd."""
    assert job.half is not None
    with explaining(job.source):
        middle = middle_of(values.shape[2])
    return values[:, :, :middle] if job.half == "left" else values[:, :, middle:]
