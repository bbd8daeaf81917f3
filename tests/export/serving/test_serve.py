"""`python export/serve.py` serves files as they are translated elsewhere, without PyTorch, and ends when asked to."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

import export
from export.graphs.graph import serialised
from export.graphs.onnx_file import with_digest
from export.graphs.pixel_io import with_pixel_io
from export.serve import main
from export.serving.models import load_models, model_asked_for
from tests.export.fake_machine import Machine
from tests.export.fake_tensorrt import upside_down
from tests.export.serving.service import as_file, picture, pixels_in, running

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, graph: ModelProto) -> list[Path]:
    """Writes a generator as two directions, one with pixels in and out."""
    folder, found = tmp_path_factory.mktemp("engines"), []
    for direction, model in (("a2b", graph), ("b2a", with_pixel_io(graph))):
        model = ModelProto.FromString(model.SerializeToString())
        helper.set_model_props(model, {"direction": direction})
        found.append(folder / f"x-{direction}.onnx")
        found[-1].write_bytes(with_digest(serialised(model)))
    return found


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Yield the port and the process of a service, which a test ends."""
    command = [sys.executable, "-m", "export.serve", *arguments, "--port", "0", "--threads", "1"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            events = []
            for line in process.stdout:
                events.append(json.loads(line))
                if events[-1]["event"] == "started":
                    break
            else:
                pytest.fail(process.stderr.read() if process.stderr else "")
            assert [event["direction"] for event in events if event["event"] == "model"] == ["a2b", "b2a"]
            yield int(events[-1]["url"].rpartition(":")[2]), process
        finally:
            process.kill()


def test_it_serves_what_the_files_translate_and_ends_with_what_is_in_flight(files: list[Path], tmp_path: Path) -> None:
    """Runs where PyTorch cannot be imported, and is asked to stop while a client waits."""
    (tmp_path / "torch.py").write_text("raise ImportError('there is no PyTorch here')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    flags = ["--backend", "onnxruntime", "--batch-wait-ms", "1500"]
    pixels = picture(21, 27)
    with served(*map(str, files), *flags, PYTHONPATH=path) as (port, process):
        for file, direction in zip(files, ("a2b", "b2a"), strict=True):
            url = f"http://127.0.0.1:{port}/translate?direction={direction}"
            with urllib.request.urlopen(urllib.request.Request(url, as_file(pixels)), timeout=60) as reply:
                translated = pixels_in(reply.read())
            with export.load(file, backend="onnxruntime", threads=1) as translator:
                assert np.array_equal(translated, translator(pixels))
            assert translated.std() > 5, "a flat picture would prove nothing"
        waiting = HTTPConnection("127.0.0.1", port, timeout=60)
        waiting.request("POST", "/translate?direction=b2a", as_file(pixels))
        figures = f"http://127.0.0.1:{port}/metrics"
        while b"cyclegan_fast_waiting_images 1.0" not in urllib.request.urlopen(figures, timeout=60).read():
            pass
        process.send_signal(signal.SIGTERM)
        answer = waiting.getresponse()
        assert answer.status == 200
        assert np.array_equal(pixels_in(answer.read()), translated)
        assert process.wait(60) == 0
        out, errors = process.communicate()
    assert [json.loads(line)["event"] for line in out.splitlines()][-3:] == ["stopping", "request", "stopped"]
    assert errors.splitlines()[-1] == "stopping after the requests in flight; Ctrl-C again stops now"
    assert not [line for line in errors.splitlines()[:-1] if not line.startswith(("loading", "translating"))]


def test_engines_are_served_and_freed(machine: Machine) -> None:
    """Runs a library without a GPU, whose engines turn images upside down."""
    world = machine(uint8_io=True)
    (model,) = load_models([world.path], backend="auto", device="auto", amp=False, threads=None, notes=[])
    try:
        model.warm_up()
        with running([model]) as service:
            pixels = picture(16, 24)
            reply = service.translate(as_file(pixels), "?direction=a2b")
            assert np.array_equal(pixels_in(reply.body), upside_down(pixels[None])[0])
            refused = service.translate(as_file(picture(16, 1028)))
            assert refused.status == 422
            assert refused.error.startswith("x takes 1 to 4 images of 8x8 to 1024x1024, and this would be 1028x16")
    finally:
        model.close()


def test_files_of_one_name_cannot_be_told_apart(files: list[Path], tmp_path: Path) -> None:
    (other := tmp_path / files[0].name).write_bytes(files[0].read_bytes())
    with pytest.raises(Exception, match="two files are called x-a2b: rename one"):
        load_models([files[0], other], backend="auto", device="auto", amp=False, threads=None, notes=[])
    models = load_models(files, backend="onnxruntime", device="cpu", amp=False, threads=1, notes=[])
    assert model_asked_for(models, None, "b2a").name == "x-b2a"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "error: give the files to serve: python export/to_onnx.py writes ONNX files"),
        (["absent.onnx"], "error: no ONNX file absent.onnx: python export/to_onnx.py writes one"),
        (
            ["FILE", "--port", "PORT"],
            "error: cannot listen on 127.0.0.1, port PORT (Address already in use): give another",
        ),
        (
            ["FILE", "--host", "no.such.host.invalid"],
            "error: --host no.such.host.invalid is no address of this machine",
        ),
        (["FILE", "--host", "203.0.113.7"], "error: cannot listen on 203.0.113.7, port 8000 (Cannot assign requested"),
        (["FILE", "--rate", "-1"], "error: --rate must be a number from 0 to 10^6, got -1.0"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    arguments: list[str], said: str, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        names = {"FILE": str(files[1]), "PORT": port}
        assert main([names.get(argument, argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("loading")]  # on a slow machine
    assert len(lines) == 1
    assert lines[0].startswith(said.replace("PORT", port))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["x.onnx"]) == 2
    assert capsys.readouterr().err.startswith("error: serving needs FastAPI, which cannot be imported")


def test_a_generator_that_is_not_finite_is_not_served(
    tmp_path: Path, graph: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ModelProto.FromString(graph.SerializeToString())
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("bias"))
    bias.raw_data = np.full(tuple(bias.dims), np.nan, np.float32).tobytes()
    (path := tmp_path / "nan.onnx").write_bytes(with_digest(serialised(model)))
    assert main([str(path), "--threads", "1"]) == 2
    assert "not finite" in capsys.readouterr().err.splitlines()[-1]
