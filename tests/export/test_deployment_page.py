"""Commands of the deployment page are understood, and its examples run."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from PIL import Image

from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.command_line import parse_command
from export import run, serve, to_formats, to_onnx, trt, verify, web
from export.graphs.graph import serialised
from export.graphs.onnx_file import read_onnx, with_digest
from export.serving import triton_repository
from export.to_onnx import float32_graph
from tests.cyclegan_fast.pictures import draw, pixels_of
from tests.export.fake_machine import Machine
from tests.export.fake_tensorrt import upside_down

PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
COMMANDS = re.findall(r"python (export/\w+\.py[^&\n]*)", "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)))
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PROGRAMS: dict[str, Any] = {
    "trt": trt.TrtCommand,
    "to_formats": to_formats.ToFormatsCommand,
    "to_onnx": to_onnx.ToOnnxCommand,
    "run": run.RunCommand,
    "verify": verify.VerifyCommand,
    "serve": serve.ServeCommand,
    "triton_repository": triton_repository.TritonRepositoryCommand,
    "web": web.WebCommand,
}


def test_commands_are_understood() -> None:
    seen = set()
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        name = Path(program).stem
        parse_command(PROGRAMS[name], program, arguments)
        seen.add(name)
    assert seen == {"trt", "to_formats", "to_onnx", "run", "web"}


def test_the_example_without_this_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_generator: ResnetGenerator
) -> None:
    (example,) = (text for text in EXAMPLES if "onnxruntime" in text)
    monkeypatch.chdir(tmp_path)
    (path,) = re.findall(r'"(engines/.*\.onnx)"', example)
    Path(path).parent.mkdir()
    Path(path).write_bytes(serialised(float32_graph(random_generator)))
    draw(Path("photo.jpg"), 40, 30)
    exec(example.replace("256", "64"), {})
    assert pixels_of(Path("translated.png")).shape == (64, 64, 3)


def test_the_example_with_any_exported_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_generator: ResnetGenerator
) -> None:
    (example,) = (text for text in EXAMPLES if "export.load" in text)
    monkeypatch.chdir(tmp_path)
    (path,) = re.findall(r'"(engines/.*\.onnx)"', example)
    Path(path).parent.mkdir()
    Path(path).write_bytes(with_digest(serialised(float32_graph(random_generator))))
    draw(Path("photo.jpg"), 41, 30)
    exec(example, {})
    assert pixels_of(Path("translated.png")).shape == (30, 41, 3)


def test_the_example_that_removes_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: ModelProto) -> None:
    (example,) = (text for text in EXAMPLES if "onnx.save" in text)
    monkeypatch.chdir(tmp_path)
    (path,) = re.findall(r'"(engines/.*\.onnx)"', example)
    Path(path).parent.mkdir()
    Path(path).write_bytes(with_digest(serialised(graph)))
    read_onnx(Path(path), notes := [])
    exec(example, {})
    read_onnx(Path("mine.onnx"), notes)
    assert [note.partition(",")[0] for note in notes] == ["mine.onnx has no digest"]


def test_the_example_with_an_engine(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = (text for text in EXAMPLES if "export.runtime" in text)
    assert len(example.splitlines()) <= 15
    world = machine(uint8_io=True)
    monkeypatch.chdir(tmp_path)
    draw(Path("photos/one.jpg"), 16, 16)
    exec(re.sub(r"engines/.*\.engine", str(world.path), example), {})
    with Image.open("photos/one.jpg") as photo:
        expected = upside_down(np.asarray(photo)[None])[0]
    assert np.array_equal(pixels_of(Path("photos/one.translated.png")), expected)
