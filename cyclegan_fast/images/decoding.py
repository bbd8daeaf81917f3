"""Decodes an image file to upright 8-bit RGB, whatever it holds; tiff.py decodes TIFF, samples.py arrays and volumes.

levels.py turns samples of more than 8 bits into 8, and unreadable.py turns what decoders raise into UnreadableImage.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from cyclegan_fast.images.formats.recognition import format_of_opened
from cyclegan_fast.images.levels import Extent, ValueRange, extent_of, full_range, over_white, to_levels
from cyclegan_fast.images.orientation import TRANSPOSITIONS, orientation_of
from cyclegan_fast.images.pixel_type import RGB, SampleArray
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import BoundedFile, check_size, parsing, reading

DEEP_PNG = ("RGB;16B", "RGBA;16B", "LA;16B")  # Pillow's names for layouts of 16-bit PNGs, grey ones apart
DEEP_PPM = ("ppm", "ppm_plain")  # its names for decoders of PGM and PPM, which may have 16 bits
FEW_BITS = {"L;2": 85, "L;4": 17}
"""The level of 8 bits that the value 1 has in greyscale PNGs of 2 and of 4 bits."""


@dataclass(frozen=True)
class Decoded:
    """Holds an upright RGB image, and the extent of its values where they had more than 8 bits."""

    content: Image.Image | Pixels  # as it was decoded, so that a large TIFF is not copied where pixels are wanted
    extent: Extent | None = None

    @property
    def image(self) -> Image.Image:
        """Return the image as one of Pillow's."""
        return self.content if isinstance(self.content, Image.Image) else Image.fromarray(self.content)

    @property
    def pixels(self) -> Pixels:
        """Return the image as uint8 [H, W, 3]."""
        return np.asarray(self.content)


def decode(path: Path, value_range: ValueRange | None = None) -> Decoded:
    """Decode a file to an upright RGB image.

    Greyscale, palette, CMYK and images of more than 8 bits are converted to 8-bit RGB, transparent ones are laid over
    white, and the camera's orientation is applied.

    Args:
        value_range: the values of samples of more than 8 bits that become black and white; by default the least and
            the greatest that they can hold.

    Raises UnreadableImage, and DoesNotFit where the memory does not hold the pixels.
    """
    with reading(path), BoundedFile(path) as file:
        name = format_of_opened(file, path.name)
        if name == "tiff":
            from cyclegan_fast.images.tiff import read_tiff

            return Decoded(*read_tiff(file, value_range))
        if name == "picture":
            return _with_pillow(file, value_range)
    from cyclegan_fast.images.samples import read_samples  # which reads pictures by this module

    samples = read_samples(path, RGB, deep_range=value_range)
    return Decoded(samples.values[0], samples.extent)


def decode_opened(image: Image.Image, value_range: ValueRange | None = None) -> Decoded:
    """Convert an image that Pillow has opened or made to upright RGB, as `decode` does with a file.

    What Pillow has left out is lost: the lower 8 bits of colours of 16. Raises ValueError for floating-point values
    without `value_range`.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _of_samples(image, np.asarray(image)[..., None], None, value_range)
    return Decoded(_upright(image, to_rgb(image)))


def decode_indices(path: Path) -> SampleArray:
    """Return the values of a file as they are stored, [H, W] where it has one channel. Raises UnreadableImage."""
    with reading(path), BoundedFile(path) as file:
        if format_of_opened(file, path.name) == "tiff":
            from cyclegan_fast.images.tiff import read_first_samples

            return read_first_samples(file)
        with opened_picture(file) as image:
            return np.asarray(image)


# --- Pillow --------------------------------------------------------------------------------------------------------


def _with_pillow(file: BinaryIO, value_range: ValueRange | None) -> Decoded:
    with opened_picture(file) as image:
        layout = image.tile[0].args if image.tile else None
        deep = deep_samples(image, file)
        if deep is not None:
            return _of_samples(image, *deep, value_range)
        image.load()
        if layout in FEW_BITS and "transparency" in image.info:
            image.info["transparency"] *= FEW_BITS[layout]  # Pillow leaves the value as it is in the file
        return decode_opened(image, value_range)


def opened_picture(file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image with Pillow, whose pixels are not decoded yet. Raises ValueError for too many of them."""
    with parsing():
        image = Image.open(file)
        check_size(*image.size)
    return image


