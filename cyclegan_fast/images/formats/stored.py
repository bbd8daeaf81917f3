"""Defines what every reader of a format gives: what a file holds, its samples, and the place that they come from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cyclegan_fast.images.pixel_type import SampleArray, SampleDtype

Frames = Literal["first", "channels", "slices"]
"""Says what further pages of a TIFF, slices of a volume or frames of a DICOM are: left out, channels of one image, or
images of their own."""
Axis = Literal[0, 1, 2]
"""The axis of a volume that slices are across: 0 gives sagittal, 1 coronal, and 2 axial ones."""


class Source(NamedTuple):
    """Names a file, the axis of a volume that its slices are across, and what its further pages or slices are."""

    path: Path
    axis: Axis = 2
    frames: Frames = "first"


@dataclass(frozen=True)
class FileLayout:
    """Says what a file holds, as its header has it.

    planes: how many arrays of [height, width, channels] it holds: pages, slices, frames.
    dtype: the type that samples get where none is asked for.
    is_colour: whether the first three channels are red, green and blue.
    has_opacity: whether the last channel is opacity.
    slices: the planes of each image where planes are images of their own; by default, each is one.
    is_georeferenced: whether it says where on the Earth its pixels lie.
    """

    planes: int
    height: int
    width: int
    channels: int
    dtype: SampleDtype
    is_colour: bool = False
    has_opacity: bool = False
    slices: Sequence[Sequence[int]] | None = None
    is_georeferenced: bool = False

    def images(self, frames: Frames) -> Sequence[Sequence[int]]:
        """Return the planes of each image that the file gives. Raises ValueError where it is not known which."""
        every = range(self.planes)
        slices = self.slices if self.slices is not None else [[plane] for plane in every]
        match frames:
            case "first":
                return [[0]]
            case "slices":
                return slices
            case "channels":
                if 1 < len(slices) < self.planes:
                    raise ValueError(
                        f"its {self.planes} pages are {len(slices)} images of {len(slices[0])} channels: "
                        "read them as slices (--frames slices)"
                    )
                return [every]


@dataclass(frozen=True)
class FilePlace:
    """Holds what a file says of where its pixels lie, for what is written of them; nothing of patients or owners.

    tags: those of a GeoTIFF, see georeference.py.
    no_data: the value that a GeoTIFF writes where nothing was measured.
    spacing_mm: the distance of rows and that of columns.
    volume: what a volume of NIfTI is put back by, see nifti.py.
    dimensions: how many an array of NumPy had.
    size: the height and width of the image that the tags belong to.
    """

    tags: tuple[tuple[int, int, int, Any], ...] = ()
    no_data: float | None = None
    spacing_mm: tuple[float, float] | None = None
    volume: Any = None
    dimensions: int | None = None
    size: tuple[int, ...] | None = None


@dataclass(frozen=True)
class StoredSamples:
    """Holds planes [planes, H, W, C] of a file, upright, in a type of NumPy's and of this machine's byte order.

    bits: how many of a sample's bits are used.
    is_associated: whether colours are multiplied by the opacity.
    """

    values: SampleArray
    bits: int
    is_colour: bool = False
    has_opacity: bool = False
    is_associated: bool = False
    place: FilePlace = field(default_factory=FilePlace)


def own_dtype(dtype: np.dtype[Any]) -> SampleDtype:
    """Return the type that samples get where none is asked for; raises ValueError for complex numbers and the like.

    Integers of 32 bits and more are taken to hold values of 16, as many programs store them.
    """
    size = dtype.itemsize
    match dtype.kind:
        case "b":
            return "uint8"
        case "u":
            return "uint8" if size == 1 else "uint16"
        case "i":
            return "int16"
        case "f":
            return "float32"
    raise ValueError(f"its samples are of the type {dtype}, which is not read: save them as uint16, int16 or float32")


def in_own_order(values: SampleArray) -> SampleArray:
    """Return values in this machine's order of bytes, each row beside the next."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def checked_spacing(rows: float, columns: float) -> tuple[float, float] | None:
    """Return the distances of rows and columns in millimetres; None where they are none that a pixel can have."""
    spacing = float(rows), float(columns)
    return spacing if all(1e-6 < side < 1e6 for side in spacing) else None
