"""Chooses the module that reads a file, by its first bytes and its ending.

The modules are imported when they are first used: tifffile and the libraries of medical images take long.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cyclegan_fast.images.decoding import TIFF
from cyclegan_fast.images.folders import ending_of
from cyclegan_fast.images.formats.arrays import describe_array, read_array
from cyclegan_fast.images.formats.pictures import describe_picture, read_picture
from cyclegan_fast.images.formats.stored import FileLayout, Source, StoredSamples

FormatName = Literal["picture", "tiff", "array"]
_ARRAY_ENDINGS = (".npy", ".npz")
_HEAD = 352  # bytes, which hold the marks of all formats


def format_of(path: Path) -> FormatName:
    """Return which kind of file it is. Raises OSError for a file that cannot be opened."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if head.startswith(TIFF):
        return "tiff"
    if head.startswith(b"\x93NUMPY") or ending_of(path.name) in _ARRAY_ENDINGS:
        return "array"
    return "picture"


def describe_stored(name: FormatName, source: Source) -> FileLayout:
    """Return what a file of a format holds, from its header; raises whatever a decoder raises."""
    match name:
        case "picture":
            return describe_picture(source)
        case "array":
            return describe_array(source)
        case "tiff":
            from cyclegan_fast.images.formats.tiff_samples import describe_tiff

            return describe_tiff(source)


def read_stored(name: FormatName, source: Source, planes: Sequence[int]) -> StoredSamples:
    """Return the samples of some planes of a file of a format; raises whatever a decoder raises."""
    match name:
        case "picture":
            return read_picture(source, planes)
        case "array":
            return read_array(source, planes)
        case "tiff":
            from cyclegan_fast.images.formats.tiff_samples import read_tiff_samples

            return read_tiff_samples(source, planes)
