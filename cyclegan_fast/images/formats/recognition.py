"""Recognises the format of a file by its first bytes, or by its ending where these do not tell."""

from pathlib import Path
from typing import BinaryIO, Literal

from cyclegan_fast.images.folders import ARRAY_ENDINGS, DICOM_ENDINGS, DICOM_MARK, NIFTI_ENDINGS, ending_of

FormatName = Literal["picture", "tiff", "array", "dicom", "nifti"]
"""The kinds of files, each of which one module reads; whatever Pillow decodes, apart from TIFF, is a picture."""

TIFF_ENDINGS = (".tif", ".tiff")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a file begins, classic and BigTIFF, in both byte orders


def format_of_file(path: Path) -> FormatName:
    """Return which kind of file it is. Raises OSError for a file that cannot be opened."""
    with open(path, "rb") as file:
        return format_of_opened(file, path.name)


def format_of_opened(file: BinaryIO, name: str) -> FormatName:
    """Return which kind of file it is that was opened under a name, and go back to its begin."""
    head, ending = file.read(DICOM_MARK.stop), ending_of(name)
    file.seek(0)
    # In front of the mark of a DICOM file there may be the header of a TIFF, and some are both.
    is_dicom, is_tiff = head[DICOM_MARK] == b"DICM", head.startswith(_TIFF)
    if is_tiff and (not is_dicom or ending in TIFF_ENDINGS):
        return "tiff"
    if is_dicom or ending in DICOM_ENDINGS:
        return "dicom"
    if head.startswith(b"\x93NUMPY") or ending in ARRAY_ENDINGS:
        return "array"
    return "nifti" if ending in NIFTI_ENDINGS else "picture"
