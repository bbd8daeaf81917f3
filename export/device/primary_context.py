"""Opens a GPU through PyCUDA, in the context that TensorRT and PyTorch use as well.

No line of this has run on a GPU yet.
"""

import atexit
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from cyclegan_fast.system.errors import UserError
from export.library_errors import explaining

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: such a stream does not wait for the default one, on which PyTorch works
_GIB = 1 << 30
_WITHOUT = "Without it, ONNX files run on the CPU or through ONNX Runtime's CUDA: python export/run.py --onnx FILE"


def load_pycuda() -> Any:
    """Return `pycuda.driver`, initialised. Raises UserError where it is not installed, or there is no CUDA driver."""
    try:
        driver = importlib.import_module("pycuda.driver")
    except ImportError as error:
        if "libcuda.so" in str(error):
            raise UserError(
                f"engines need an NVIDIA GPU, and there is no CUDA driver here ({error}). {_WITHOUT}"
            ) from error
        if not isinstance(error, ModuleNotFoundError):
            raise UserError(
                f"PyCUDA is installed and does not load ({error}): it needs the libraries of the CUDA toolkit that it "
                f"was compiled with, and a driver of that version or later. {_WITHOUT}"
            ) from error
        raise UserError(
            f"engines run through PyCUDA, which cannot be imported ({error}): `pip install pycuda`, which is compiled "
            f"on the spot and needs a CUDA toolkit (nvcc on the PATH, cuda.h, curand.h). {_WITHOUT}"
        ) from error
    try:
        driver.init()
    except driver.Error as error:
        raise UserError(
            f"engines need an NVIDIA GPU, and the CUDA driver finds none here ({error}). {_WITHOUT}"
        ) from error
    return driver


class CudaDevice:
    """Holds one GPU and its primary context, which is current only inside `with gpu.current():`, on whatever thread.

    PyCUDA's own kind of context would be another one than that of TensorRT and PyTorch, and what is allocated in one
    context is of no use in another.
    """

    def __init__(self, driver: Any, index: int) -> None:
        self.driver = driver
        self._device = driver.Device(index)
        self.name: str = self._device.name()
        self.capability: tuple[int, int] = self._device.compute_capability()
        self._context = self._device.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on this thread."""
        self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    def release(self) -> None:
        """Let go of the context. The thread that opened the GPU must call this: PyCUDA does nothing on another."""
        # Without it PyCUDA's destructor takes the context for one of its own kind, and complains that it is none.
        self._context.detach()

    def free_bytes(self) -> int:
        """Return the bytes of memory that are free; the context must be current."""
        free: int = self.driver.mem_get_info()[0]
        return free

    @contextmanager
    def explaining_exhaustion(self, wanted: str) -> Iterator[None]:
        """Turn PyCUDA's MemoryError into a UserError that says what was wanted; the context must be current."""
        try:
            yield
        except self.driver.MemoryError as error:
            raise UserError(
                f"{wanted} does not fit the memory of the {self.name}, of which {self.free_bytes() / _GIB:.2f} GiB are "
                "free: translate fewer or smaller images at once, or end what else computes there"
            ) from error


_OPEN: dict[int, CudaDevice] = {}
_LOCK = Lock()


def open_gpu(index: int) -> CudaDevice:
    """Return the GPU of that index, counted from 0. Raises UserError where there is none.

    Each GPU is opened once and held until the process ends. PyCUDA lets go of a primary context only on the thread that
    took it, and leaves it there as the current one; nor would the memory come back, as TensorRT holds the same context.
    """
    with _LOCK:
        if index not in _OPEN:
            driver = load_pycuda()
            with explaining("the GPU cannot be used", "see what nvidia-smi says of it"):
                count = driver.Device.count()
            if not 0 <= index < count:
                raise UserError(f"there is no GPU {index} here: {count} found, counted from 0. {_WITHOUT}")
            with explaining(f"the GPU {index} cannot be used", "see what nvidia-smi says of it"):
                _OPEN[index] = CudaDevice(driver, index)
        return _OPEN[index]


@atexit.register  # before Python takes its modules apart, while CUDA is still there
def release_all() -> None:
    """Let go of every GPU; what was not closed before cannot be used afterwards."""
    with _LOCK:
        while _OPEN:
            _OPEN.popitem()[1].release()
