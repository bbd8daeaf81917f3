"""Reads and writes image files as 8-bit RGB; decoding.py decodes them, folders.py finds them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyclegan_fast.images.decoding import decode, decode_indices
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import UnreadableImage, reading
from cyclegan_fast.system.files import replacing, write_whole

Half = Literal["left", "right"]
"""One of two images that stand side by side in one file."""


def read_image(path: Path, half: Half | None = None, value_range: ValueRange | None = None) -> Image.Image:
    """Decode a file to an upright RGB image, or to one `half` of it; `value_range` is that of `decode`.

    Raises UnreadableImage, also where halves are wanted and the width is odd.
    """
    return part_of(decode(path, value_range).image, half, path)


def part_of(image: Image.Image, half: Half | None, path: Path) -> Image.Image:
    """Return the image of the file `path`, or one half of it. Raises UnreadableImage where the width is odd."""
    if half is None:
        return image
    with reading(path):
        return half_of(image, half)


def read_indices(path: Path) -> npt.NDArray[np.uint8]:
    """Return the values of a file of one channel, [H, W], as they are stored, such as the numbers of classes.

    Raises UnreadableImage, also for colours and for values beyond 255.
    """
    values = decode_indices(path)
    if values.ndim != 2 or values.dtype.kind not in "ui" or values.min() < 0 or values.max() > 255:
        held = values.dtype if values.ndim == 2 else f"{values.shape[2]} channels"
        raise UnreadableImage(f"{path}: holds no numbers of classes (one channel of 0 to 255) but {held}")
    return values.astype(np.uint8)


def half_of(image: Image.Image, half: Half) -> Image.Image:
    """Return the left or the right half of an image; raises ValueError where the width is odd."""
    middle = middle_of(image.width)
    return image.crop((0, 0, middle, image.height) if half == "left" else (middle, 0, image.width, image.height))


def middle_of(width: int) -> int:
    """Return the width of one of two images that stand side by side; raises ValueError where `width` is odd."""
    middle, rest = divmod(width, 2)
    if rest:
        raise ValueError(f"{width} pixels wide, which does not halve into two images side by side")
    return middle


def none_can_be_read(unreadable: Sequence[str]) -> str:
    """Say in one line that no image of those asked for could be read, from a message for each."""
    if len(unreadable) == 1:
        return unreadable[0]
    return f"none of {len(unreadable)} images can be read; the first: {unreadable[0]}"


def write_image(pixels: Pixels, path: Path, **options: Any) -> None:
    """Write an image, uint8 [H, W, 3], in the format that the name's ending says; it appears whole or not at all.

    `options` are those of Pillow for the format.
    """
    write_encoded(encoded(pixels, path.suffix, **options), path)


def encoded(pixels: Pixels, ending: str, **options: Any) -> bytes:
    """Return the content of a file of an image, uint8 [H, W, 3], in the format of a name's ending.

    It is made in memory, because Pillow's JPEG encoder writes to a file itself and takes half a write, as a full disk
    gives it, for a whole one.
    """
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format=Image.registered_extensions()[ending.lower()], **options)
    return content.getvalue()


def write_encoded(content: bytes, path: Path, point: str | None = None) -> None:
    """Write the file of an image, whole or not at all; `point` is that of `replacing`.

    When it reaches the disk is left to the system: a picture can be made again.
    """
    with replacing(path, point, to_disk=False) as file:
        write_whole(file, content, point)
