"""Translations of images that are not 8-bit RGB, by the command, from Python, and in strips."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import Image

import cyclegan_fast as cf
from cyclegan_fast.checkpoint.files import save
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.config.options import Config, DataConfig
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import to_pixels, to_signed
from cyclegan_fast.images.samples import Axis, read_samples
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translate import main
from cyclegan_fast.translation.trained import load_generator
from tests.cyclegan_fast.checkpoints import NARROW, checkpoint_of
from tests.cyclegan_fast.pictures import names
from tests.cyclegan_fast.translations import make_generator

pytestmark = pytest.mark.usefixtures("one_thread")

GREY16 = PixelType(1, "uint16", 0, 4095)
SIX = PixelType(6, "float32", -1, 3)
GREY = PixelType(1, "uint8")
SIGNED = PixelType(4, "int16", -1000, 1000)
PAIRS = [(GREY16, RGB), (SIX, GREY16), (SIGNED, SIGNED), (SIX, PixelType(2, "float32", -5, 5))]
SIZES = [(40, 48), (33, 45)]


def options_of(source: PixelType, target: PixelType, **more: Any) -> Config:
    """Return a configuration as a training on such images leaves it."""
    values: dict[str, Any] = {}
    for domain, kind in (("a", source), ("b", target)):
        values |= {f"channels_{domain}": kind.channels, f"dtype_{domain}": kind.dtype}
        values |= {} if kind.dtype == "uint8" else {f"range_{domain}": (kind.low, kind.high)}
    return Config(data=DataConfig(load_size=40, crop_size=32, **values, **more), networks=NARROW)


def network_of(source: PixelType, target: PixelType) -> ResnetGenerator:
    return make_generator(0, channels=(source.channels, target.channels))


def save_run(path: Path, source: PixelType, target: PixelType, **more: Any) -> Path:
    save(path, checkpoint_of(options_of(source, target, **more), {"G_A": network_of(source, target)}))
    return path


def samples_of(kind: PixelType, height: int, width: int, seed: int = 0) -> SampleArray:
    """Draw samples that rise from above to below, in the range of a type."""
    share = np.random.default_rng(seed).random((height, width, kind.channels)) * 0.4
    share += np.linspace(0, 0.6, height)[:, None, None]
    values = kind.low + share * (kind.high - kind.low)
    return values.astype(kind.as_numpy)


@torch.no_grad()
def directly(network: ResnetGenerator, samples: SampleArray, source: PixelType, target: PixelType) -> SampleArray:
    """Translate by the shortest route."""
    height, width = samples.shape[:2]
    padded = np.pad(samples, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")
    return to_pixels(network(to_signed(torch.from_numpy(padded)[None], source)), target)[0, :height, :width]


def write(path: Path, samples: SampleArray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, samples)
    else:
        stored = samples[..., 0] if samples.shape[-1] == 1 else samples
        options = {"photometric": "rgb" if samples.shape[-1] == 3 else "minisblack"}
        tifffile.imwrite(path, stored, **options, planarconfig="contig" if stored.ndim == 3 else None)
    return path


def read(path: Path) -> npt.NDArray[Any]:
    """Return what a file holds, [H, W, C] of one image, by the libraries themselves."""
    if path.suffix == ".npy":
        values: npt.NDArray[Any] = np.load(path)
    else:
        values = tifffile.imread(path) if path.suffix == ".tif" else np.asarray(Image.open(path))
    return values[..., None] if values.ndim == 2 else values


Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command into tmp_path/out with a run that was trained on such images."""

    def command(checkpoint: Path, *arguments: object, sheet: bool = False) -> int:
        fixed = ["--checkpoint", checkpoint, "--out", tmp_path / "out", "--device", "cpu"]
        return main([str(word) for word in [*arguments, *fixed, *([] if sheet else ["--no-contact-sheet"])]])

    return command


