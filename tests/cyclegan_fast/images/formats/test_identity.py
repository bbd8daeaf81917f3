"""Samples go through read, [-1, 1] and write in every format, and come back to 1 count; the libraries say what is in.

What is written is read back by tifffile, NumPy, Pillow, pydicom or nibabel directly, not by this project.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.pixels import to_pixels_array, to_signed_array
from cyclegan_fast.images.samples import describe_file, ending_for, read_samples, write_samples
from tests.cyclegan_fast.images.formats.made import HEIGHT, WIDTH, make_dicom, noise
from tests.cyclegan_fast.images.test_decoding import write_png

SIXTEEN = [
    PixelType(1, "uint16", 0, 65535),
    PixelType(1, "int16", -32768, 32767),
    PixelType(1, "uint16", 0, 4095),
    PixelType(1, "int16", -1000, 1000),
]


def there_and_back(source: Path, target: Path, kind: PixelType) -> None:
    read = read_samples(source, kind)
    assert read.values.dtype == kind.as_numpy
    back = to_pixels_array(to_signed_array(read.values, kind), kind)
    write_samples(replace(read, values=back), target, kind)


def assert_within_a_count(found: SampleArray, values: SampleArray, kind: PixelType) -> None:
    assert (found.dtype, found.shape) == (kind.as_numpy, values.shape)
    assert np.abs(found.astype(np.int64) - values.astype(np.int64)).max() <= 1


def of_kind(kind: PixelType) -> np.ndarray:
    return noise(kind.dtype, HEIGHT, WIDTH, kind.channels, low=int(kind.low), high=int(kind.high))


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 13])
@pytest.mark.parametrize("kind", SIXTEEN, ids=str)
def test_tiff(tmp_path: Path, kind: PixelType, channels: int) -> None:
    kind = replace(kind, channels=channels)
    values = of_kind(kind)
    options = {"photometric": "minisblack", "planarconfig": "contig"} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", values if channels > 1 else values[..., 0], **options)
    there_and_back(tmp_path / "a.tif", tmp_path / "b.tif", kind)
    found = tifffile.imread(tmp_path / "b.tif")
    assert_within_a_count(found if channels > 1 else found[..., None], values, kind)


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("kind", SIXTEEN, ids=str)
def test_arrays(tmp_path: Path, kind: PixelType, channels: int, ending: str) -> None:
    kind = replace(kind, channels=channels)
    values = of_kind(kind)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values)
    there_and_back(tmp_path / f"a{ending}", tmp_path / f"b{ending}", kind)
    found = np.load(tmp_path / f"b{ending}")
    assert_within_a_count(found["image"] if ending == ".npz" else found, values, kind)


@pytest.mark.parametrize("kind", [kind for kind in SIXTEEN if kind.dtype == "uint16"], ids=str)
def test_grey_png(tmp_path: Path, kind: PixelType) -> None:
    values = of_kind(kind)
    Image.fromarray(values[..., 0]).save(tmp_path / "a.png")
    assert ending_for(kind, ".png") == ".png"
    there_and_back(tmp_path / "a.png", tmp_path / "b.png", kind)
    assert_within_a_count(np.asarray(Image.open(tmp_path / "b.png"))[..., None], values, kind)


def test_coloured_png_of_16_bits_becomes_tiff(tmp_path: Path) -> None:
    kind = PixelType(3, "uint16", 0, 65535)
    values = of_kind(kind)
    write_png(tmp_path / "a.png", values, 16)
    assert describe_file(tmp_path / "a.png").channels == 3
    assert ending_for(kind, ".png") == ".tif"
    there_and_back(tmp_path / "a.png", tmp_path / "b.tif", kind)
    assert_within_a_count(tifffile.imread(tmp_path / "b.tif"), values, kind)


@pytest.mark.parametrize("kind", SIXTEEN, ids=str)
def test_dicom_becomes_tiff_in_its_own_units(tmp_path: Path, kind: PixelType) -> None:
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    intercept = -24 if kind == SIXTEEN[3] else 0
    stored = of_kind(kind)[..., 0] - np.int16(intercept) if intercept else of_kind(kind)[..., 0]
    make_dicom(tmp_path / "a.dcm", stored[None], RescaleSlope=1, RescaleIntercept=intercept)
    ending = ending_for(kind, ".dcm")
    there_and_back(tmp_path / "a.dcm", tmp_path / f"b{ending}", kind)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    values = pydicom.pixels.apply_modality_lut(pydicom.pixels.pixel_array(dataset), dataset).astype(np.int64)
    assert_within_a_count(tifffile.imread(tmp_path / f"b{ending}"), values, kind)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", SIXTEEN, ids=str)
def test_nifti(tmp_path: Path, kind: PixelType, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    values = noise(kind.dtype, 5, 6, 7, low=int(kind.low), high=int(kind.high))
    affine = np.array([[0, -2, 0, 10], [1.5, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
    nibabel.Nifti1Image(values, affine).to_filename(tmp_path / f"a{ending}")
    read = read_samples(tmp_path / f"a{ending}", kind, frames="slices")
    back = to_pixels_array(to_signed_array(read.values, kind), kind)
    write_samples(replace(read, values=back), tmp_path / f"b{ending}", kind)
    found = nibabel.load(tmp_path / f"b{ending}")
    assert np.array_equal(found.affine, nibabel.load(tmp_path / f"a{ending}").affine)
    assert_within_a_count(np.asarray(found.dataobj), values, kind)


@pytest.mark.parametrize("ending", [".tif", ".npy"])
def test_floating_point_values_come_back_to_a_rounding(tmp_path: Path, ending: str) -> None:
    kind = PixelType(2, "float32", -1000, 3000)
    values = noise("float32", HEIGHT, WIDTH, 2)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    np.save(tmp_path / "a.npy", values)
    there_and_back(tmp_path / f"a{ending}", tmp_path / f"b{ending}", kind)
    found = tifffile.imread(tmp_path / "b.tif") if ending == ".tif" else np.load(tmp_path / "b.npy")
    assert np.abs(found - values).max() <= 4000 * 2**-23
