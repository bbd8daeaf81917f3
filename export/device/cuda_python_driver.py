"""Calls CUDA's driver through cuda-python, whose package `cuda.bindings` has each function under its own name.

A function returns a tuple of its status and its results. The package can be imported without a driver, which is looked
for at the first call. No line of this has run on a GPU yet.
"""

import ctypes
from typing import Any

import numpy as np

from export.device.driver import Bytes, DeviceMemory, DeviceMemoryError, DriverError, PinnedMemory, Stream

_NAME_BYTES = 256  # of a GPU's name, at most


class CudaPythonContext:
    """Holds a GPU's primary context."""

    def __init__(self, driver: "CudaPythonDriver", index: int) -> None:
        self._call = driver.call
        self._device = self._call("cuDeviceGet", index)
        name: bytes = self._call("cuDeviceGetName", _NAME_BYTES, self._device)
        self.name = name.partition(b"\0")[0].decode(errors="replace").strip()
        attributes = driver.module.CUdevice_attribute
        self.capability: tuple[int, int] = (
            self._call("cuDeviceGetAttribute", attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._device),
            self._call("cuDeviceGetAttribute", attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._device),
        )
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)

    def push(self) -> None:
        self._call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        self._call("cuCtxPopCurrent")

    def release(self) -> None:
        self._call("cuDevicePrimaryCtxRelease", self._device)


class CudaPythonStream:
    """Holds a stream."""

    def __init__(self, driver: "CudaPythonDriver") -> None:
        self._call = driver.call
        flags = driver.module.CUstream_flags.CU_STREAM_NON_BLOCKING
        self._stream = self._call("cuStreamCreate", int(flags))

    @property
    def handle(self) -> int:
        return int(self._stream)

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._call("cuStreamDestroy", stream)


class CudaPythonMemory:
    """Holds memory on the GPU."""

    def __init__(self, driver: "CudaPythonDriver", size: int) -> None:
        self._call = driver.call
        self._pointer = self._call("cuMemAlloc", size)

    @property
    def address(self) -> int:
        return int(self._pointer)

    def free(self) -> None:
        self._call("cuMemFree", self._pointer)


class CudaPythonPinnedMemory:
    """Holds pinned memory; its array must not be used after `free`, as nothing keeps the memory."""

    def __init__(self, driver: "CudaPythonDriver", size: int) -> None:
        self._call = driver.call
        self._address: int = self._call("cuMemHostAlloc", size, 0)
        self.array: Bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._address))

    def free(self) -> None:
        self._call("cuMemFreeHost", self._address)


class CudaPythonDriver:
    """Offers the operations of `export.device.driver.Driver` through cuda-python."""

    def __init__(self, module: Any, version: str) -> None:
        self.module = module
        self.description = f"cuda-python {version}"

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the driver and return its result: None, a value, or a tuple of several.

        Raises DriverError with the driver's name of the error, or where it has no such function or the package does
        not know the error.
        """
        try:
            status, *results = getattr(self.module, name)(*arguments)
        except (RuntimeError, ValueError) as error:  # the driver is older than the function, or newer than the package
            raise DriverError(f"{name} failed: {error}") from error
        if status == self.module.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise DeviceMemoryError(f"{name} failed: {status.name}")
        if status != self.module.CUresult.CUDA_SUCCESS:
            raise DriverError(f"{name} failed: {status.name}")
        return results[0] if len(results) == 1 else tuple(results) or None

    def initialise(self) -> None:
        """Start the driver. Raises FileNotFoundError where there is none, and DriverError where it finds no GPU."""
        try:
            self.module.cuDriverGetVersion()
        except RuntimeError as error:
            raise FileNotFoundError(str(error)) from error
        self.call("cuInit", 0)

    def device_count(self) -> int:
        return int(self.call("cuDeviceGetCount"))

    def open_device(self, index: int) -> CudaPythonContext:
        return CudaPythonContext(self, index)

    def free_bytes(self) -> int:
        return int(self.call("cuMemGetInfo")[0])

    def make_stream(self) -> CudaPythonStream:
        return CudaPythonStream(self)

    def allocate(self, size: int) -> CudaPythonMemory:
        return CudaPythonMemory(self, size)

    def allocate_pinned(self, size: int) -> CudaPythonPinnedMemory:
        return CudaPythonPinnedMemory(self, size)

    def upload(self, target: DeviceMemory, source: PinnedMemory, size: int, stream: Stream) -> None:
        self.call("cuMemcpyHtoDAsync", target.address, _address(source, size), size, stream.handle)

    def download(self, target: PinnedMemory, source: DeviceMemory, size: int, stream: Stream) -> None:
        self.call("cuMemcpyDtoHAsync", _address(target, size), source.address, size, stream.handle)

    def begin_recording(self, stream: Stream) -> None:
        this_thread = self.module.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.call("cuStreamBeginCapture", stream.handle, this_thread)

    def end_recording(self, stream: Stream) -> Any:
        return self.call("cuStreamEndCapture", stream.handle)

    def instantiate(self, graph: Any) -> Any:
        return self.call("cuGraphInstantiate", graph, 0)

    def launch(self, executable: Any, stream: Stream) -> None:
        self.call("cuGraphLaunch", executable, stream.handle)

    def free_graph(self, graph: Any) -> None:
        self.call("cuGraphDestroy", graph)

    def free_executable(self, executable: Any) -> None:
        self.call("cuGraphExecDestroy", executable)


def _address(memory: PinnedMemory, size: int) -> int:
    """Return where pinned memory begins. Raises ValueError where it is smaller than `size` bytes."""
    if memory.array.nbytes < size:
        raise ValueError(f"a copy of {size} bytes needs as many pinned, got {memory.array.nbytes}")
    return int(memory.array.ctypes.data)