# --- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda kind: str(kind).replace(", ", "-"))
def test_the_command_python_and_strips_give_the_networks_numbers(
    tmp_path: Path, run: Run, source: PixelType, target: PixelType
) -> None:
    folder, network = save_run(tmp_path / "runs" / "x", source, target), network_of(source, target)
    images = [samples_of(source, *size, seed) for seed, size in enumerate(SIZES)]
    for index, samples in enumerate(images):
        write(tmp_path / "in" / f"{index}.tif", samples)
    write(tmp_path / "in" / "2.npy", images[0])
    assert run(folder, tmp_path / "in", "--batch-size", 1, sheet=True) == 0
    ending = ".png" if target.is_rgb else ".tif"
    assert names(tmp_path / "out") == {f"0{ending}", f"1{ending}", "2.npy", "contact_sheet.jpg"}
    expected = [directly(network, samples, source, target) for samples in images]
    translator = cf.load(folder, device="cpu")
    assert (translator.source, translator.target) == (source, target)
    for index, (samples, wanted) in enumerate(zip(images, expected, strict=True)):
        assert wanted.std() > 0.02 * (target.high - target.low), "a flat picture would prove nothing"
        written = read(tmp_path / "out" / f"{index}{ending}")
        assert written.dtype == target.as_numpy
        assert np.array_equal(written, wanted)
        assert np.array_equal(translator(samples), wanted)
        assert np.array_equal(translator(samples[None])[0], wanted)
    assert np.array_equal(np.load(tmp_path / "out" / "2.npy"), expected[0])
    # The order of sums differs in strips: 1e-4 of half of the range, as in test_tiled.py, and a count of rounding.
    assert run(folder, tmp_path / "in", "--tile", "--scratch", tmp_path, "--overwrite") == 0
    for index, wanted in enumerate(expected):
        difference = np.abs(read(tmp_path / "out" / f"{index}{ending}").astype(np.float64) - wanted)
        assert difference.max() <= 1e-4 * target.half_range + (target.dtype != "float32")


@pytest.mark.parametrize(("source", "target"), PAIRS[:3], ids=lambda kind: str(kind).replace(", ", "-"))
def test_tensors_are_not_rounded(tmp_path: Path, source: PixelType, target: PixelType) -> None:
    folder, network = save_run(tmp_path / "runs" / "x", source, target), network_of(source, target)
    images = to_signed(torch.from_numpy(np.stack([samples_of(source, 16, 24, seed) for seed in range(2)])), source)
    translated = cf.load(folder, device="cpu")(images)
    with torch.no_grad():
        assert torch.equal(translated, network(images))


def test_a_batch_of_a_folder_and_of_an_array_agree_in_batches(tmp_path: Path, run: Run) -> None:
    folder = save_run(tmp_path / "runs" / "x", GREY16, SIGNED)
    images = np.stack([samples_of(GREY16, 32, 24, seed) for seed in range(5)])
    for index, samples in enumerate(images):
        write(tmp_path / "in" / f"{index}.npy", samples)
    assert run(folder, tmp_path / "in", "--batch-size", 2) == 0
    written = np.stack([read(tmp_path / "out" / f"{index}.npy") for index in range(5)])
    assert np.array_equal(cf.load(folder, device="cpu", batch_size=2)(images), written)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_volume_is_translated_slice_by_slice_and_written_as_one_file(tmp_path: Path, run: Run) -> None:
    folder, network = save_run(tmp_path / "runs" / "x", GREY16, GREY16), network_of(GREY16, GREY16)
    slices = np.stack([samples_of(GREY16, 24, 32, seed)[..., 0] for seed in range(5)])
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "stack.tif", slices, photometric="minisblack")
    flags = ["--frames", "slices", "--batch-size", 2]
    assert run(folder, tmp_path / "in", *flags, sheet=True) == 0
    written = tifffile.imread(tmp_path / "out" / "stack.tif")
    assert written.shape == slices.shape
    for found, samples in zip(written, slices, strict=True):
        wanted = directly(network, samples[..., None], GREY16, GREY16)[..., 0]
        assert np.abs(found.astype(int) - wanted).max() <= 1  # in a batch sums go another way
    assert run(folder, tmp_path / "in", *flags, "--overwrite", "--tile", "--scratch", tmp_path) == 0
    assert np.abs(tifffile.imread(tmp_path / "out" / "stack.tif").astype(int) - written).max() <= 2


