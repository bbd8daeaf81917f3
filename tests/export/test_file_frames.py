"""Exported files say what pages and slices were in the training, and are run that way; files without read the first."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from onnx import ModelProto

from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.pixels import to_pixels, to_signed
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from export import run, to_onnx
from export.engines.engine_card import EngineCard
from export.engines.file_frames import DEFAULT_FRAMES, FileFrames
from export.graphs.graph import serialised
from export.graphs.onnx_file import metadata_of, with_digest
from export.loading import load
from export.onnx_translators import load_translator
from export.pixel_ends import PixelEnds
from export.source import GeneratorSource
from tests.export.conftest import Machine

TWELVE_BITS = PixelType(1, "uint16", 0, 4095)


def exported(path: Path, ends: PixelEnds, frames: FileFrames) -> ResnetGenerator:
    """Writes the ONNX file of a random network, and returns that."""
    torch.manual_seed(0)
    source, target = ends
    network = ResnetGenerator(inputs=source.channels, outputs=target.channels, width=4, blocks=1).eval()
    described = GeneratorSource(network, path.with_suffix(".pt"), "x", "a2b", 32, "0" * 64, {}, ends, frames)
    path.write_bytes(with_digest(serialised(to_onnx.to_onnx(described, "float32", uint8_io=False))))
    return network


def in_pytorch(network: ResnetGenerator, samples: SampleArray, ends: PixelEnds) -> SampleArray:
    with torch.inference_mode():
        return to_pixels(network(to_signed(torch.from_numpy(samples), ends.source)), ends.target)


def assert_close(actual: SampleArray, expected: SampleArray) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1
    assert expected.std() > 2


def test_pages_are_the_channels_that_they_were_in_the_training(tmp_path: Path) -> None:
    ends = PixelEnds(PixelType(4, "uint16", 0, 4095), TWELVE_BITS)
    network = exported(tmp_path / "x.onnx", ends, FileFrames("channels"))
    pages = np.random.default_rng(0).integers(0, 4096, (4, 32, 48)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack", metadata=None)
    expected = in_pytorch(network, np.moveaxis(pages, 0, -1)[None], ends)[0, ..., 0]
    flags = ["--onnx", str(tmp_path / "x.onnx"), "--no-contact-sheet", "--out"]
    assert run.main([str(tmp_path / "pages.tif"), *flags, str(tmp_path / "out")]) == 0
    assert_close(tifffile.imread(tmp_path / "out/pages.tif"), expected)
    with load(tmp_path / "x.onnx") as translate:
        assert_close(np.asarray(translate(tmp_path / "pages.tif")), expected)
    assert run.main([str(tmp_path / "pages.tif"), *flags, str(tmp_path / "first"), "--frames", "first"]) == 2, (
        "a flag counts more, and one page has one channel"
    )


def test_slices_are_across_the_axis_of_the_training(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    ends = PixelEnds(PixelType(1, "int16", -1000, 1000), PixelType(1, "int16", -100, 100))
    network = exported(tmp_path / "x.onnx", ends, FileFrames("slices", 0))
    volume = np.random.default_rng(0).integers(-1000, 1000, (3, 32, 48)).astype(np.int16)
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "scan.nii")
    command = [str(tmp_path / "scan.nii"), "--onnx", str(tmp_path / "x.onnx"), "--no-contact-sheet"]
    assert run.main([*command, "--out", str(tmp_path / "out")]) == 0
    written = np.asarray(nibabel.load(tmp_path / "out/scan.nii").dataobj)
    # A slice is shown as radiologists see it, and a network is no symmetric thing: it is read as the command reads it.
    from cyclegan_fast.images.samples import read_samples

    slices = read_samples(tmp_path / "scan.nii", ends.source, frames="slices", axis=0).values
    back = read_samples(tmp_path / "out/scan.nii", ends.target, frames="slices", axis=0).values
    assert written.shape == volume.shape
    assert_close(back, in_pytorch(network, slices, ends))


def test_what_stands_in_a_file_and_which_version_reads_it(tmp_path: Path) -> None:
    ends = PixelEnds(TWELVE_BITS, TWELVE_BITS)
    exported(tmp_path / "x.onnx", ends, FileFrames("slices", 1))
    metadata = metadata_of((tmp_path / "x.onnx").read_bytes())
    assert (metadata["frames"], metadata["axis"]) == ("slices", "1")
    assert metadata["cyclegan_fast_format"].startswith("2 by ")
    exported(tmp_path / "x.onnx", ends, DEFAULT_FRAMES)
    metadata = metadata_of((tmp_path / "x.onnx").read_bytes())
    assert metadata.keys().isdisjoint({"frames", "axis"})
    assert metadata["cyclegan_fast_format"].startswith("1 by "), "a version from before reads it"
    assert load_translator(tmp_path / "x.onnx", "onnxruntime", "cpu", amp=False)[0].frames == DEFAULT_FRAMES


def test_cards_hold_them_too(machine: Machine) -> None:
    world = machine()
    card = EngineCard.beside(world.path)
    assert card.frames == DEFAULT_FRAMES
    path = world.path.with_suffix(".json")
    assert json.loads(path.read_text())["format"] == 1
    from dataclasses import replace

    replace(card, frames=FileFrames("channels", 1)).write(path)
    content = json.loads(path.read_text())
    assert (content["format"], content["frames"], content["axis"]) == (2, "channels", "1")
    assert EngineCard.beside(world.path).frames == FileFrames("channels", 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("frames", "all", "frames must be one of first, channels, slices, got 'all'"),
        ("frames", None, "frames must be one of"),
        ("axis", "3", "axis must be one of 0, 1, 2, got '3'"),
        ("axis", 2, "axis must be one of 0, 1, 2, got 2"),
        ("axis", "", "axis must be one of"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    machine: Machine, tmp_path: Path, name: str, value: object, message: str
) -> None:
    world = machine()
    card = world.path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "frames": "slices", "axis": "1", name: value}))
    with pytest.raises(UserError, match=message):
        EngineCard.beside(world.path)
    if isinstance(value, str):
        exported(tmp_path / "x.onnx", PixelEnds(TWELVE_BITS, TWELVE_BITS), FileFrames("slices", 1))
        model = ModelProto.FromString((tmp_path / "x.onnx").read_bytes())
        del model.metadata_props[-1]  # the digest
        next(entry for entry in model.metadata_props if entry.key == name).value = value
        (tmp_path / "x.onnx").write_bytes(with_digest(serialised(model)))
        with pytest.raises(UserError, match=message):
            load_translator(tmp_path / "x.onnx", "onnxruntime", "cpu", amp=False)


def test_a_half_is_refused() -> None:
    with pytest.raises(ValueError, match="axis is missing"):
        FileFrames.of_entries({"frames": "slices"})
