"""Calls the module that reads a kind of file.

The modules are imported when they are first used: tifffile and the libraries of medical images take long.
"""

from collections.abc import Sequence

from cyclegan_fast.images.formats.arrays import describe_array, read_array
from cyclegan_fast.images.formats.pictures import describe_picture, read_picture
from cyclegan_fast.images.formats.recognition import FormatName
from cyclegan_fast.images.formats.stored import FileLayout, Source, StoredSamples


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
        case "dicom":
            from cyclegan_fast.images.formats.dicom import describe_dicom

            return describe_dicom(source)
        case "nifti":
            from cyclegan_fast.images.formats.nifti import describe_nifti

            return describe_nifti(source)


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
        case "dicom":
            from cyclegan_fast.images.formats.dicom import read_dicom

            return read_dicom(source, planes)
        case "nifti":
            from cyclegan_fast.images.formats.nifti import read_nifti

            return read_nifti(source, planes)
