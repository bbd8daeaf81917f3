"""DICOM's values are those that pydicom gives, in the file's units; nothing of a patient leaves the file."""

import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.folders import search
from cyclegan_fast.images.pages import page_count
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleDtype
from cyclegan_fast.images.samples import describe_file, read_samples, write_samples
from cyclegan_fast.images.unreadable import UnreadableImage
from tests.cyclegan_fast.images.formats.made import HEIGHT, WIDTH, make_dicom, noise

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


def kind_of(path: Path) -> PixelType:
    found = describe_file(path)
    return PixelType(found.channels, found.dtype, 0, 255)


def values_of(path: Path, kind: PixelType | None = None, **options: Any) -> np.ndarray:
    kind = kind or kind_of(path)
    samples = read_samples(path, kind, **options)
    assert samples.values.dtype == kind.as_numpy
    return samples.values


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("CT_small.dcm", "int16"),  # with the header of a TIFF in front of its own
        ("MR_small.dcm", "int16"),
        ("MR_small_bigendian.dcm", "int16"),
        ("MR_small_implicit.dcm", "int16"),
        ("MR_small_RLE.dcm", "int16"),
        ("693_J2KI.dcm", "int16"),
        ("examples_overlay.dcm", "uint16"),
        ("image_dfl.dcm", "uint8"),
        ("SC_rgb_rle_16bit.dcm", "uint16"),
        ("examples_rgb_color.dcm", "uint8"),
        ("SC_ybr_full_422_uncompressed.dcm", "uint8"),
        ("SC_rgb_jpeg_dcmtk.dcm", "uint8"),
    ],
)
def test_files_of_pydicom_are_what_it_says(name: str, dtype: SampleDtype) -> None:
    if not (SHIPPED / name).exists():
        pytest.skip(f"pydicom is installed without its file {name}")
    dataset = pydicom.dcmread(SHIPPED / name)
    values = pydicom.pixels.apply_modality_lut(pydicom.pixels.pixel_array(dataset), dataset)
    found = values_of(SHIPPED / name)
    assert found.dtype == dtype
    assert np.array_equal(found[0], values if values.ndim == 3 else values[..., None])
    assert describe_file(SHIPPED / name).is_colour == (values.ndim == 3)


def test_dose_and_frames_of_pydicom_are_what_it_says() -> None:
    path = SHIPPED / "rtdose.dcm"
    if not path.exists():
        pytest.skip("pydicom is installed without its file rtdose.dcm")
    dataset = pydicom.dcmread(path)
    dose = pydicom.pixels.pixel_array(dataset) * float(dataset.DoseGridScaling)
    assert np.abs(values_of(path, frames="slices")[..., 0] - dose).max() < 1e-6
    kind = describe_file(path, "channels")
    assert (kind.frames, kind.images, kind.channels, kind.dtype) == (15, 1, 15, "float32")
    assert page_count(path) == 15


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_the_least_value_may_be_white(tmp_path: Path, dtype: str, bits: int) -> None:
    least, most = (0, 2**bits - 1) if dtype == "uint16" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    stored = noise(dtype, 1, HEIGHT, WIDTH, low=least, high=most)
    make_dicom(tmp_path / "a.dcm", stored, bits=bits, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(values_of(tmp_path / "a.dcm")[..., 0].astype(int), least + most - stored.astype(int))


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, 0, "uint16"), (1, -1024, "int16"), (2, 10, "uint16"), (0.5, -3, "float32"), (-1, 0, "int16")],
)
def test_values_are_in_the_units_of_the_file(tmp_path: Path, slope: float, intercept: float, dtype: str) -> None:
    stored = noise("uint16", 2, HEIGHT, WIDTH, high=4095)
    make_dicom(tmp_path / "a.dcm", stored, bits=12, RescaleSlope=slope, RescaleIntercept=intercept)
    found = values_of(tmp_path / "a.dcm", frames="slices")
    assert found.dtype == dtype
    assert np.array_equal(found[..., 0], stored.astype(float) * slope + intercept)


def test_each_frame_has_its_own_slope(tmp_path: Path) -> None:
    groups = []
    for slope in (1, 3):
        transformation = pydicom.Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, -5
        group = pydicom.Dataset()
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    stored = noise("uint16", 2, HEIGHT, WIDTH, high=4095)
    make_dicom(tmp_path / "a.dcm", stored, PerFrameFunctionalGroupsSequence=groups)
    found = values_of(tmp_path / "a.dcm", frames="slices")[..., 0]
    assert np.array_equal(found, stored.astype(int) * np.array([1, 3])[:, None, None] - 5)
    assert np.array_equal(values_of(tmp_path / "a.dcm", frames="slices", index=1)[0, ..., 0], found[1])


