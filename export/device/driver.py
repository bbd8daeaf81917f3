"""Says which operations of CUDA's driver an engine needs, and finds the package through which they are called.

That is PyCUDA (`pycuda_driver`) where it is installed, and otherwise cuda-python (`cuda_python_driver`), which consists
of wheels alone. The environment variable CYCLEGAN_FAST_CUDA names one of them instead, which is then used or missed.
Everything else in this folder calls CUDA through a `Driver`.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from cyclegan_fast.system.errors import UserError

Bytes = npt.NDArray[np.uint8]
DriverChoice = Literal["auto", "pycuda", "cuda-python"]

DRIVER_VARIABLE = "CYCLEGAN_FAST_CUDA"
WITHOUT_ENGINES = (
    "Without it, ONNX files run on the CPU or through ONNX Runtime's CUDA: python export/run.py --onnx FILE"
)
_INSTALL = {
    "pycuda": "`pip install pycuda` compiles and needs a CUDA toolkit (nvcc on the PATH, cuda.h, curand.h)",
    "cuda-python": "`pip install cuda-python` installs wheels alone",
}


class DriverError(RuntimeError):
    """Says which function of CUDA's driver failed, and what the driver calls the error."""


class DeviceMemoryError(DriverError):
    """Says that the GPU's memory, or the host's that can be pinned, is used up."""


class Stream(Protocol):
    """Describes a queue of work for the GPU that does not wait for the default stream, on which PyTorch works."""

    @property
    def handle(self) -> int:
        """Return the driver's own CUstream, as TensorRT takes it."""

    def synchronize(self) -> None:
        """Wait until its work is done."""

    def close(self) -> None:
        """Give the stream back, which must have nothing to do. Does nothing the second time."""


class DeviceMemory(Protocol):
    """Describes memory on the GPU."""

    @property
    def address(self) -> int:
        """Return where it begins, as the GPU counts."""

    def free(self) -> None:
        """Give it back; nothing may be using it."""


class PinnedMemory(Protocol):
    """Describes memory on the host that the GPU reads and writes by itself: only then are copies asynchronous."""

    @property
    def array(self) -> Bytes:
        """Return all of it; the array is valid until the memory is freed."""

    def free(self) -> None:
        """Give it back; nothing may be using it."""


class GpuContext(Protocol):
    """Describes a GPU whose primary context is held, which is the one that TensorRT and PyTorch use."""

    name: str
    capability: tuple[int, int]

    def push(self) -> None:
        """Make its context current on this thread, over the one before."""

    def pop(self) -> None:
        """Make the context before `push` current again."""

    def release(self) -> None:
        """Let go of the context, on the thread that opened the device."""


class Driver(Protocol):
    """Describes the operations of CUDA's driver that engines need.

    A context must be current in all of them but `device_count` and `open_device`. Each raises DriverError where the
    driver fails, and DeviceMemoryError where that is for want of memory.
    """

    description: str
    """the package and its version, for people"""

    def device_count(self) -> int:
        """Return the number of GPUs."""

    def open_device(self, index: int) -> GpuContext:
        """Hold the primary context of the GPU of that index, counted from 0."""

    def free_bytes(self) -> int:
        """Return the bytes of the GPU's memory that are free."""

    def make_stream(self) -> Stream:
        """Make a stream that does not wait for the default one."""

    def allocate(self, size: int) -> DeviceMemory:
        """Return `size` bytes on the GPU."""

    def allocate_pinned(self, size: int) -> PinnedMemory:
        """Return `size` bytes on the host, pinned."""

    def upload(self, target: DeviceMemory, source: PinnedMemory, size: int, stream: Stream) -> None:
        """Give a stream the copy of the first `size` bytes to the GPU."""

    def download(self, target: PinnedMemory, source: DeviceMemory, size: int, stream: Stream) -> None:
        """Give a stream the copy of the first `size` bytes to the host."""

    def begin_recording(self, stream: Stream) -> None:
        """Record what this thread gives the stream from now on, in place of running it."""

    def end_recording(self, stream: Stream) -> Any:
        """End the recording and return its graph. Raises DriverError where something in it could not be recorded."""

    def instantiate(self, graph: Any) -> Any:
        """Return what can be launched of a graph; the graph may be freed afterwards."""

    def launch(self, executable: Any, stream: Stream) -> None:
        """Give a stream the work of a graph."""

    def free_graph(self, graph: Any) -> None:
        """Free what `end_recording` returned."""

    def free_executable(self, executable: Any) -> None:
        """Free what `instantiate` returned, which must not be running."""


def load_driver() -> Driver:
    """Return the driver to use, initialised: see this module's docstring for which.

    Raises UserError where neither package is installed or the one that was asked for is not, where it does not load, or
    where there is no CUDA driver.
    """
    choice = os.environ.get(DRIVER_VARIABLE, "auto")
    if choice not in get_args(DriverChoice):
        raise UserError(f"{DRIVER_VARIABLE} must be auto, pycuda or cuda-python, got {choice!r}")
    loaders: dict[str, Callable[[], Driver]] = {"pycuda": _load_pycuda, "cuda-python": _load_cuda_python}
    wanted = list(loaders) if choice == "auto" else [choice]
    reasons = []
    for name in wanted:
        try:
            return loaders[name]()
        except ModuleNotFoundError as error:
            reasons.append(str(error))
    ways = "; ".join(_INSTALL[name] for name in reversed(wanted))
    if choice == "auto":
        what = "engines run through PyCUDA or cuda-python, and neither can be imported"
    else:
        what = f"{DRIVER_VARIABLE}={choice} asks for {choice}, which cannot be imported"
    raise UserError(f"{what} ({'; '.join(reasons)}): {ways}. {WITHOUT_ENGINES}")


def _load_pycuda() -> Driver:
    from export.device.pycuda_driver import PycudaDriver

    try:
        module = importlib.import_module("pycuda.driver")
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        if "libcuda.so" in str(error):
            raise _without_driver(error) from error
        raise UserError(
            f"PyCUDA is installed and does not load ({error}): it needs the libraries of the CUDA toolkit that it was "
            f"compiled with, and a driver of that version or later; with cuda-python, {DRIVER_VARIABLE}=cuda-python "
            f"leaves it out. {WITHOUT_ENGINES}"
        ) from error
    return _initialised(PycudaDriver(module, importlib.import_module("pycuda").VERSION_TEXT))


def _load_cuda_python() -> Driver:
    from export.device.cuda_python_driver import CudaPythonDriver

    module = importlib.import_module("cuda.bindings.driver")
    version = importlib.import_module("cuda.bindings").__version__
    return _initialised(CudaPythonDriver(module, version))


def _initialised(driver: Any) -> Driver:
    try:
        driver.initialise()
    except FileNotFoundError as error:
        raise _without_driver(error) from error
    except DriverError as error:
        raise UserError(
            f"engines need an NVIDIA GPU, and the CUDA driver finds none here ({error}). {WITHOUT_ENGINES}"
        ) from error
    initialised: Driver = driver
    return initialised


def _without_driver(error: Exception) -> UserError:
    return UserError(f"engines need an NVIDIA GPU, and there is no CUDA driver here ({error}). {WITHOUT_ENGINES}")
