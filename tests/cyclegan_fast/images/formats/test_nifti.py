"""Slices of NIfTI are what nibabel says, as radiologists look at them, and go back to where they were."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.formats.stored import Axis
from cyclegan_fast.images.pages import page_count
from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.images.samples import Samples, describe_file, read_samples, write_samples
from cyclegan_fast.images.unreadable import UnreadableImage
from tests.cyclegan_fast.images.formats.made import noise

nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
SHIPPED = Path(nibabel.__file__).parent / "tests" / "data"
KIND = PixelType(1, "int16", -32768, 32767)
SHAPE = (5, 6, 7)  # of the patient's right, front and head


def make(path: Path, values: np.ndarray, codes: str = "RAS", **fields: Any) -> np.ndarray:
    """Write values [right, front, head] as a volume whose axes go to `codes`, and return its affine."""
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (-11, 7, 30)
    ornt = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    image = nibabel.Nifti1Image(values, affine).as_reoriented(ornt)
    assert nibabel.aff2axcodes(image.affine) == tuple(codes)
    image.header["descrip"] = "Secret^Patient"
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    return image.affine


def read(path: Path, kind: PixelType = KIND, **options: Any) -> np.ndarray:
    samples = read_samples(path, kind, **options)
    assert samples.values.dtype == kind.as_numpy
    return samples.values[..., 0]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "ASL", "SRP", "IPR"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_lie_as_radiologists_see_them(tmp_path: Path, axis: Axis, codes: str, ending: str) -> None:
    values = noise("int16", *SHAPE)
    path = tmp_path / f"a{ending}"
    make(path, values, codes)
    right, front, head = SHAPE
    expected = {
        # The head is on top, the front on the left; slices go to the right.
        0: np.array(
            [
                [[values[s, front - 1 - c, head - 1 - r] for c in range(front)] for r in range(head)]
                for s in range(right)
            ]
        ),
        # The head is on top, the patient's right on the left; slices go to the front.
        1: np.array(
            [
                [[values[right - 1 - c, s, head - 1 - r] for c in range(right)] for r in range(head)]
                for s in range(front)
            ]
        ),
        # The front is on top, the patient's right on the left; slices go to the head.
        2: np.array(
            [
                [[values[right - 1 - c, front - 1 - r, s] for c in range(right)] for r in range(front)]
                for s in range(head)
            ]
        ),
    }[axis]
    kind = describe_file(path, "slices", axis)
    assert (kind.images, kind.height, kind.width, kind.channels, kind.dtype) == (*expected.shape, 1, "int16")
    assert np.array_equal(read(path, frames="slices", axis=axis), expected)
    assert np.array_equal(read(path, axis=axis), expected[:1])
    assert np.array_equal(read(path, frames="slices", axis=axis, index=3), expected[3:4])
    together = read_samples(path, replace(KIND, channels=len(expected)), frames="channels", axis=axis)
    assert np.array_equal(together.values[0], np.moveaxis(expected, 0, -1))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_goes_back_to_where_it_was(tmp_path: Path, axis: Axis, codes: str) -> None:
    values = noise("int16", *SHAPE)
    affine = make(tmp_path / "a.nii.gz", values, codes)
    samples = read_samples(tmp_path / "a.nii.gz", KIND, frames="slices", axis=axis)
    write_samples(samples, tmp_path / "b.nii.gz", KIND)
    one, other = nibabel.load(tmp_path / "a.nii.gz"), nibabel.load(tmp_path / "b.nii.gz")
    assert np.array_equal(other.affine, affine)
    assert np.array_equal(np.asarray(other.dataobj), np.asarray(one.dataobj))
    for name in ("sform_code", "qform_code", "pixdim", "xyzt_units", "quatern_b", "srow_x"):
        assert np.array_equal(one.header[name], other.header[name]), name
    assert "Secret" in str(one.header["descrip"])
    assert "Secret" not in repr(samples) + str(other.header)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_goes_back_to_where_it_was(tmp_path: Path, axis: Axis, codes: str) -> None:
    values = noise("int16", *SHAPE)
    make(tmp_path / "a.nii", values, codes)
    samples = read_samples(tmp_path / "a.nii", KIND, frames="slices", axis=axis, index=3)
    write_samples(samples, tmp_path / "b.nii", KIND)
    other = nibabel.load(tmp_path / "b.nii")
    in_place = nibabel.as_closest_canonical(other)
    at = [slice(None)] * 3
    at[axis] = slice(3, 4)
    assert np.array_equal(np.asarray(in_place.dataobj), values[tuple(at)])
    origin = np.zeros(4)
    origin[axis], origin[3] = 3, 1
    whole = nibabel.as_closest_canonical(nibabel.load(tmp_path / "a.nii"))
    assert np.allclose(in_place.affine @ [0, 0, 0, 1], whole.affine @ origin)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, 0, "int16"), (1, -1024, "int16"), (0.25, 3, "float32"), (2, 1, "int16")]
)
def test_values_are_in_the_units_of_the_file(tmp_path: Path, slope: float, intercept: float, dtype: Any) -> None:
    values = noise("int16", *SHAPE, low=0, high=4095)
    image = nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1]))
    image.header.set_slope_inter(slope, intercept)
    image.to_filename(tmp_path / "a.nii")
    header = bytearray((tmp_path / "a.nii").read_bytes())
    header[112:120] = np.array([slope, intercept], "<f4").tobytes()  # nibabel has none of these for whole numbers
    stored = np.frombuffer(bytes(header[352:]), "<i2").reshape(SHAPE, order="F")
    (tmp_path / "a.nii").write_bytes(header)
    assert describe_file(tmp_path / "a.nii").dtype == dtype
    expected = (stored * float(slope) + intercept).transpose(2, 1, 0)
    assert np.array_equal(expected.transpose(2, 1, 0), nibabel.load(tmp_path / "a.nii").get_fdata())
    assert np.array_equal(read(tmp_path / "a.nii", PixelType(1, dtype, 0, 1), frames="slices"), expected)


@pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz"])
def test_files_of_nibabel_are_what_it_says(name: str) -> None:
    if not (SHIPPED / name).exists():
        pytest.skip(f"nibabel is installed without its file {name}")
    found = describe_file(SHIPPED / name)
    values = np.asarray(nibabel.as_closest_canonical(nibabel.load(SHIPPED / name)).dataobj)
    expected = values[::-1, ::-1].transpose(2, 1, 0)
    kind = PixelType(1, found.dtype, 0, 255)
    assert np.array_equal(read(SHIPPED / name, kind, frames="slices"), expected)
    assert page_count(SHIPPED / name) == len(expected)


def test_colours_are_read(tmp_path: Path) -> None:
    values = noise("uint8", *SHAPE, 3)
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(values.view(rgb)[..., 0], np.diag([-1, -1, 1, 1])).to_filename(tmp_path / "a.nii")
    kind = describe_file(tmp_path / "a.nii")
    assert (kind.channels, kind.dtype, kind.is_colour) == (3, "uint8", True)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.nii")), values[:, :, 0].transpose(1, 0, 2))


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7, 1), (5, 6, 7, 1, 1)], ids=str)
def test_sides_of_1_are_no_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = noise("int16", *shape)
    nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1])).to_filename(tmp_path / "a.nii")
    found = read(tmp_path / "a.nii", frames="slices")
    assert np.array_equal(found, values.reshape(*shape[:2], -1).transpose(2, 1, 0))
    assert np.array_equal(read(tmp_path / "a.nii"), found[:1])


def test_four_dimensions_are_refused_in_one_line(tmp_path: Path) -> None:
    nibabel.Nifti1Image(noise("int16", 5, 6, 7, 2), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    with pytest.raises(UnreadableImage, match="it has 4 dimensions, 5 x 6 x 7 x 2: save each of its 2 volumes"):
        describe_file(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("length", [0, 10, 300, 360, 0.5, 0.95])
def test_a_cut_file_is_named(tmp_path: Path, length: float, ending: str) -> None:
    make(tmp_path / f"a{ending}", noise("int16", 20, 20, 20))
    content = (tmp_path / f"a{ending}").read_bytes()
    (tmp_path / f"a{ending}").write_bytes(content[: length if length >= 10 else int(length * len(content))])
    with pytest.raises(UnreadableImage, match=rf"a{ending}: ") as refusal:
        read(tmp_path / f"a{ending}", frames="slices")
    assert "\n" not in str(refusal.value)


def test_a_claim_that_no_file_holds_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "a.nii", noise("int16", *SHAPE))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(UnreadableImage, match="it is cut off: its 772 bytes cannot hold 30000 x 30000 x 30000 values"):
        describe_file(tmp_path / "a.nii")


def test_an_image_of_another_size_does_not_get_the_place(tmp_path: Path) -> None:
    make(tmp_path / "a.nii", noise("int16", *SHAPE))
    place = read_samples(tmp_path / "a.nii", KIND).place
    with pytest.raises(ValueError, match="4x4 pixels do not lie where the 5x6 of the file do"):
        write_samples(Samples(np.zeros((1, 4, 4, 1), np.int16), place), tmp_path / "b.nii", KIND)


def test_without_nibabel_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a.nii", noise("int16", *SHAPE))
    for name in [name for name in sys.modules if name.partition(".")[0] == "nibabel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(
        UnreadableImage, match="NIfTI is read with nibabel, which is not installed: pip install nibabel"
    ):
        describe_file(tmp_path / "a.nii")
