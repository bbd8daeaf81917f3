"""Reading and writing image files: any format that Pillow knows, as 8-bit RGB."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from cyclegan_fast.files import temporary_beside
from cyclegan_fast.image_files import is_lfs_pointer
from cyclegan_fast.pixels import Pixels

Half = Literal["left", "right"]
"""One of two images that stand side by side in one file."""


class UnreadableImage(Exception):
    """A file that is no whole image; the message names it and says what is wrong."""


def read_image(path: Path, half: Half | None = None) -> Image.Image:
    """Decode a file to an upright RGB image, or to one `half` of it.

    Greyscale, palette, CMYK and 16-bit images are converted to 8-bit RGB, transparent ones are laid over white, and the
    camera's orientation is applied. Raises UnreadableImage, also where halves are wanted and the width is odd.
    """
    try:
        with Image.open(path) as image:
            image.load()
            whole = to_rgb(ImageOps.exif_transpose(image))
            return whole if half is None else half_of(whole, half)
    except Image.DecompressionBombError as error:
        # Pillow raises at twice its limit, and warns at once.
        reason = f"has more than the {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels that Pillow takes; cut it into parts"
        raise UnreadableImage(f"{path}: {reason}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = _why_no_image(path) if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnreadableImage(f"{path}: {reason}") from error


def _why_no_image(path: Path) -> str:
    if is_lfs_pointer(path):
        return "a pointer of Git LFS and not the image itself; `git lfs pull` fetches that"
    return "not an image"


def read_indices(path: Path) -> npt.NDArray[np.uint8]:
    """The values of a file of one channel, [H, W], as they are stored, such as the numbers of classes.

    Raises UnreadableImage, also for colours and for values beyond 255.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"{path}: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "ui" or values.min() < 0 or values.max() > 255:
        raise UnreadableImage(f"{path}: holds no numbers of classes (one channel of 0 to 255) but {image.mode}")
    return values.astype(np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel, in one of Pillow's several modes for it
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"values from {values.min():.0f} to {values.max():.0f} do not fit 16 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; convert the image to 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def half_of(image: Image.Image, half: Half) -> Image.Image:
    """Raises ValueError where the width is odd."""
    middle, rest = divmod(image.width, 2)
    if rest:
        raise ValueError(f"{image.width} pixels wide, which does not halve into two images side by side")
    return image.crop((0, 0, middle, image.height) if half == "left" else (middle, 0, image.width, image.height))


def write_image(pixels: Pixels, path: Path, **options: Any) -> None:
    """Write uint8 [H, W, 3]; the format follows the name. A file appears whole or not at all."""
    # Encoded in memory: Pillow's JPEG encoder writes to a file itself and takes half a write, as a full disk gives, for
    # a whole one.
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format=Image.registered_extensions()[path.suffix.lower()], **options)
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(encoded.getvalue())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
