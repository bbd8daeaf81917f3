"""Reads and writes NumPy's .npy and .npz: arrays [H, W], [H, W, C] or [S, H, W, C], without pickled objects."""

import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from cyclegan_fast.images.formats.stored import (
    FileLayout,
    FilePlace,
    Frames,
    Source,
    StoredSamples,
    in_own_order,
    own_dtype,
)
from cyclegan_fast.images.pixel_type import MOST_SAMPLES_A_PIXEL, SampleArray
from cyclegan_fast.images.unreadable import BoundedFile, check_size

ARRAY_NAME = "image"
"""The array that is read of an .npz which holds several, and the name of the one that is written."""
_DIMENSIONS = "[H, W], [H, W, channels] or [slices, H, W, channels]"


def describe_array(source: Source) -> FileLayout:
    """Return what an array is, from its header alone. Raises ValueError for what is no image."""
    with _opened(source) as (file, size):
        shape, dtype = _header(file, size)
    planes, height, width, channels = _as_planes(shape, source.frames)
    is_colour = channels == 3 and dtype == np.uint8
    return FileLayout(planes, height, width, channels, own_dtype(dtype), is_colour)


def read_array(source: Source, planes: Sequence[int]) -> StoredSamples:
    """Return images of an array. Raises ValueError for what is no image, or not whole."""
    with _opened(source) as (file, size):
        shape, dtype = _header(file, size)
        every = _as_planes(shape, source.frames)
        own_dtype(dtype)
    if source.path.suffix.lower() == ".npz":
        with _opened(source) as (file, _):
            whole = np.lib.format.read_array(file, allow_pickle=False)
    else:
        whole = np.load(source.path, mmap_mode="r", allow_pickle=False)  # only what is asked for is read
    values = in_own_order(whole.reshape(every)[list(planes)])
    if values.dtype.kind == "b":
        values = values * np.uint8(255)
    is_colour = every[-1] == 3 and values.dtype == np.uint8
    return StoredSamples(values, 8 * values.dtype.itemsize, is_colour, place=FilePlace(dimensions=len(shape)))


def encoded_array(samples: SampleArray, place: FilePlace, *, in_archive: bool) -> bytes:
    """Return the content of an .npy, or of an .npz, of [S, H, W, C]: with the dimensions of what was read."""
    values = samples
    if len(samples) == 1 and place.dimensions != 4:
        values = samples[0]
        if place.dimensions == 2 and values.shape[-1] == 1:
            values = values[..., 0]
    content = io.BytesIO()
    if in_archive:
        np.savez_compressed(content, allow_pickle=False, **{ARRAY_NAME: values})
    else:
        np.save(content, values, allow_pickle=False)
    return content.getvalue()


@contextmanager
def _opened(source: Source) -> Iterator[tuple[IO[bytes], int]]:
    """Open the array of a file, and give how many bytes it has, unpacked."""
    with BoundedFile(source.path) as file:
        if source.path.suffix.lower() != ".npz":
            yield file, source.path.stat().st_size
            return
        with zipfile.ZipFile(file) as archive:
            member = _member(archive)
            with archive.open(member) as array:
                yield array, member.file_size


def _member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
    named = [member for member in members if member.filename == f"{ARRAY_NAME}.npy"]
    if len(members) == 1 or named:
        return (named or members)[0]
    names = ", ".join(sorted(member.filename.removesuffix(".npy") for member in members)[:5])
    raise ValueError(
        f"it holds {len(members)} arrays ({names}), and none called {ARRAY_NAME}: save the one that is meant under "
        "that name"
        if members
        else "it holds no arrays"
    )


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"its format, NumPy's {version[0]}.{version[1]}, is not known here")
    if dtype.hasobject or dtype.names is not None:
        raise ValueError("it holds objects or records, and no samples")
    needed = file.tell() + dtype.itemsize * int(np.prod([int(side) for side in shape], dtype=object))
    if size < needed:
        raise ValueError(f"it is cut off: it has {size} bytes of {needed}")
    return shape, dtype


def _as_planes(shape: tuple[int, ...], frames: Frames) -> tuple[int, int, int, int]:
    """Return a shape as [S, H, W, C]. Channels in front are refused and not guessed at, and so are slices."""
    if frames == "slices" and len(shape) == 3:
        raise ValueError(
            f"its shape is [{', '.join(map(str, shape))}], which does not say whether it has slices or channels: save "
            "slices as [slices, H, W, channels], with a last axis of 1 for one channel"
        )
    match shape:
        case (height, width):
            planes = (1, height, width, 1)
        case (height, width, channels):
            planes = (1, height, width, channels)
        case (count, height, width, channels):
            planes = (count, height, width, channels)
        case _:
            raise ValueError(f"it has {len(shape)} dimensions: an image is {_DIMENSIONS}")
    count, height, width, channels = planes
    listed = ", ".join(map(str, shape))
    if not 1 <= channels <= MOST_SAMPLES_A_PIXEL or count < 1 or (height <= 16 < channels):
        raise ValueError(f"its shape is [{listed}], and an image is {_DIMENSIONS}: move its channels to the end")
    check_size(width, height)
    return planes
