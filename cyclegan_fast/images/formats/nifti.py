"""Reads and writes slices of volumes in NIfTI with nibabel, in the file's units, as radiologists look at them.

Slices are across an axis of the patient, not of the file: 0 gives sagittal, 1 coronal and 2 axial ones, wherever the
file's affine says that these lie. The patient's right is on the left, the front and the head are on top; in a sagittal
slice the front is on the left. So volumes that are stored in different ways train as one domain, and look as DICOM's.
"""

import gzip
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_fast.images.formats.stored import (
    FileLayout,
    FilePlace,
    Source,
    StoredSamples,
    checked_spacing,
    in_own_order,
    own_dtype,
)
from cyclegan_fast.images.pixel_type import SampleArray, SampleDtype
from cyclegan_fast.images.unreadable import check_size, parsing

_thread = threading.local()  # .is_reading: whether its records of the log are dropped
logging.getLogger("nibabel.global").addFilter(lambda record: not getattr(_thread, "is_reading", False))

_ROWS_AND_COLUMNS = {0: (2, 1), 1: (2, 0), 2: (1, 0)}
"""The patient's axes (0 right, 1 front, 2 head) that rows and columns of a slice lie on, by the axis it is across."""
_KEPT = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units", "pixdim"),
)
"""The fields of a header that say where a volume lies; its texts are left out, since they may name a patient."""
_MOST_GAIN = 1100  # the most bytes that a byte of gzip stands for


@dataclass(frozen=True)
class Volume:
    """Holds where slices lie, for the volume that is written of them.

    header: the class of nibabel's header, and its fields that are kept.
    affine: of the file, from its indices to millimetres.
    axes: the file's axes that slices, rows and columns are along.
    turned: whether each of these three runs against the file's indices.
    first: the least index, in the file, of the slices that were read.
    size: the height and width of a slice.
    """

    header: tuple[str, dict[str, Any]]
    affine: SampleArray
    axes: tuple[int, int, int]
    turned: tuple[bool, bool, bool]
    first: int
    size: tuple[int, int]


def describe_nifti(source: Source) -> FileLayout:
    """Return what a volume holds, from its header."""
    image = _opened(source)
    axes, _ = _orientation(image.affine, source.axis)
    planes, height, width = (_shape(image)[axis] for axis in axes)
    check_size(width, height)
    is_rgb = image.get_data_dtype().names is not None
    return FileLayout(planes, height, width, 3 if is_rgb else 1, "uint8" if is_rgb else _value_dtype(image), is_rgb)


def read_nifti(source: Source, planes: Sequence[int]) -> StoredSamples:
    """Return slices of a volume, with the file's slope and intercept."""
    image = _opened(source)
    axes, turned = _orientation(image.affine, source.axis)
    shape = _shape(image)
    count, height, width = (shape[axis] for axis in axes)
    check_size(width, height)
    indices = [count - 1 - plane if turned[0] else plane for plane in planes]
    with parsing():
        values = _slices(image, shape, axes, indices)
    if values.dtype.names is not None:
        values = np.stack([values[name] for name in ("R", "G", "B")], -1)
    else:
        values = values[..., None]
    values = values[:, ::-1] if turned[1] else values
    values = values[:, :, ::-1] if turned[2] else values
    dtype = np.dtype("uint8") if values.shape[-1] == 3 else np.dtype(_value_dtype(image))
    values = in_own_order(values)
    if values.dtype.kind == "f" and dtype.kind in "ui":  # nibabel adds a whole intercept in floating point
        values = np.rint(values).astype(np.int64)
    if values.dtype.kind in "ui" and values.dtype != dtype:
        held = np.iinfo(dtype)
        values = values.astype(dtype) if held.min <= values.min() and values.max() <= held.max else values
    kept = {name: np.array(image.header[name]) for name in _KEPT}
    volume = Volume(
        (type(image.header).__name__, kept), np.array(image.affine), axes, turned, min(indices), (height, width)
    )
    zooms = (*image.header.get_zooms()[:3], 1.0, 1.0)
    place = FilePlace(volume=volume, spacing_mm=checked_spacing(zooms[axes[1]], zooms[axes[2]]))
    return StoredSamples(values, 8 * values.dtype.itemsize, values.shape[-1] == 3, place=place)


