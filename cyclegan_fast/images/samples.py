"""Reads image files as samples of a domain's type, and writes them: any channels, of 8 or more bits.

Files of 8-bit RGB become the pixels that decoding.py makes of them. The modules of formats/ read everything else as it
is stored, and formats/conversion.py converts that, or says why it cannot.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.files import encoded, write_encoded
from cyclegan_fast.images.folders import ARRAY_ENDINGS, DICOM_ENDINGS, NIFTI_ENDINGS, ending_of
from cyclegan_fast.images.formats.arrays import encoded_array
from cyclegan_fast.images.formats.conversion import convert, luma
from cyclegan_fast.images.formats.pictures import encoded_png, is_of_png
from cyclegan_fast.images.formats.recognition import TIFF_ENDINGS, FormatName, format_of_file
from cyclegan_fast.images.formats.registry import describe_stored, read_stored
from cyclegan_fast.images.formats.stored import Axis, FilePlace, Frames, Source, StoredSamples
from cyclegan_fast.images.levels import Extent, ValueRange
from cyclegan_fast.images.pixel_type import DomainName, PixelType, SampleArray, SampleDtype
from cyclegan_fast.images.unreadable import reading

__all__ = ["Axis", "FileKind", "Frames", "Samples", "describe_file", "ending_for", "read_samples", "write_samples"]

_SAME_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")  # of files of 8-bit RGB


@dataclass(frozen=True)
class FileKind:
    """Describes the images that `read_samples` gives of a file, by the file's header.

    frames: how many pages, slices or frames the file holds.
    images: how many images it gives: 1 unless these are images of their own.
    dtype: the type that its samples have, by NumPy's name: uint8, uint16, int16 or float32.
    is_colour: whether the first three channels are red, green and blue.
    has_opacity: whether the last channel is opacity, which is laid over white.
    is_georeferenced: whether it says where on the Earth its pixels lie, which only TIFF keeps.
    """

    frames: int
    height: int
    width: int
    channels: int
    dtype: SampleDtype
    is_colour: bool
    has_opacity: bool = False
    images: int = 1
    is_georeferenced: bool = False


@dataclass(frozen=True)
class Samples:
    """Holds what was read of a file.

    values: [S, H, W, C] in the domain's type, upright and in the file's order; S is 1 but for slices.
    place: what `write_samples` puts back; nothing of a patient.
    masked: how many values are NaN, which only float32 has; None for none.
    extent: that of the file's values where they had more than 8 bits and became 8-bit ones.
    """

    values: SampleArray
    place: FilePlace | None = None
    masked: int | None = None
    extent: Extent | None = None


def describe_file(path: Path, frames: Frames = "first", axis: Axis = 2) -> FileKind:
    """Return what images a file gives, from its header.

    Args:
        frames: what further pages, slices or frames are.
        axis: the axis of a volume that its slices are across.

    Raises UnreadableImage.
    """
    with reading(path):
        layout = describe_stored(format_of_file(path), Source(path, axis, frames))
        images = layout.images(frames)
        return FileKind(
            layout.planes,
            layout.height,
            layout.width,
            layout.channels * len(images[0]),
            layout.dtype,
            layout.is_colour and len(images[0]) == 1,
            layout.has_opacity and len(images[0]) == 1,
            len(images),
            layout.is_georeferenced,
        )


def read_samples(
    path: Path,
    kind: PixelType,
    *,
    frames: Frames = "first",
    deep_range: ValueRange | None = None,
    axis: Axis = 2,
    index: int | None = None,
    flags_of: DomainName | None = None,
) -> Samples:
    """Read a file as samples of a domain's type.

    Args:
        frames: what further pages, slices or frames are.
        deep_range: the values that become 0 and 255 where samples of more than 8 bits become 8-bit ones.
        axis: the axis of a volume that its slices are across.
        index: the only one of the file's images that is read; by default, all are.
        flags_of: the domain of a training whose flags say its type, which a refusal names; None where a run has it.

    Raises UnreadableImage, naming what the file has and what would help, and DoesNotFit for too large ones.
    """
    with reading(path):
        source, name = Source(path, axis, frames), format_of_file(path)
        if kind.dtype == "uint8" and kind.channels in (1, 3) and (frames == "first" or name == "picture"):
            shown = _shown(name, source, kind, deep_range)
            if shown is not None:
                return shown
        images = describe_stored(name, source).images(frames)
        chosen = images if index is None else [images[index]]
        stored = read_stored(name, source, [plane for image in chosen for plane in image])
        converted = convert(_joined(stored, len(chosen)), kind, deep_range, flags_of)
        return Samples(converted.values, stored.place, converted.masked, converted.extent)


def write_samples(samples: Samples, path: Path, kind: PixelType) -> None:
    """Write samples in the format of the name's ending, with their place; the file appears whole or not at all.

    Raises ValueError for a format that cannot hold them: `ending_for` gives one that can.
    """
    write_encoded(encoded_samples(samples, ending_of(path.name), kind), path)


def ending_for(kind: PixelType, like: str, *, frames: Frames = "first", is_georeferenced: bool = False) -> str:
    """Return the ending of the file that samples are written to which come from a file with the ending `like`.

    What `like` can hold stays as it is; otherwise they become PNG where that holds them, and TIFF where it does not.
    """
    like = like.lower()
    if like in ARRAY_ENDINGS or (like in NIFTI_ENDINGS and kind.channels == 1):
        return like
    if is_georeferenced or frames == "slices":
        return ".tif"
    if kind.is_rgb:
        return like if like in _SAME_ENDINGS else ".png"
    return ".png" if is_of_png(kind) and like not in (*TIFF_ENDINGS, *DICOM_ENDINGS) else ".tif"


def _shown(name: FormatName, source: Source, kind: PixelType, deep_range: ValueRange | None) -> Samples | None:
    """Read a picture as the 8-bit RGB that decoding.py makes of it, or as the grey of that; None for other files."""
    place = None
    if name == "tiff":
        from cyclegan_fast.images.formats.tiff_samples import glance_at_tiff

        is_of_bands, place = glance_at_tiff(source)
        if is_of_bands and kind.channels == 3:
            return None
    elif name != "picture":
        return None
    decoded = decode(source.path, deep_range)
    values = decoded.pixels[None]
    return Samples(values if kind.channels == 3 else luma(values), place, extent=decoded.extent)


def _joined(stored: StoredSamples, images: int) -> StoredSamples:
    """Make channels of the planes that belong to an image."""
    count, height, width, channels = stored.values.shape
    planes = count // images
    if planes == 1:
        return stored
    if stored.has_opacity:
        raise ValueError("its pages have opacity, which is no channel: save them without it")
    apart = stored.values.reshape(images, planes, height, width, channels)
    values = apart.transpose(0, 2, 3, 1, 4).reshape(images, height, width, planes * channels)
    return replace(stored, values=values, is_colour=False)


def encoded_samples(samples: Samples, ending: str, kind: PixelType) -> bytes:
    """Return the content of a file of samples of `kind`, with their place, in the format of a name's ending.

    Raises ValueError for a format that cannot hold them: `ending_for` gives one that can.
    """
    values, place = samples.values, samples.place or FilePlace()
    if values.ndim != 4 or values.shape[-1] != kind.channels or values.dtype != kind.as_numpy:
        raise ValueError(f"samples {list(values.shape)} of {values.dtype} are not {kind}")
    if ending in ARRAY_ENDINGS:
        return encoded_array(values, place, in_archive=ending == ".npz")
    if ending in NIFTI_ENDINGS and kind.channels == 1:
        from cyclegan_fast.images.formats.nifti import encoded_nifti

        _check_place(values, place.volume.size if place.volume is not None else None)
        return encoded_nifti(values, place.volume, compressed=ending == ".nii.gz")
    if ending in TIFF_ENDINGS:
        from cyclegan_fast.images.formats.tiff_samples import encoded_tiff

        _check_place(values, place.size)
        return encoded_tiff(values, kind, place)
    if len(values) == 1 and kind.is_rgb and ending != ".png":
        return encoded(values[0], ending)
    if len(values) == 1 and ending == ".png" and is_of_png(kind):
        return encoded_png(values[0], kind)
    raise ValueError(f"{ending} cannot hold {len(values)} images of {kind}")


def _check_place(values: SampleArray, size: tuple[int, ...] | None) -> None:
    """Raise ValueError where an image has another size than the one whose place it would get."""
    if size is not None and values.shape[1:3] != size:
        raise ValueError(
            f"{values.shape[2]}x{values.shape[1]} pixels do not lie where the {size[1]}x{size[0]} of the file do: "
            "keep the size, or leave out the place"
        )