@pytest.mark.parametrize("axis", [0, 2])
def test_a_volume_of_nifti_keeps_its_affine(tmp_path: Path, run: Run, axis: Axis) -> None:
    nibabel = pytest.importorskip("nibabel")
    kind = PixelType(1, "int16", -1000, 1000)
    folder, network = save_run(tmp_path / "runs" / "x", kind, kind), network_of(kind, kind)
    volume = np.stack([samples_of(kind, 24, 16, seed)[..., 0] for seed in range(12)], -1)
    affine = np.diag([0.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = 10, -20, 30
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "in" / "scan.nii.gz")
    flags = ["--frames", "slices", "--axis", axis, "--batch-size", 1]
    assert run(folder, tmp_path / "in", *flags, sheet=True) == 0
    written = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    assert np.array_equal(written.affine, affine)
    assert (written.shape, written.get_data_dtype()) == (volume.shape, np.int16)
    # Where a slice lies in a volume is for the tests of the format.
    given, found = (
        read_samples(tmp_path / name / "scan.nii.gz", kind, frames="slices", axis=axis).values for name in ("in", "out")
    )
    assert len(given) == len(found) == volume.shape[axis]
    for one, translated in zip(given, found, strict=True):
        assert np.array_equal(translated, directly(network, one, kind, kind))


def test_pages_are_channels_where_the_run_was_trained_so(tmp_path: Path, run: Run) -> None:
    folder = save_run(tmp_path / "runs" / "x", SIX, GREY16, frames="channels")
    samples = samples_of(SIX, 24, 32)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "bands.tif", np.moveaxis(samples, -1, 0), photometric="minisblack")
    assert run(folder, tmp_path / "in") == 0
    wanted = directly(network_of(SIX, GREY16), samples, SIX, GREY16)
    assert np.array_equal(read(tmp_path / "out" / "bands.tif"), wanted)
    picture = cf.load(folder, device="cpu")(tmp_path / "in" / "bands.tif")
    assert np.array_equal(np.asarray(picture)[..., None], wanted)


def test_a_georeference_is_kept_unless_the_size_changes(tmp_path: Path, run: Run) -> None:
    scale, corner = (2.0, 2.0, 0.0), (0.0, 0.0, 0.0, 500000.0, 4649776.0, 0.0)
    tags = [(33550, "d", 3, scale, True), (33922, "d", 6, corner, True)]

    def kept(path: Path) -> list[tuple[float, ...] | None]:
        with tifffile.TiffFile(path) as file:
            return [file.pages[0].tags.valueof(code) for code in (33550, 33922)]  # type: ignore[union-attr]

    (tmp_path / "in").mkdir()
    for name, kind in (("deep", SIGNED), ("rgb", RGB)):
        folder = save_run(tmp_path / "runs" / name, kind, kind)
        source = tmp_path / "in" / f"{name}.tif"
        photometric = "rgb" if kind.is_rgb else "minisblack"
        tifffile.imwrite(
            source, samples_of(kind, 32, 40), photometric=photometric, planarconfig="contig", extratags=tags
        )
        assert run(folder, source) == 0
        assert kept(tmp_path / "out" / f"{name}.tif") == [scale, corner]
        assert run(folder, source, "--size", 32, "--overwrite") == 0
        assert kept(tmp_path / "out" / f"{name}.tif") == [None, None]