def deep_samples(image: ImageFile.ImageFile, file: BinaryIO) -> tuple[SampleArray, ValueRange | None] | None:
    """Return samples of more than 8 bits, [H, W, samples], and their range where the file states one; None for others.

    Pillow has no modes for colours of 16 bits and leaves out the lower 8. This function gets them from it all the same.
    """
    tile = image.tile[0] if image.tile else None
    if tile is not None and tile.args in DEEP_PNG:
        return _deep_png(image, file, str(tile.args)), None
    if tile is not None and tile.codec_name in DEEP_PPM and isinstance(tile.args, tuple):
        maximum = int(tile.args[1])
        if maximum > 255:
            return _deep_ppm(image, file, maximum), (0, maximum)
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image)[..., None], None
    return None


def _deep_png(image: ImageFile.ImageFile, file: BinaryIO, layout: str) -> SampleArray:
    if layout == "LA;16B":
        # Pillow gives its 4 bytes a pixel as those of an RGBA image.
        image.tile = [image.tile[0]._replace(args="RGBA")]
        return _joined(np.asarray(image)[..., ::2], np.asarray(image)[..., 1::2])
    # The file is decoded twice: as it is, which gives the higher bytes, and with the bytes exchanged.
    higher = np.asarray(image)
    file.seek(0)
    with Image.open(file) as again:
        again.tile = [again.tile[0]._replace(args=layout.replace("16B", "16L"))]
        return _joined(higher, np.asarray(again))


def _joined(higher: Pixels, lower: Pixels) -> SampleArray:
    joined = higher.astype(np.uint16) << 8
    joined |= lower
    return joined


def _deep_ppm(image: ImageFile.ImageFile, file: BinaryIO, maximum: int) -> SampleArray:
    """Read the binary values of two bytes unscaled; Pillow would scale them, and colours even to 8 bits."""
    if image.tile[0].codec_name == "ppm_plain":
        raise ValueError("values of more than 8 bits are not read in plain text: save them in binary")
    channels = 3 if image.mode == "RGB" else 1
    count = image.width * image.height * channels
    file.seek(image.tile[0].offset)
    content = file.read(2 * count)
    if len(content) < 2 * count:
        raise ValueError("it is cut off")
    samples = np.frombuffer(content, ">u2").astype(np.uint16)
    return np.minimum(samples, maximum).reshape(image.height, image.width, channels)


def _of_samples(
    image: Image.Image, samples: SampleArray, stated: ValueRange | None, given: ValueRange | None
) -> Decoded:
    """Make an image of samples of more than 8 bits: of grey or RGB, with opacity as the last channel if there is one.

    The samples fill the range `given`, or else the one that the file has `stated`, or else all that they can hold.
    """
    filled = given or stated or full_range(samples.dtype, 8 * samples.dtype.itemsize)
    colours = samples[..., : 1 if samples.shape[2] < 3 else 3]
    extent = extent_of(colours, filled)
    levels = to_levels(colours, filled)
    transparent = image.info.get("transparency")
    if samples.shape[2] > colours.shape[2]:
        levels = over_white(levels, to_levels(samples[..., -1], (0, 65535)))
    elif transparent is not None:
        levels[(colours == np.atleast_1d(transparent)).all(2)] = 255
    rgb = Image.fromarray(np.repeat(levels, 3, 2) if levels.shape[2] == 1 else levels)
    return Decoded(_upright(image, rgb), extent)


def _upright(decoded: Image.Image, rgb: Image.Image) -> Image.Image:
    """Turn `rgb` upright by the camera's orientation, which `decoded` holds in its EXIF."""
    transposition = TRANSPOSITIONS.get(orientation_of(decoded))
    return rgb if transposition is None else rgb.transpose(transposition)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert 8 bits or fewer of any kind to RGB."""
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and transparent is None:
        return image
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or transparent is not None:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
