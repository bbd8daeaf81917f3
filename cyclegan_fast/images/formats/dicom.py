"""Reads the pixels of DICOM files with pydicom, in the units that the file gives them: Hounsfield units of a CT.

Only the elements that describe pixels are read. Names, dates and numbers of patients, studies and devices never leave
the file: they are not even parsed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from cyclegan_fast.images.formats.stored import (
    FileLayout,
    FilePlace,
    Source,
    StoredSamples,
    checked_spacing,
    in_own_order,
)
from cyclegan_fast.images.pixel_type import SampleArray, SampleDtype
from cyclegan_fast.images.unreadable import BoundedFile, check_size, parsing

if TYPE_CHECKING:
    from pydicom import Dataset

_DESCRIBING = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "DoseGridScaling", "ModalityLUTSequence"),
    *("PixelSpacing", "ImagerPixelSpacing"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),  # slopes of each frame
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
)
"""The elements that are read to describe a file."""
_PIXELS = (
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)
_PIXEL_GROUPS = (b"\xe0\x7f", b"\x7f\xe0")  # the group 7FE0, as it begins in both orders of bytes
_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"  # that of files without a header, as they were before 1993


class _Rescale(NamedTuple):
    """Holds what stored values of a frame are multiplied by, and what is added then."""

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_whole(self) -> bool:
        return self.slope.is_integer() and self.intercept.is_integer()


def describe_dicom(source: Source) -> FileLayout:
    """Return what a DICOM file holds, from its elements in front of the pixels."""
    with _opened(source, _DESCRIBING, with_pixels=False) as dataset:
        channels = _channels(dataset)
        return FileLayout(
            _frame_count(dataset), dataset.Rows, dataset.Columns, channels, _described_dtype(dataset), channels == 3
        )


def read_dicom(source: Source, planes: Sequence[int]) -> StoredSamples:
    """Return frames of a DICOM file, rescaled; of MONOCHROME1, whose least value is white, inverted before that."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    with _opened(source, (*_DESCRIBING, *_PIXELS), with_pixels=True) as dataset:
        _check_decoder(dataset)
        rescales = _rescales(dataset)
        is_palette, has_table = dataset.PhotometricInterpretation == "PALETTE COLOR", bool(_table(dataset))
        dtype, bits = _described_dtype(dataset), _bits_stored(dataset)
        read = []
        for plane in planes:
            try:
                frame = pixel_array(dataset, index=plane)
            except RuntimeError as error:  # it lists what each decoder said, the last of which is the most telling
                said = " ".join(str(error).split()).rpartition("plugins: ")[2]
                raise ValueError(f"its pixels cannot be decoded here: {said}") from error
            if is_palette:
                frame = apply_color_lut(frame, dataset)
            elif _channels(dataset) == 1:
                frame = _upward(frame, dataset)
                frame = apply_modality_lut(frame, dataset) if has_table else _rescaled(frame, rescales[plane])
            read.append(frame if frame.ndim == 3 else frame[..., None])
        values = in_own_order(np.stack(read))
        if bits == 1:
            values = values.astype(bool).astype(np.uint8) * np.uint8(255)
        if values.dtype.kind in "ui" and dtype in ("uint16", "int16"):
            values = _narrowed(values, np.dtype(dtype))
        is_stored = rescales == [_Rescale()] * len(rescales) and not has_table and not is_palette
        used = bits if is_stored and 8 < bits <= 16 else 8 * values.dtype.itemsize
        is_colour = values.shape[-1] == 3
        return StoredSamples(values, used, is_colour, place=FilePlace(spacing_mm=_spacing(dataset)))


@contextmanager
def _opened(source: Source, keywords: Sequence[str], *, with_pixels: bool) -> Iterator["Dataset"]:
    """Read some elements of a file. Raises ValueError where there are no pixels among the others."""
    from pydicom import dcmread
    from pydicom.datadict import tag_for_keyword
    from pydicom.errors import InvalidDicomError

    tags = [tag for tag in map(tag_for_keyword, keywords) if tag is not None]
    with BoundedFile(source.path) as file:
        try:
            with parsing():
                # Files of the time before the header was agreed on have none: their ending says what they are.
                dataset = dcmread(file, stop_before_pixels=not with_pixels, force=True, specific_tags=list(tags))
        except InvalidDicomError:
            raise ValueError("it is no DICOM file") from None
        if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
            from pydicom.uid import UID

            dataset.file_meta.TransferSyntaxUID = UID(_IMPLICIT_LITTLE_ENDIAN)
        if "Rows" not in dataset or "Columns" not in dataset or not _has_pixels(file, dataset, with_pixels):
            raise ValueError("it holds no pixel data: a report, a plan or a directory, or no DICOM file at all")
        check_size(dataset.Columns, dataset.Rows)
        _check_elements(dataset)
        yield dataset


def _has_pixels(file: BinaryIO, dataset: "Dataset", with_pixels: bool) -> bool:
    if with_pixels:
        return any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
    # What is deflated is parsed as a whole, somewhere else: whether it has pixels is known when these are read.
    return dataset.file_meta.TransferSyntaxUID == _DEFLATED or file.read(2) in _PIXEL_GROUPS