def test_an_interrupted_folder_goes_on(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_run(tmp_path / "runs" / "x", SIGNED, SIGNED)
    for index in range(4):
        write(tmp_path / "in" / f"{index}.tif", samples_of(SIGNED, 16, 16, index))
    assert run(folder, tmp_path / "in" / "[01].tif") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert run(folder, tmp_path / "in") == 0
    assert "translated 2 images" in (said := capsys.readouterr().out.splitlines()[-1])
    assert "kept 2 translations from before" in said
    assert names(tmp_path / "out") == {f"{index}.tif" for index in range(4)}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_squares_are_resized_as_test_images_are(tmp_path: Path, run: Run) -> None:
    folder, network = save_run(tmp_path / "runs" / "x", SIX, GREY16), network_of(SIX, GREY16)
    samples = samples_of(SIX, 48, 40)
    write(tmp_path / "in" / "a.tif", samples)
    assert run(folder, tmp_path / "in", "--size", 32) == 0
    planes = [Image.fromarray(samples[..., band]).resize((32, 32), Image.Resampling.BICUBIC) for band in range(6)]
    wanted = directly(network, np.stack([np.asarray(plane) for plane in planes], -1), SIX, GREY16)
    assert np.array_equal(read(tmp_path / "out" / "a.tif"), wanted)


def test_a_half_is_translated_as_the_image_alone_is(tmp_path: Path, run: Run) -> None:
    folder, network = save_run(tmp_path / "runs" / "x", GREY16, RGB), network_of(GREY16, RGB)
    samples = samples_of(GREY16, 24, 64)
    write(tmp_path / "in" / "a.tif", samples)
    assert run(folder, tmp_path / "in", "--half", "right") == 0
    assert np.array_equal(read(tmp_path / "out" / "a.png"), directly(network, samples[:, 32:], GREY16, RGB))


# --- values that a range does not map --------------------------------------------------------------------------------


def test_pixels_without_a_value_stay_so_and_are_counted(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    target = PixelType(2, "float32", -5, 5)
    folder, network = save_run(tmp_path / "runs" / "x", SIX, target), network_of(SIX, target)
    samples = samples_of(SIX, 22, 30)
    write(tmp_path / "in" / "whole.tif", samples)
    holes = samples.copy()
    holes[3:14, 5, 2] = np.nan
    write(tmp_path / "in" / "holes.tif", holes)
    assert run(folder, tmp_path / "in", "--batch-size", 1) == 0
    missing = np.isnan(holes).any(-1)
    wanted = directly(network, np.where(np.isnan(holes), np.float32(SIX.low), holes), SIX, target)
    wanted[missing] = np.nan
    assert np.array_equal(read(tmp_path / "out" / "holes.tif"), wanted, equal_nan=True)
    assert np.array_equal(cf.load(folder, device="cpu")(holes), wanted, equal_nan=True)
    assert not np.isnan(read(tmp_path / "out" / "whole.tif")).any()
    said = capsys.readouterr().err
    assert (
        "note: 1 of 2 images holds NaN, 0.28 % of all values: these pixels were translated as -1, and are NaN" in said
    )


def test_values_beyond_the_range_are_counted(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder, network = save_run(tmp_path / "runs" / "x", GREY16, RGB), network_of(GREY16, RGB)
    samples = samples_of(GREY16, 20, 20)
    write(tmp_path / "in" / "a.tif", samples)
    bright = samples.copy()
    bright[:2, :10] = 50000
    write(tmp_path / "in" / "b.tif", bright)
    assert run(folder, tmp_path / "in", "--batch-size", 1) == 0
    said = capsys.readouterr()
    assert "; 1 channel, uint16, 0 to 4095 -> 8-bit RGB" in said.out
    assert "note: 1 of 2 images holds values beyond 0 to 4095, 5 % of all that it holds: these" in said.err
    assert np.array_equal(read(tmp_path / "out" / "b.png"), directly(network, bright, GREY16, RGB))
    wide = PixelType(1, "uint16", 0, 50000)
    assert run(folder, tmp_path / "in", "--range", 0, 50000, "--overwrite", "--batch-size", 1) == 0
    assert "beyond" not in capsys.readouterr().err
    assert np.array_equal(read(tmp_path / "out" / "b.png"), directly(network, bright, wide, RGB))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_files_of_other_channels_are_named_and_left_out(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_run(tmp_path / "runs" / "x", SIGNED, SIGNED)
    write(tmp_path / "in" / "a.tif", samples_of(SIGNED, 16, 16))
    write(tmp_path / "in" / "b.tif", samples_of(PixelType(5, "int16", -1000, 1000), 16, 16))
    assert run(folder, tmp_path / "in") == 0
    said = capsys.readouterr()
    assert f"skipped {tmp_path / 'in' / 'b.tif'}: it has 5 channels" in said.err
    assert "skipped 1 unreadable image" in said.out
    assert names(tmp_path / "out") == {"a.tif"}
    assert run(folder, tmp_path / "in", "--strict", "--overwrite") == 2
    assert "b.tif: it has 5 channels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "target", "flags", "message"),
    [
        (
            GREY16,
            PixelType(1, "float32", 0, 1),
            "--format png",
            "--format png does not hold what is translated to (1 ch",
        ),
        (GREY16, GREY16, "--format jpeg", "--format jpeg does not hold"),
        (GREY16, SIGNED, "--format webp", "give --format tiff, or npy"),
        (GREY16, GREY, "--format png --frames slices", "--frames slices gives several: --format tiff"),
        (GREY16, GREY, "--dtype uint8", "is a run, which says what its pixels are: leave --dtype"),
        (GREY16, GREY, "--axis 3", "--axis must be a whole number from 0 to 2, got 3"),
    ],
)
def test_flags_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    source: PixelType,
    target: PixelType,
    flags: str,
    message: str,
) -> None:
    folder = save_run(tmp_path / "runs" / "x", source, target)
    write(tmp_path / "in" / "a.tif", samples_of(source, 16, 16))
    assert run(folder, tmp_path / "in", *flags.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["tiff", "npy", "png"])
def test_formats_that_hold_the_translation_may_be_chosen(tmp_path: Path, run: Run, format: str) -> None:
    folder, network = save_run(tmp_path / "runs" / "x", GREY16, GREY), network_of(GREY16, GREY)
    samples = samples_of(GREY16, 16, 20)
    write(tmp_path / "in" / "a.npy", samples)
    assert run(folder, tmp_path / "in", "--format", format) == 0
    ending = {"tiff": "tif"}.get(format, format)
    assert np.array_equal(read(tmp_path / "out" / f"a.{ending}"), directly(network, samples, GREY16, GREY))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 1), np.uint8), r"takes .*, an? uint16 array \[H, W, 1\] .*; got an array uint8 \[8, 8, 1\]"),
        (np.zeros((8, 8, 3), np.uint16), r"got an array uint16 \[8, 8, 3\]"),
        (np.zeros((2, 8, 8, 2), np.uint16), r"got an array uint16 \[8, 8, 2\]"),
        (torch.zeros(3, 8, 8), r"a floating-point tensor \[1, H, W\] .*; got a tensor float32 \[3, 8, 8\]"),
        (torch.full((1, 8, 8), 9.0), r"magnitude 9: those of uint16 become that by \(images - 2047.5\) / 2047.5"),
        (Image.new("RGB", (8, 8)), r"a picture of mode RGB does not hold 1 channel, uint16, 0 to 4095: give uint16"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_python_gives_has_to_fit(tmp_path: Path, images: Any, message: str) -> None:
    folder = save_run(tmp_path / "runs" / "x", GREY16, SIGNED)
    with pytest.raises(UserError, match=message):
        cf.load(folder, device="cpu")(images)


def test_values_that_no_file_may_have_are_refused_in_arrays_too(tmp_path: Path) -> None:
    kind = PixelType(1, "float32", 0, 1)
    values = samples_of(kind, 16, 16)
    endless, empty = values.copy(), np.full_like(values, np.nan)
    endless[0, 1] = np.inf
    whole = np.zeros((16, 16, 1), np.uint16)
    with cf.load(save_run(tmp_path / "runs" / "x", kind, kind), device="cpu") as translate:
        for images in (endless, np.stack([values, endless]), [values, endless], Image.fromarray(endless[..., 0])):
            with pytest.raises(UserError, match="cannot be translated: 1 of its 256 values are infinite"):
                translate(images)
        with pytest.raises(UserError, match="cannot be translated: all its values are NaN"):
            translate(empty)
        with pytest.raises(UserError, match=r"which pixels of a masked array count: give its \.filled"):
            translate(np.ma.masked_less(values, 0.5))
    with cf.load(save_run(tmp_path / "runs" / "y", GREY16, kind), device="cpu") as translate:
        with pytest.raises(UserError, match="masked array"):
            translate(np.ma.masked_equal(np.stack([whole, whole]), 0))
        assert translate(whole).dtype == np.float32


@pytest.mark.parametrize(("mode", "bands"), [("RGBA", 4), ("LA", 2)])
def test_opacity_is_no_band_of_a_run(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], mode: str, bands: int
) -> None:
    folder = save_run(tmp_path / "runs" / "x", PixelType(bands), GREY)
    picture = tmp_path / "in" / "a.png"
    picture.parent.mkdir()
    Image.fromarray(np.zeros((16, 16, bands), np.uint8), mode).save(picture)
    said = (
        rf"a\.png: it has {bands - 1} channels? and opacity, and the run takes {bands} channels of uint8: convert it$"
    )
    with pytest.raises(UnreadableImage, match=said):
        cf.load(folder, device="cpu")(picture)
    assert run(folder, tmp_path / "in") == 2
    assert re.search(said, capsys.readouterr().err, re.MULTILINE)