def test_values_beyond_16_bits_are_refused_or_floating_point(tmp_path: Path) -> None:
    stored = noise("uint16", 1, HEIGHT, WIDTH, low=65000)
    make_dicom(tmp_path / "a.dcm", stored, RescaleSlope=1, RescaleIntercept=-10)
    with pytest.raises(UnreadableImage, match="do not fit int16, and the run takes 1 channel of int16"):
        values_of(tmp_path / "a.dcm")
    found = values_of(tmp_path / "a.dcm", PixelType(1, "float32", 0, 1))
    assert np.array_equal(found[..., 0], stored.astype(float) - 10)


def test_it_becomes_a_picture_of_8_bits(tmp_path: Path) -> None:
    colours = noise("uint8", 1, HEIGHT, WIDTH, 3)
    make_dicom(tmp_path / "a.dcm", colours)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.dcm")), colours[0])
    stored = noise("uint16", 1, HEIGHT, WIDTH, high=4095)
    make_dicom(tmp_path / "b.dcm", stored, bits=12)
    assert np.array_equal(values_of(tmp_path / "b.dcm", RGB)[0, ..., 1], np.rint(stored[0] / 4095 * 255))


def test_nothing_of_a_patient_leaves_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stored = noise("int16", 1, HEIGHT, WIDTH)
    make_dicom(tmp_path / "a.dcm", stored, PixelSpacing=[0.5, 0.25])
    samples = read_samples(tmp_path / "a.dcm", PixelType(1, "int16", -32768, 32767))
    write_samples(samples, tmp_path / "b.tif", PixelType(1, "int16", -32768, 32767))
    contents = [pickle.dumps(samples), repr(samples).encode(), (tmp_path / "b.tif").read_bytes()]
    contents.append(repr(describe_file(tmp_path / "a.dcm")).encode())
    cut = (tmp_path / "a.dcm").read_bytes()[:-100]
    (tmp_path / "a.dcm").write_bytes(cut)
    with pytest.raises(UnreadableImage) as refusal:
        values_of(tmp_path / "a.dcm")
    contents += [str(refusal.value).encode(), "".join(capfd.readouterr()).encode()]
    assert b"Secret" in cut
    assert not any(secret in content for content in contents for secret in (b"Secret", b"4711", b"19530724"))
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        page = tiff.pages.first
        assert (page.resolution, page.resolutionunit.name) == ((40, 20), "CENTIMETER")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rtplan.dcm", "it holds no pixel data: a report, a plan or a directory"),
        ("SC_rgb_jpeg_gdcm.dcm", "its compression, JPEG Lossless, .* has no decoder here: pip install"),
        ("MR_truncated.dcm", "bytes of pixel data is less than expected"),
        ("badVR.dcm", "its number of frames is no number"),
    ],
)
def test_what_cannot_be_read_is_one_line(name: str, message: str) -> None:
    if not (SHIPPED / name).exists():
        pytest.skip(f"pydicom is installed without its file {name}")
    if "decoder" in message and pydicom.pixels.get_decoder(pydicom.uid.JPEGLosslessSV1).is_available:
        pytest.skip("there is a decoder for it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableImage, match=message) as refusal:
            values_of(SHIPPED / name, PixelType(1, "int16", 0, 1))
    assert "\n" not in str(refusal.value)


def test_what_is_no_dicom_file_is_one_line(tmp_path: Path) -> None:
    for content in (b"", b"text " * 100, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 50):
        (tmp_path / "a.dcm").write_bytes(content)
        for read in (describe_file, read_image):
            with pytest.raises(UnreadableImage, match=r"a\.dcm: "):
                read(tmp_path / "a.dcm")


def test_without_pydicom_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dicom(tmp_path / "a.dcm", noise("uint16", 1, HEIGHT, WIDTH))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        UnreadableImage, match="DICOM is read with pydicom, which is not installed: pip install pydicom"
    ):
        describe_file(tmp_path / "a.dcm")


def test_folders_are_searched_for_its_endings(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.IMA", "c.dicom", "IM000001", "d.nii.gz", "e.nii", "f.npy", "g.npz"):
        make_dicom(tmp_path / name, noise("uint8", 1, 2, 2))
    found = search(tmp_path)
    assert [path.name for path in found.images] == ["a.dcm", "b.IMA", "c.dicom", "d.nii.gz", "e.nii", "f.npy", "g.npz"]
    assert "without an ending: IM000001; convert them, or give them the ending of their format" in found.missing[0]
    assert values_of(tmp_path / "IM000001").shape == (1, 2, 2, 1)
