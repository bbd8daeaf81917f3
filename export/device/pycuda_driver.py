"""Calls CUDA's driver through PyCUDA, and for graphs, which PyCUDA (2026.1) lacks, through libcuda itself.

No line of this has run on a GPU yet.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from export.device.driver import Bytes, DeviceMemory, DeviceMemoryError, DriverError, PinnedMemory, Stream

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: such a stream does not wait for the default one, on which PyTorch works
THIS_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may use CUDA meanwhile as they like

_SIGNATURES = {
    "cuStreamBeginCapture_v2": [ctypes.c_void_p, ctypes.c_int],
    "cuStreamEndCapture": [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)],
    "cuGraphInstantiateWithFlags": [ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_ulonglong],
    "cuGraphLaunch": [ctypes.c_void_p, ctypes.c_void_p],
    "cuGraphExecDestroy": [ctypes.c_void_p],
    "cuGraphDestroy": [ctypes.c_void_p],
    "cuGetErrorName": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
}


@cache
def graph_library() -> Any:
    """Return libcuda with the signatures of the functions that are called here.

    Raises DriverError where it is missing, or too old for graphs.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
        for name, arguments in _SIGNATURES.items():
            # Without the arguments' types ctypes would cut handles to 32 bits.
            getattr(library, name).argtypes = arguments
    except (OSError, AttributeError) as error:
        raise DriverError(f"this driver has no CUDA graphs: {error}") from error
    return library


def _call(name: str, *arguments: Any) -> None:
    library = graph_library()
    status = getattr(library, name)(*arguments)
    if status:
        error = ctypes.c_char_p()
        known = library.cuGetErrorName(status, ctypes.byref(error)) == 0 and error.value
        raise DriverError(f"{name} failed: {error.value.decode() if known and error.value else f'error {status}'}")


class PycudaContext:
    """Holds a GPU's primary context.

    PyCUDA's own kind of context would be another one than that of TensorRT and PyTorch, and what is allocated in one
    context is of no use in another.
    """

    def __init__(self, module: Any, index: int) -> None:
        self._module = module
        device = module.Device(index)
        self.name: str = device.name()
        self.capability: tuple[int, int] = device.compute_capability()
        self._context = device.retain_primary_context()

    def push(self) -> None:
        self._context.push()

    def pop(self) -> None:
        self._module.Context.pop()

    def release(self) -> None:
        # Without it PyCUDA's destructor takes the context for one of its own kind, and complains that it is none. On
        # another thread than that which retained the context it does nothing.
        self._context.detach()


class PycudaStream:
    """Holds a stream, which PyCUDA gives back when nothing refers to it."""

    def __init__(self, stream: Any, driver: "PycudaDriver") -> None:
        self.inner, self._driver = stream, driver

    @property
    def handle(self) -> int:
        return int(self.inner.handle)

    def synchronize(self) -> None:
        with self._driver.naming_errors():
            self.inner.synchronize()

    def close(self) -> None:
        self.inner = None


class PycudaMemory:
    """Holds memory on the GPU."""

    def __init__(self, allocation: Any) -> None:
        self.inner = allocation

    @property
    def address(self) -> int:
        return int(self.inner)

    def free(self) -> None:
        self.inner.free()


class PycudaPinnedMemory:
    """Holds pinned memory, which is the base of PyCUDA's array."""

    def __init__(self, array: Bytes) -> None:
        self.array = array

    def free(self) -> None:
        allocation: Any = self.array.base
        allocation.free()


class PycudaDriver:
    """Offers the operations of `export.device.driver.Driver` through PyCUDA."""

    def __init__(self, module: Any, version: str) -> None:
        self._module = module
        self.description = f"PyCUDA {version}"

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Turn PyCUDA's exceptions, which quote the driver, into this project's."""
        try:
            yield
        except self._module.MemoryError as error:
            raise DeviceMemoryError(str(error)) from error
        except self._module.Error as error:
            raise DriverError(str(error)) from error

    def initialise(self) -> None:
        with self.naming_errors():
            self._module.init()

    def device_count(self) -> int:
        with self.naming_errors():
            return int(self._module.Device.count())

    def open_device(self, index: int) -> PycudaContext:
        with self.naming_errors():
            return PycudaContext(self._module, index)

    def free_bytes(self) -> int:
        with self.naming_errors():
            return int(self._module.mem_get_info()[0])

    def make_stream(self) -> PycudaStream:
        with self.naming_errors():
            return PycudaStream(self._module.Stream(NON_BLOCKING), self)

    def allocate(self, size: int) -> PycudaMemory:
        with self.naming_errors():
            return PycudaMemory(self._module.mem_alloc(size))

    def allocate_pinned(self, size: int) -> PycudaPinnedMemory:
        with self.naming_errors():
            return PycudaPinnedMemory(self._module.pagelocked_empty(size, np.uint8))

    def upload(self, target: DeviceMemory, source: PinnedMemory, size: int, stream: Stream) -> None:
        with self.naming_errors():
            self._module.memcpy_htod_async(_inner(target), source.array[:size], _inner(stream))

    def download(self, target: PinnedMemory, source: DeviceMemory, size: int, stream: Stream) -> None:
        with self.naming_errors():
            self._module.memcpy_dtoh_async(target.array[:size], _inner(source), _inner(stream))

    def begin_recording(self, stream: Stream) -> None:
        _call("cuStreamBeginCapture_v2", stream.handle, THIS_THREAD)

    def end_recording(self, stream: Stream) -> ctypes.c_void_p:
        graph = ctypes.c_void_p()
        _call("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
        return graph

    def instantiate(self, graph: Any) -> ctypes.c_void_p:
        executable = ctypes.c_void_p()
        _call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        return executable

    def launch(self, executable: Any, stream: Stream) -> None:
        _call("cuGraphLaunch", executable, stream.handle)

    def free_graph(self, graph: Any) -> None:
        _call("cuGraphDestroy", graph)

    def free_executable(self, executable: Any) -> None:
        _call("cuGraphExecDestroy", executable)


def _inner(wrapped: Any) -> Any:
    """Return PyCUDA's own object inside one of this module's."""
    return wrapped.inner
