"""Reads what a client sends, within bounds, and decodes it to the samples that a generator takes.

A client's header is never believed further than a limit allows: bytes are counted as they come, formats are recognised
by their first bytes, and sides are compared with the limits before a pixel is decoded.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from starlette.types import Receive

from cyclegan_fast.data.preparation import resize_samples
from cyclegan_fast.images.folders import DICOM_MARK
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.samples import FileKind, describe_file, read_samples
from cyclegan_fast.images.unreadable import UnreadableImage, parsing, reading
from cyclegan_fast.system.shortage import DoesNotFit
from cyclegan_fast.system.words import alternatives, counted
from cyclegan_fast.translation.prepared import Mask, fill_missing, pad_sides, resized_mask
from export.serving.models import ServedModel
from export.serving.refusal import RequestRefused
from export.serving.service_options import ServingLimits

SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "WebP": (b"RIFF",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
"""The formats that are taken, and how their files begin. Others are refused: each further decoder is one more that
hostile files reach."""
_MOST_CHANNELS = 16
"""channels of an image by its header, at most, unless the generator takes more"""


@dataclass(frozen=True)
class UploadedImage:
    """Holds an image that a client sent, ready for a generator.

    samples: [H, W, C] of the generator's type; H and W are sides that it takes.
    height, width: those of the image, in the first rows and columns of `samples`.
    missing: that of `fill_missing`, [height, width].
    """

    samples: SampleArray
    height: int
    width: int
    missing: Mask | None


async def read_body(receive: Receive, limits: ServingLimits) -> bytes:
    """Return the body of a request.

    Raises RequestRefused where it is too large, comes too slowly, or breaks off.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(limits.upload_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestRefused(400, "the client went away before its image was whole")
                body += message.get("body", b"")
                if len(body) > limits.upload_bytes:
                    raise too_large(limits, unread=message.get("more_body", False))
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise RequestRefused(
            408, f"the image did not arrive within {limits.upload_s:g} seconds: send it faster, or a smaller one"
        ) from error


def too_large(limits: ServingLimits, *, unread: bool) -> RequestRefused:
    """Return the refusal of a body that is too large."""
    return RequestRefused(
        413, f"the body has more than {limits.max_upload_mib} MiB, the largest that is taken", unread=unread
    )


def decode_upload(content: bytes, model: ServedModel, size: int | None, limits: ServingLimits) -> UploadedImage:
    """Decode an image to the samples of a generator, resized to a square of `size` where it is given.

    Raises RequestRefused for what is no whole image of a format that is taken, what is too large, and what the
    generator does not take.
    """
    _check_format(content)
    kind = model.translator.source
    with _as_file(content) as path, _refusing(path):
        described = describe_file(path)
        _check(described, kind, limits)
        is_animated = content.startswith(SIGNATURES["PNG"] + SIGNATURES["WebP"])  # cameras put previews behind a JPEG
        frames = _frames_of(path) if is_animated else described.frames
        if frames > 1:
            raise RequestRefused(415, f"it has {counted(frames, 'frame')}: send one image at a time")
        height, width = model.size_for(size, described.height, described.width)
        if height * width > limits.max_translated_pixels:
            raise RequestRefused(
                422,
                f"{width}x{height} pixels would be translated, more than {limits.max_translated_pixels}: give a "
                "smaller size",
            )
        samples = read_samples(path, kind).values[0]
    height, width = model.size_for(size, *samples.shape[:2])  # a PNG may say behind its pixels that it lies on its side
    values, missing = fill_missing(samples, kind)
    if values.shape[:2] != (height, width):
        values = resize_samples(values, width, height)
        missing = None if missing is None else resized_mask(missing[None], width, height)[0]
    return UploadedImage(pad_sides(values), height, width, missing)


def _check(described: FileKind, kind: PixelType, limits: ServingLimits) -> None:
    height, width, channels = described.height, described.width, described.channels
    if not height or not width:
        raise RequestRefused(400, f"it has no pixels ({width}x{height})")
    if height * width > limits.max_pixels:
        raise RequestRefused(413, f"it has {width}x{height} pixels, more than the {limits.max_pixels} that are taken")
    if channels > max(_MOST_CHANNELS, kind.channels):
        raise RequestRefused(415, f"it has {counted(channels, 'channel')}, and the generator takes {kind}")


def _check_format(content: bytes) -> None:
    if not content:
        raise RequestRefused(400, "the body is empty: send an image as the body, or in a form's field `image`")
    begins = any(content.startswith(beginnings) for beginnings in SIGNATURES.values())
    is_other_riff = content.startswith(b"RIFF") and content[8:12] != b"WEBP"
    # The mark of DICOM may stand behind the beginning of another format, which is then read as DICOM.
    if not begins or is_other_riff or content[DICOM_MARK] == b"DICM":
        raise RequestRefused(415, f"it is no image of a format that is taken: send {alternatives(list(SIGNATURES))}")


def _frames_of(path: Path) -> int:
    """Return how many frames a picture of Pillow's holds, by what its header says."""
    with reading(path), parsing(), Image.open(path) as image:
        return getattr(image, "n_frames", 1)


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """Yield a path at which `content` can be read, which is gone afterwards: decoders take paths.

    On Linux it is a file in memory without a name, of which nothing stays behind however the process ends.
    """
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("upload"), "wb") as file:
            file.write(content)
            file.flush()
            yield Path(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.NamedTemporaryFile(prefix="cyclegan-fast-") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what decoders raise into RequestRefused, without the path, which is none of the client's."""
    try:
        yield
    except (UnreadableImage, DoesNotFit) as error:
        said = str(error).removeprefix(f"{path}: ").replace(str(path), "the image")
        if isinstance(error, DoesNotFit):
            raise RequestRefused(503, said, retry_s=5) from error
        raise RequestRefused(415, f"the image cannot be used: {said.partition(' (leave')[0]}") from error
    except OSError as error:
        if error.filename is None:
            raise
        raise RequestRefused(503, f"the image cannot be kept: {os.strerror(error.errno or 0)}", retry_s=5) from error