def encoded_nifti(samples: SampleArray, volume: Volume | None, *, compressed: bool) -> bytes:
    """Return the content of a volume of slices [S, H, W, 1], with the place of the one that they come from."""
    import nibabel

    values = samples[..., 0]
    header = getattr(nibabel, volume.header[0])() if volume is not None else nibabel.Nifti1Header()
    if volume is None:
        affine, values = np.diag([-1.0, -1.0, 1.0, 1.0]), values.transpose(2, 1, 0)  # as slices are read again
    else:
        affine = None  # that of the header
        for axis, turned in enumerate(volume.turned):
            values = np.flip(values, axis) if turned else values
        values = values.transpose(np.argsort(volume.axes))
        for name, value in volume.header[1].items():
            header[name] = value
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    if volume is not None and volume.first:
        affine = _moved(volume)
        header.set_qform(affine, int(header["qform_code"]))
        header.set_sform(affine, int(header["sform_code"]))
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    content: bytes = kind(np.ascontiguousarray(values), affine, header).to_bytes()
    return gzip.compress(content, mtime=0) if compressed else content


def _moved(volume: Volume) -> SampleArray:
    """Return the affine of a volume that begins with the first slice that was read."""
    moved = volume.affine.copy()
    moved[:3, 3] += volume.first * volume.affine[:3, volume.axes[0]]
    return moved


def _opened(source: Source) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        with parsing(), _without_logs():
            image = nibabel.load(source.path)
    except ImageFileError:
        raise ValueError("it is no NIfTI file") from None
    if not isinstance(image, nibabel.Nifti1Image):  # that of NIfTI-2 is one, too
        raise ValueError(f"it is a file of the kind {type(image).__name__}, and volumes of NIfTI are read")
    _check_bytes(image, source.path)
    return image


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep nibabel from printing what is odd in a header: what cannot be read is raised."""
    _thread.is_reading = True
    try:
        yield
    finally:
        _thread.is_reading = False


def _check_bytes(image: Any, path: Path) -> None:
    """Raise ValueError where the header claims what the file cannot hold."""
    size = path.stat().st_size
    claimed = int(np.prod([int(side) for side in image.shape], dtype=object)) * image.get_data_dtype().itemsize
    if claimed > size * (_MOST_GAIN if path.suffix.lower() == ".gz" else 1):
        raise ValueError(f"it is cut off: its {size} bytes cannot hold {' x '.join(map(str, image.shape))} values")


def _shape(image: Any) -> tuple[int, int, int]:
    """Return the sides of a volume along the file's axes; a flat image is a volume of one slice."""
    shape = tuple(int(side) for side in image.shape)
    sides, further = (*shape[:3], 1, 1)[:3], shape[3:]
    if any(side != 1 for side in further):
        raise ValueError(
            f"it has {len(shape)} dimensions, {' x '.join(map(str, shape))}: save each of its "
            f"{int(np.prod(further))} volumes as a file of 3"
        )
    return sides[0], sides[1], sides[2]


def _orientation(affine: SampleArray, axis: int) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return the file's axes of slices, rows and columns, and which of them run against the file's indices."""
    from nibabel.orientations import io_orientation

    orientation = io_orientation(affine)  # for each of the file's axes: the patient's, and the direction
    if not np.isfinite(orientation).all():
        orientation = np.array([[0, 1], [1, 1], [2, 1]])
    file_axis = {int(patients): place for place, (patients, _) in enumerate(orientation)}
    directions = {int(patients): int(direction) for patients, direction in orientation}
    rows, columns = _ROWS_AND_COLUMNS[axis]
    axes = (file_axis[axis], file_axis[rows], file_axis[columns])
    # Slices go to the right, the front and the head; rows and columns go to the left, the back and the feet.
    return axes, (directions[axis] < 0, directions[rows] > 0, directions[columns] > 0)


def _value_dtype(image: Any) -> SampleDtype:
    """Return the type of values: that of the stored ones, unless a slope or an intercept makes others of them."""
    stored = own_dtype(image.get_data_dtype())
    slope, intercept = (float(number) for number in (image.dataobj.slope, image.dataobj.inter))
    if (slope, intercept) == (1.0, 0.0) or stored == "float32":
        return stored
    if slope.is_integer() and intercept.is_integer():
        return "int16" if stored == "int16" or intercept < 0 or slope < 0 else "uint16"
    return "float32"


def _slices(image: Any, shape: tuple[int, int, int], axes: tuple[int, int, int], indices: Sequence[int]) -> SampleArray:
    """Return slices [S, rows, columns] as they lie in the file; of many the whole volume is read at once."""
    if len(indices) > 1:
        volume = np.asarray(image.dataobj).reshape(shape).transpose(axes)
        return np.asarray(volume[list(indices)])
    # A file of more dimensions, of which the others are 1, or of fewer, is cut along those it has.
    at: list[Any] = [slice(None)] * len(image.shape)
    if axes[0] < len(at):
        at[axes[0]] = slice(indices[0], indices[0] + 1)
    one = list(shape)
    one[axes[0]] = 1
    return np.asarray(image.dataobj[tuple(at)]).reshape(one).transpose(axes)