# --- from Python -----------------------------------------------------------------------------------------------------


def test_python_gives_what_it_takes(tmp_path: Path) -> None:
    samples = samples_of(GREY16, 24, 20)
    path = write(tmp_path / "a.tif", samples)
    picture = Image.fromarray(samples[..., 0])
    to_grey = cf.load(save_run(tmp_path / "runs" / "grey", GREY16, GREY16), device="cpu")
    wanted = to_grey(samples)
    assert np.array_equal(to_grey(samples[..., 0]), wanted[..., 0])
    assert np.array_equal(np.asarray(to_grey(picture)), wanted[..., 0])
    assert np.array_equal(np.asarray(to_grey(path)), wanted[..., 0])
    assert [np.asarray(found).shape for found in to_grey([samples, path])] == [(24, 20, 1), (24, 20)]
    assert to_grey(np.empty((0, 8, 8, 1), np.uint16)).shape == (0, 8, 8, 1)
    to_four = cf.load(save_run(tmp_path / "runs" / "four", GREY16, SIGNED), device="cpu")
    assert to_four(samples[..., 0]).shape == (24, 20, 4)
    for given in (picture, path):  # no picture holds four channels of 16 bits
        assert np.array_equal(to_four(given), to_four(samples))
    assert "1 channel, uint16, 0 to 4095 -> 4 channels, int16, -1000 to 1000" in repr(to_four)


