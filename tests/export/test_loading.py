"""Test `export.load`: it translates as `python export/run.py` does, through ONNX files and engines."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cyclegan_fast as cf
import export
from cyclegan_fast.images.pixels import to_pixels, to_pixels_array, to_signed, to_signed_array
from cyclegan_fast.system.errors import UserError
from export.graphs.graph import serialised
from export.graphs.onnx_file import with_digest
from export.graphs.pixel_io import with_pixel_io
from export.run import main
from tests.cyclegan_fast.pictures import draw, pixels_of
from tests.export.fake_machine import Machine
from tests.export.fake_tensorrt import upside_down

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path: Path, graph: Any) -> dict[str, Path]:
    """Writes one generator that takes numbers, and one that takes 8-bit pixels."""
    for name, model in (("float32", graph), ("uint8", with_pixel_io(graph))):
        (tmp_path / f"{name}.onnx").write_bytes(with_digest(serialised(model)))
    return {name: tmp_path / f"{name}.onnx" for name in ("float32", "uint8")}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", ["float32", "uint8"])
def test_onnx_files_translate_as_the_command_does(
    tmp_path: Path, files: dict[str, Path], name: str, backend: Any
) -> None:
    image = draw(tmp_path / "one.png", 45, 37)
    flags = ["--onnx", str(files[name]), "--backend", backend, "--no-contact-sheet", "--out", str(tmp_path / "out")]
    assert main([str(image), *flags]) == 0
    expected = pixels_of(tmp_path / "out" / "one.png")
    with export.load(files[name], backend=backend) as translator:
        assert translator.direction is None
        assert np.array_equal(translator(pixels_of(image)), expected)
        assert np.array_equal(np.asarray(translator(Image.open(image))), expected)
        assert np.array_equal(np.asarray(translator([image])[0]), expected)
        tensor = to_signed(torch.from_numpy(pixels_of(image)[None].copy()))
        if name == "float32":
            translated = translator(tensor)
            assert (translated.dtype, translated.shape) == (torch.float32, tensor.shape)
            assert np.array_equal(to_pixels(translated)[0], expected)
        else:
            with pytest.raises(UserError, match="takes 8-bit pixels only"):
                translator(tensor)
    with pytest.raises(UserError, match="the translator is closed"):
        translator(image)
    same = cf.load(files[name], device="cpu")
    assert np.array_equal(same(pixels_of(image)), export.load(files[name], device="cpu")(pixels_of(image)))


@pytest.mark.parametrize("uint8_io", [True, False])
def test_engines_are_closed_and_get_no_larger_batch_than_they_take(machine: Machine, uint8_io: bool) -> None:
    """Runs a library without a GPU, whose engines turn images upside down, and checks that all is freed behind."""
    world = machine(uint8_io=uint8_io)
    images = np.random.default_rng(0).integers(0, 256, (9, 15, 13, 3), np.uint8)
    padded = np.pad(images, ((0, 0), (0, 1), (0, 3), (0, 0)), mode="reflect")
    expected = upside_down(padded) if uint8_io else to_pixels_array(upside_down(to_signed_array(padded)))
    with (export.load if uint8_io else cf.load)(str(world.path)) as translator:
        assert translator.direction == "a2b"
        assert translator.batch_size == 4
        assert np.array_equal(translator(images), expected[:, :15, :13])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda files: export.load("x.engine"), "x.json is missing"),
        (lambda files: export.load("x.engine", threads=1), "threads are for ONNX files"),
        (lambda files: export.load("x.onnx"), "no ONNX file x.onnx"),
        (lambda files: export.load(files["float32"], threads=0), "--threads must be between"),
        (lambda files: export.load(files["float32"], batch_size=0), "batch_size must be a whole number from 1"),
        (lambda files: export.load(files["float32"], backend="onnxruntime", amp=True), "--amp is OpenVINO's"),
    ],
)
def test_what_cannot_be_loaded_is_refused(files: dict[str, Path], use: Callable[..., Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        use(files)


def test_loading_imports_no_pytorch() -> None:
    code = "import sys, export; export.load; assert 'torch' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
