"""Compares the imitated cuda-python with the real package, and lets the real one call a libcuda in C, without a GPU."""

import inspect
import os
import subprocess
import sys
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from export.engines.libraries import gpu_count
from tests.export import fake_cuda_python
from tests.export.fake_gpu import FakeGpu

ROOT = Path(__file__).parents[2]


@pytest.fixture
def real() -> Any:
    return pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")


def test_the_imitation_has_the_real_names_and_parameters(real: Any) -> None:
    imitation = vars(fake_cuda_python.make_cuda_python(FakeGpu()))
    functions = {name: value for name, value in imitation.items() if name.startswith("cu")}
    assert len(functions) > 20
    for name, function in functions.items():
        assert list(inspect.signature(getattr(real, name)).parameters) == list(inspect.signature(function).parameters)
    kinds = [value for value in imitation.values() if isinstance(value, type) and issubclass(value, IntEnum)]
    assert len(kinds) == 4
    for kind in kinds:
        for member in kind:
            assert int(getattr(getattr(real, kind.__name__), member.name)) == member, member


def test_the_imitated_handles_take_and_give_numbers_as_the_real_ones_do(real: Any) -> None:
    for name in ("CUcontext", "CUstream", "CUdeviceptr", "CUgraph", "CUgraphExec"):
        for module in (real, fake_cuda_python):
            handle = getattr(module, name)(0x7F00_0000_0001)
            assert int(handle) == 0x7F00_0000_0001, "beyond 32 bits"
            assert not isinstance(handle, int)


IN_ANOTHER_PROCESS = """
import ctypes, sys
import numpy as np
from export.device.driver import DeviceMemoryError, DriverError
from export.device.buffers import BLOCK, Buffer
from export.device.primary_context import open_gpu, release_all
from export.device.stream_graph import StreamGraph
from export.device.pycuda_driver import PycudaDriver

gpu = open_gpu(0)
print(gpu.driver.description.split(".")[0], gpu.name, gpu.capability)
graphs = PycudaDriver(None, "")  # whose graphs need no PyCUDA

def message(call, *arguments):
    try:
        call(*arguments)
    except DriverError as error:
        return type(error).__name__, str(error)

with gpu.current():
    driver, stream = gpu.driver, gpu.driver.make_stream()
    assert type(stream.handle) is int and stream.handle > 1 << 32
    buffer = Buffer(driver)
    buffer.grow_to(1)
    assert driver.free_bytes() == (1 << 24) - BLOCK
    pixels = buffer.view((4, 5), np.float32)

    def round_trip():
        buffer.upload(80, stream)
        pixels[:] = 0
        buffer.download(80, stream)

    for recorder in (driver, graphs):
        pixels[:] = np.arange(20).reshape(4, 5)
        round_trip()
        stream.synchronize()
        assert np.array_equal(pixels.ravel(), np.arange(20))
        graph = StreamGraph(recorder, stream, round_trip)
        assert not pixels.any()
        pixels[:] = 7
        graph.launch()
        assert (pixels == 7).all()
        print(*message(StreamGraph, recorder, stream, lambda: None))
        recorder.begin_recording(stream)
        print(*message(graph.launch))
        print(*message(recorder.end_recording, stream))
        graph.destroy()
        graph.destroy()
    print(*message(driver.allocate, 1 << 30))
    print(*message(driver.allocate, 0))
    buffer.free()
    stream.close()
print(*message(driver.allocate, 8))
release_all()
print("held:", ctypes.CDLL("libcuda.so.1").pretended_live())
"""

PRINTED = """\
cuda-python 13 Pretended GPU (8, 9)
DriverError cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
DriverError cuGraphLaunch failed: 4242 is not a valid CUresult
DriverError cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
DriverError cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
DriverError cuGraphLaunch failed: error 4242
DriverError cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
DeviceMemoryError cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY
DriverError cuMemAlloc failed: CUDA_ERROR_INVALID_VALUE
DriverError cuMemAlloc failed: CUDA_ERROR_INVALID_CONTEXT
held: 0
"""


def test_the_real_package_calls_a_pretended_driver(real: Any, tmp_path: Path) -> None:
    """Runs every operation of the seam through the real package, and PyCUDA's graphs through ctypes."""
    source, library = Path(__file__).with_name("pretend_libcuda.c"), tmp_path / "libcuda.so.1"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", source, "-o", library], check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "CYCLEGAN_FAST_CUDA": "cuda-python"}
    ended = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.stdout == PRINTED, ended.stderr


WITHOUT_A_DRIVER = """
from cyclegan_fast.system.errors import UserError
from export.device.primary_context import open_gpu
try:
    open_gpu(0)
except UserError as error:
    print(error)
"""


def test_the_real_package_without_a_driver(real: Any) -> None:
    if gpu_count():
        pytest.skip("there is a GPU here")
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_DRIVER],
        cwd=ROOT,
        env=os.environ | {"CYCLEGAN_FAST_CUDA": "cuda-python"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    (line,) = ended.stdout.splitlines()
    assert line.startswith("engines need an NVIDIA GPU, and "), ended.stderr
    assert line.endswith("python export/run.py --onnx FILE")