# --- bare weights ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Writes bare weights of two to three channels, as the original implementation does."""
    torch.save(to_original(make_generator(0, channels=(2, 3)).state_dict()), tmp_path / "latest_net_G.pth")
    return tmp_path / "latest_net_G.pth"


def test_bare_weights_are_of_8_bits_unless_flags_say_otherwise(
    tmp_path: Path, bare: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    network, eight = make_generator(0, channels=(2, 3)), PixelType(2)
    loaded = load_generator(bare, "a2b", [])
    assert (loaded.source, loaded.target) == (eight, RGB)
    source, target = PixelType(2, "uint16", 0, 1023), PixelType(3, "float32", -1, 1)
    flags = ["--dtype", "uint16", "--range", "0", "1023", "--target-dtype", "float32", "--target-range", "-1", "1"]
    given = cf.load(bare, device="cpu", source=source, target=target)
    for kind, made, given_flags in (
        (eight, RGB, []),
        (source, target, flags),
    ):
        samples = samples_of(kind, 16, 24)
        write(tmp_path / "in" / f"{kind.dtype}.npy", samples)
        assert run(bare, tmp_path / "in" / f"{kind.dtype}.npy", *given_flags) == 0
        wanted = directly(network, samples, kind, made)
        assert np.array_equal(read(tmp_path / "out" / f"{kind.dtype}.npy"), wanted)
    assert np.array_equal(given(samples), wanted)
    assert run(bare, tmp_path / "in", "--target-dtype", "float32") == 2
    assert "--target-dtype float32 needs --target-range LOW HIGH" in capsys.readouterr().err
    assert run(bare, tmp_path / "in", "--target-range", 0, 1) == 2
    assert "--target-range goes with --target-dtype uint16" in capsys.readouterr().err
    with pytest.raises(UserError, match="target is 1 channel, uint8, 0 to 255, and the network was trained with 8-bit"):
        cf.load(bare, device="cpu", target=PixelType(1))
