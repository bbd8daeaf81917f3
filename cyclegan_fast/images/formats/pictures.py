"""Reads and writes what Pillow decodes, TIFF apart, with samples as they are stored: PNG of 16 bits, too."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cyclegan_fast.images.decoding import (
    DEEP_PNG,
    DEEP_PPM,
    deep_samples,
    opened_picture,
    to_rgb,
)
from cyclegan_fast.images.formats.conversion import luma
from cyclegan_fast.images.formats.stored import FileLayout, Source, StoredSamples, in_own_order
from cyclegan_fast.images.orientation import orientation_of, upright
from cyclegan_fast.images.pixel_type import PixelType, SampleArray, SampleDtype
from cyclegan_fast.images.unreadable import BoundedFile

_CHANNELS = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
"""The modes of Pillow whose samples are read as they are; those of others become colours."""
_PNG_MODES = {("uint8", 1): "L", ("uint8", 3): "RGB", ("uint16", 1): "I;16"}
"""The samples that Pillow writes to PNG, by type and channels, and its names for them: no colours of 16 bits. A fourth
channel would be opacity there."""


def describe_picture(source: Source) -> FileLayout:
    """Return what a picture holds, from its header alone."""
    with BoundedFile(source.path) as file, opened_picture(file) as image:
        dtype: SampleDtype = "uint8"
        channels = _CHANNELS.get(image.mode, 4 if "transparency" in image.info else 3)
        tile = image.tile[0] if image.tile else None
        if tile is not None and tile.args in DEEP_PNG:
            dtype, channels = "uint16", {"LA": 2, "RGB": 3, "RGBA": 4}[str(tile.args).partition(";")[0]]
        elif tile is not None and tile.codec_name in DEEP_PPM and isinstance(tile.args, tuple) and tile.args[1] > 255:
            dtype, channels = "uint16", 3 if image.mode == "RGB" else 1
        elif image.mode.startswith("I"):
            dtype, channels = "uint16", 1
        elif image.mode == "F":
            dtype, channels = "float32", 1
        height, width = image.height, image.width
        # Pillow would decode a PNG to look for EXIF behind its pixels, which no program that turns images writes.
        if (image.format != "PNG" or "exif" in image.info) and orientation_of(image) >= 5:
            height, width = width, height
        return FileLayout(1, height, width, channels, dtype, channels >= 3, channels in (2, 4))


def read_picture(source: Source, planes: Sequence[int]) -> StoredSamples:
    """Return the samples of a picture, upright; of several frames the first one."""
    del planes
    with BoundedFile(source.path) as file, opened_picture(file) as image:
        transparent = image.info.get("transparency")
        deep = deep_samples(image, file)
        if deep is not None:
            samples, stated = deep
            bits = int(stated[1]).bit_length() if stated is not None else 8 * samples.dtype.itemsize
            if transparent is not None and samples.shape[-1] in (1, 3):
                samples = np.where((samples == np.atleast_1d(transparent)).all(-1, keepdims=True), 65535, samples)
                samples = samples.astype(np.uint16)
        else:
            samples, bits = _eight_bits(image, transparent is not None), 8
        samples = in_own_order(upright(samples, orientation_of(image)))
    channels = samples.shape[-1]
    return StoredSamples(samples[None], bits, channels >= 3, channels in (2, 4))


def _eight_bits(image: Image.Image, is_transparent: bool) -> SampleArray:
    image.load()
    if image.mode in _CHANNELS and not is_transparent:
        plain = image.convert("L") if image.mode == "1" else image
        samples = np.asarray(plain)
        return samples if samples.ndim == 3 else samples[..., None]
    if image.mode in ("1", "L"):
        return luma(np.asarray(to_rgb(image)))
    if is_transparent and image.mode != "RGB":
        return np.asarray(image.convert("RGBA"))
    return np.asarray(to_rgb(image))


def is_of_png(kind: PixelType) -> bool:
    """Return whether PNG holds samples of a type, as Pillow writes it."""
    return (kind.dtype, kind.channels) in _PNG_MODES


def encoded_png(samples: SampleArray, kind: PixelType) -> bytes:
    """Return the content of a PNG of [H, W, C]."""
    content = io.BytesIO()
    plain = samples[..., 0] if kind.channels == 1 else samples
    Image.fromarray(np.ascontiguousarray(plain)).save(content, format="PNG")
    return content.getvalue()