def _check_elements(dataset: "Dataset") -> None:
    missing = [
        keyword
        for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
        if dataset.get(keyword) is None
    ]
    if missing:
        raise ValueError(f"it does not say its {', '.join(missing)}")
    if _channels(dataset) not in (1, 3):
        raise ValueError(f"it has {dataset.SamplesPerPixel} samples a pixel, and 1 or 3 are read")


def _check_decoder(dataset: "Dataset") -> None:
    """Raise ValueError where no installed package decompresses the pixels."""
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        is_there = not syntax.is_encapsulated or get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        raise ValueError(f"its kind of pixel data, {syntax.name}, is not read: decompress it") from None
    if not is_there:
        raise ValueError(
            f"its compression, {syntax.name}, has no decoder here: pip install pylibjpeg pylibjpeg-libjpeg "
            "pylibjpeg-openjpeg, or decompress it"
        )


def _channels(dataset: "Dataset") -> int:
    return 3 if dataset.PhotometricInterpretation == "PALETTE COLOR" else int(dataset.SamplesPerPixel)


def _frame_count(dataset: "Dataset") -> int:
    count = dataset.get("NumberOfFrames") or 1
    try:
        return max(1, int(count))
    except ValueError:
        raise ValueError(f"its number of frames is no number: {count!r}") from None


def _bits_stored(dataset: "Dataset") -> int:
    return int(dataset.get("BitsStored") or dataset.BitsAllocated)


def _spacing(dataset: "Dataset") -> tuple[float, float] | None:
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    return checked_spacing(*spacing) if spacing is not None and len(spacing) == 2 else None


# --- the units of values -------------------------------------------------------------------------------------------


def _table(dataset: "Dataset") -> Any:
    """Return the table that stored values are looked up in, where that takes the place of a slope."""
    sequence = dataset.get("ModalityLUTSequence")
    return sequence[0] if sequence else None


def _rescales(dataset: "Dataset") -> list[_Rescale]:
    """Return the slope and the intercept of each frame."""
    of_all = _Rescale(
        float(dataset.get("RescaleSlope") or dataset.get("DoseGridScaling") or 1),
        float(dataset.get("RescaleIntercept") or 0),
    )
    shared = dataset.get("SharedFunctionalGroupsSequence")
    if shared:
        of_all = _of_group(shared[0], of_all)
    rescales = [of_all] * _frame_count(dataset)
    for place, group in enumerate(list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[: len(rescales)]):
        rescales[place] = _of_group(group, of_all)
    return rescales


def _of_group(group: "Dataset", otherwise: _Rescale) -> _Rescale:
    transformation = group.get("PixelValueTransformationSequence")
    if not transformation:
        return otherwise
    return _Rescale(float(transformation[0].RescaleSlope), float(transformation[0].RescaleIntercept))


def _described_dtype(dataset: "Dataset") -> SampleDtype:
    """Return the type that holds a file's values, by what it says of them and not by what they are.

    Whole numbers with a sign, or that a negative intercept gives one, are int16; others uint16, or uint8 as stored.
    """
    bits, signed = _bits_stored(dataset), dataset.get("PixelRepresentation") == 1
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return "uint8" if int(dataset.RedPaletteColorLookupTableDescriptor[2]) <= 8 else "uint16"
    if table := _table(dataset):
        return "uint8" if int(table.LUTDescriptor[2]) <= 8 else "uint16"
    if _channels(dataset) == 3:
        return "uint8" if dataset.BitsAllocated <= 8 else "uint16"
    rescales = _rescales(dataset)
    if not all(rescale.is_whole for rescale in rescales) or _is_float(dataset):
        return "float32"
    if signed or any(rescale.intercept < 0 or rescale.slope < 0 for rescale in rescales):
        return "int16"
    return "uint8" if bits <= 8 and set(rescales) == {_Rescale()} else "uint16"


def _is_float(dataset: "Dataset") -> bool:
    """Return whether pixels are floating-point numbers, which alone have no number of stored bits."""
    return dataset.get("BitsStored") is None and dataset.BitsAllocated >= 32


def _upward(frame: SampleArray, dataset: "Dataset") -> SampleArray:
    """Turn stored values round where the least one is white."""
    if dataset.PhotometricInterpretation != "MONOCHROME1" or frame.dtype.kind == "f":
        return frame
    low, high = _ends(dataset)
    inverted: SampleArray = (low + high - frame.astype(np.int64)).astype(frame.dtype)
    return inverted


def _ends(dataset: "Dataset") -> tuple[int, int]:
    """Return the least and the greatest value that the stored bits hold."""
    bits = _bits_stored(dataset)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.get("PixelRepresentation") == 1 else (0, 2**bits - 1)


def _rescaled(frame: SampleArray, rescale: _Rescale) -> SampleArray:
    if rescale == _Rescale():
        return frame
    if rescale.is_whole and frame.dtype.kind in "ui":
        whole: SampleArray = frame.astype(np.int64) * int(rescale.slope) + int(rescale.intercept)
        return whole
    scaled: SampleArray = frame.astype(np.float64) * rescale.slope + rescale.intercept
    return scaled


def _narrowed(values: SampleArray, dtype: "np.dtype[Any]") -> SampleArray:
    """Return whole numbers in a type of 16 bits where it holds them, and as they are where it does not."""
    held = np.iinfo(dtype)
    return values.astype(dtype) if held.min <= values.min() and values.max() <= held.max else values
