"""Encodes translations in a format that the client accepts and that holds them."""

import io

import numpy as np
from PIL import Image

from cyclegan_fast.images.formats.pictures import is_of_png
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.samples import Samples, encoded_samples
from cyclegan_fast.system.words import alternatives
from export.serving.refusal import RequestRefused

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp", "image/tiff")
_JPEG_QUALITY = 95  # as the commands write it
_PNG_LEVEL = 1
"""how hard PNG's compression tries, of 9"""


def formats_of(kind: PixelType) -> list[str]:
    """Return the media types that hold samples of a type, the one that is sent by default first."""
    is_picture = kind.dtype == "uint8" and kind.channels in (1, 3)
    found = ["image/png"] if is_of_png(kind) else []
    found += ["image/jpeg"] if is_picture else []
    found += ["image/webp"] if kind.is_rgb else []
    return [*found, "image/tiff"]


def accepted(header: str | None, kind: PixelType) -> str:
    """Return the media type of an answer by a request's Accept header (RFC 9110, section 12.5.1).

    Of those that hold the samples it is the one of the greatest weight, and of several the first of `formats_of`; a
    range such as image/* stands behind a type that is named. Raises RequestRefused where there is none.
    """
    offered = formats_of(kind)
    if not header or not header.strip():
        return offered[0]
    ranges = _ranges(header)

    def weight(media_type: str) -> float:
        for named in (media_type, "image/*", "*/*"):
            if named in ranges:
                return ranges[named]
        return 0.0

    best = max(offered, key=weight)
    if not weight(best):
        raise RequestRefused(
            406, f"the translation is {kind}, which is sent as {alternatives(offered)}: accept one of these"
        )
    return best


def _ranges(header: str) -> dict[str, float]:
    """Return the media ranges of an Accept header with their weights; what cannot be read is left out."""
    found = {}
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((part.removeprefix("q=") for part in parameters if part.startswith("q=")), "1")
        try:
            value = float(quality)
        except ValueError:
            continue
        if 0 <= value <= 1:
            found[name] = value
    return found


def encoded_answer(samples: SampleArray, kind: PixelType, media_type: str) -> bytes:
    """Return the content of a file of samples [H, W, C] of a type, in a format of `formats_of`."""
    if media_type == "image/tiff":
        return encoded_samples(Samples(samples[None]), ".tif", kind)
    content = io.BytesIO()
    pixels = np.ascontiguousarray(samples[..., 0] if kind.channels == 1 else samples)
    options = {"image/png": {"compress_level": _PNG_LEVEL}}.get(media_type, {"quality": _JPEG_QUALITY})
    Image.fromarray(pixels).save(content, format=media_type.partition("/")[2].upper(), **options)
    return content.getvalue()
