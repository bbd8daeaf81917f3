"""Damaged files of samples: TIFF of many channels and pages, arrays, DICOM and NIfTI are read or named, in one line.

What is read has the size, channels and type that the header promised, goes into a file and comes back the same. No file
costs more memory than it could hold pixels, or takes long.
"""

import io
import random
import resource
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np

from cyclegan_fast.images.folders import ending_of
from cyclegan_fast.images.formats.stored import Frames
from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.images.samples import describe_file, ending_for, read_samples, write_samples
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.shortage import DoesNotFit
from tests.cyclegan_fast.images.formats.made import make_dicom
from tests.faults.harness import Campaign, Tally
from tests.faults.harness_image_files import DAMAGES, deep_png, photo, tiff
from tests.faults.images import few_pixels

MOST_SECONDS = 20.0
MOST_GROWTH_MIB = 400


def whole_sample_files(work: Path) -> dict[str, bytes]:
    """Return files of every kind of samples, by name; those whose package is not installed are left out."""
    six, pages = photo(6, "uint16"), np.moveaxis(photo(4, "uint16"), -1, 0)
    floating = photo(2, "uint16").astype(np.float32) / 7
    floating[3, 4:9] = np.nan
    georeference = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (42113, 2, 6, "-9999\0", True)]
    bands = {"photometric": "minisblack", "planarconfig": "contig"}
    files = {
        "six.tif": tiff(six, compression="zlib", predictor=2, **bands),
        "planar.tif": tiff(np.moveaxis(six, -1, 0), photometric="minisblack", planarconfig="separate", tile=(16, 16)),
        "pages.tif": tiff(pages),
        "ome.tif": tiff(pages, ome=True, metadata={"axes": "CYX"}),
        "imagej.tif": tiff(pages, imagej=True, metadata={"axes": "ZYX"}),
        "floating.tif": tiff(floating, extratags=georeference, bigtiff=True, **bands),
        "rgb16.png": deep_png(3),
        "rgba16.png": deep_png(4),
        "one.npy": _array(six),
        "big-endian.npy": _array(np.asfortranarray(floating.astype(">f8"))),
        "slices.npy": _array(pages[..., None].astype(np.int16)),
        "packed.npz": _array(six, packed=True),
    }
    return files | _medical_files(work)


def _array(values: np.ndarray, *, packed: bool = False) -> bytes:
    content = io.BytesIO()
    if packed:
        np.savez_compressed(content, image=values)
    else:
        np.save(content, values)
    return content.getvalue()


def _medical_files(work: Path) -> dict[str, bytes]:
    files = {}
    frames = np.moveaxis(photo(3, "uint16"), -1, 0) >> 4
    try:
        make_dicom(work / "frames.dcm", frames, bits=12, RescaleSlope=1, RescaleIntercept=-1024)
        make_dicom(work / "inverted.dcm", frames[:1], PhotometricInterpretation="MONOCHROME1", RescaleSlope=0.5)
        files |= {name: (work / name).read_bytes() for name in ("frames.dcm", "inverted.dcm")}
    except ModuleNotFoundError:
        pass  # pydicom
    try:
        import nibabel
    except ModuleNotFoundError:
        return files
    for name in ("volume.nii", "volume.nii.gz"):
        nibabel.Nifti1Image(frames.astype(np.int16), np.diag([2, -3, 4, 1])).to_filename(work / name)
        files[name] = (work / name).read_bytes()
    return files


def damaged_sample_files(files: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield names, damages and contents: every whole file meets every damage in turn."""
    rng, whole = np.random.default_rng(seed), list(files.items())
    for index in range(count):
        name, content = whole[index % len(whole)]
        damage = DAMAGES[index // len(whole) % len(DAMAGES)]
        yield name, damage.__name__, damage(content, rng)


def came_of(path: Path, frames: Frames) -> tuple[str, bool]:
    """Return what came of a file, and whether that is a failure."""
    try:
        found = describe_file(path, frames)
    except (UnreadableImage, DoesNotFit) as error:
        return _named(path, error)
    kind = PixelType(found.channels, found.dtype, 0, 255) if found.channels <= 256 else None
    if kind is None:
        return "too many channels", False
    try:
        samples = read_samples(path, kind, frames=frames)
    except (UnreadableImage, DoesNotFit) as error:
        return _named(path, error)
    promised = (found.images, found.height, found.width, found.channels)
    if samples.values.shape != promised or samples.values.dtype != kind.as_numpy:
        return f"{samples.values.shape} {samples.values.dtype} in place of {promised} {found.dtype}", True
    ending = ending_for(kind, ending_of(path.name), frames=frames, is_georeferenced=found.is_georeferenced)
    back = path.with_name(f"back{ending}")
    write_samples(samples, back, kind)
    again = read_samples(back, kind, frames=frames)
    if not np.array_equal(again.values, samples.values, equal_nan=True):
        return f"other values in {back.name}", True
    return "read", False


def _named(path: Path, error: Exception) -> tuple[str, bool]:
    said = str(error)
    is_line = said.startswith(f"{path}: ") and "\n" not in said and len(said) < len(str(path)) + 600
    return ("named", False) if is_line else (f"no line: {said!r}", True)


def make(tally: Tally, work: Path, count: int, random: random.Random) -> None:
    """Damage files of samples."""
    files = whole_sample_files(work)
    with few_pixels(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pydicom|nibabel)\.")
        for index, (name, damage, content) in enumerate(damaged_sample_files(files, count, random.randrange(2**32))):
            path = work / f"{index}-{damage}-{name}"
            path.write_bytes(content)
            frames = random.choice(get_args(Frames))
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            try:
                result, failed = came_of(path, frames)
            except Exception as error:
                result, failed = f"{type(error).__name__}: {error}", True
            growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            if growth > MOST_GROWTH_MIB or time.process_time() - began > MOST_SECONDS:
                result, failed = f"{result}, {growth:.0f} MiB, {time.process_time() - began:.0f} s", True
            tally.add(f"{path.name} as {frames}", result, failed=failed)
            if not failed:
                path.unlink()


CAMPAIGN = Campaign(make, full=4000, few=500)
