"""Imitates `cuda.bindings.driver` over a `FakeGpu`, and is as strict as the real one about types.

Names, parameters, enumerations and tuples are those of cuda-python 13.4: `test_cuda_python` compares them.
"""

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from tests.export.fake_gpu import FakeGpu, Memory, OutOfMemory, Rule, Stream


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_DEVICE = 101
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901
    CUDA_ERROR_UNKNOWN = 999


class CUstream_flags(IntEnum):  # noqa: N801  # the real names
    CU_STREAM_DEFAULT = 0
    CU_STREAM_NON_BLOCKING = 1


class CUstreamCaptureMode(IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1
    CU_STREAM_CAPTURE_MODE_RELAXED = 2


class CUdevice_attribute(IntEnum):  # noqa: N801
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class Handle:
    """Holds a number, which only `int` gives."""

    def __init__(self, value: int = 0) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


class CUdevice(Handle):
    pass


class CUcontext(Handle):
    pass


class CUstream(Handle):
    pass


class CUdeviceptr(Handle):
    pass


class CUgraph(Handle):
    pass


class CUgraphExec(Handle):
    pass


def make_cuda_python(gpu: FakeGpu) -> Any:
    """Make the module for one GPU."""
    streams: dict[int, Stream] = {}  # a stream lives until it is destroyed
    freed: list[Memory] = []  # memory stays readable, as nothing keeps a view of it from being read
    ok = CUresult.CUDA_SUCCESS

    def integer(value: Any, kind: type[Handle]) -> int:
        if type(value) is not int and not isinstance(value, kind):
            raise TypeError(f"Argument has incorrect type {type(value)}, expected {kind} or int")
        return int(value)

    def cuDriverGetVersion() -> tuple[CUresult, int]:
        if not gpu.has_driver:
            raise RuntimeError('"cuda" is an NVIDIA driver library and can only be found via system search.')
        return ok, 13040

    def cuInit(Flags: int) -> tuple[CUresult]:
        return (CUresult.CUDA_ERROR_NO_DEVICE if gpu.init_fails else ok,)

    def cuDeviceGetCount() -> tuple[CUresult, int]:
        return ok, gpu.count

    def cuDeviceGet(ordinal: int) -> tuple[CUresult, CUdevice]:
        assert 0 <= ordinal < gpu.count
        return ok, CUdevice(ordinal)

    def cuDeviceGetName(length: int, dev: Any) -> tuple[CUresult, bytes]:
        integer(dev, CUdevice)
        return ok, b"Fake GPU\0".ljust(length)

    def cuDeviceGetAttribute(attrib: CUdevice_attribute, dev: Any) -> tuple[CUresult, int]:
        integer(dev, CUdevice)
        if not isinstance(attrib, CUdevice_attribute):
            raise TypeError(f"Argument 'attrib' has incorrect type {type(attrib)}")
        return ok, gpu.capability[attrib - CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR]

    def cuDevicePrimaryCtxRetain(dev: Any) -> tuple[CUresult, CUcontext]:
        integer(dev, CUdevice)
        gpu.log("retain")
        return ok, CUcontext(0x7B00_0000_0000)

    def cuDevicePrimaryCtxRelease(dev: Any) -> tuple[CUresult]:
        integer(dev, CUdevice)
        gpu.log("detach")
        return (ok,)

    def cuCtxPushCurrent(ctx: Any) -> tuple[CUresult]:
        assert integer(ctx, CUcontext) == 0x7B00_0000_0000
        gpu.push()
        return (ok,)

    def cuCtxPopCurrent() -> tuple[CUresult, CUcontext]:
        gpu.pop()
        return ok, CUcontext(0x7B00_0000_0000)

    def cuMemGetInfo() -> tuple[CUresult, int, int]:
        gpu.require_current("cuMemGetInfo")
        return ok, gpu.total - gpu.used, gpu.total

    def cuStreamCreate(Flags: int) -> tuple[CUresult, CUstream]:
        stream = Stream(gpu, Flags)
        streams[stream.handle] = stream
        return ok, CUstream(stream.handle)

    def cuStreamDestroy(hStream: Any) -> tuple[CUresult]:
        gpu.require_current("cuStreamDestroy")
        del streams[integer(hStream, CUstream)]
        return (ok,)

    def cuStreamSynchronize(hStream: Any) -> tuple[CUresult]:
        gpu.stream(integer(hStream, CUstream)).synchronize()
        return (ok,)

    def allocated(size: int, is_host: bool) -> tuple[CUresult, int | None]:
        try:
            return ok, gpu.allocate(size, is_host=is_host, at_its_own_address=is_host).address
        except OutOfMemory:
            return CUresult.CUDA_ERROR_OUT_OF_MEMORY, None

    def cuMemAlloc(bytesize: int) -> tuple[CUresult, CUdeviceptr | None]:
        status, address = allocated(bytesize, is_host=False)
        return status, None if address is None else CUdeviceptr(address)

    def cuMemHostAlloc(bytesize: int, Flags: int) -> tuple[CUresult, int | None]:
        assert Flags == 0
        return allocated(bytesize, is_host=True)

    def free(address: int, is_host: bool) -> tuple[CUresult]:
        memory = gpu.memory.get(address)
        if memory is None or memory.is_host != is_host:
            raise Rule("freed what is not allocated")
        memory.free()
        freed.append(memory)
        return (ok,)

    def cuMemFree(dptr: Any) -> tuple[CUresult]:
        return free(integer(dptr, CUdeviceptr), is_host=False)

    def cuMemFreeHost(p: int) -> tuple[CUresult]:
        return free(p, is_host=True)

    def pinned(address: int, size: int) -> Any:
        memory = gpu.memory.get(address)
        if memory is None or not memory.is_host or memory.content.size < size:
            raise Rule("only copies of pinned memory are asynchronous")
        return memory.content[:size]

    def cuMemcpyHtoDAsync(dstDevice: Any, srcHost: int, ByteCount: int, hStream: Any) -> tuple[CUresult]:
        source, target = pinned(srcHost, ByteCount), integer(dstDevice, CUdeviceptr)
        gpu.log("upload")
        gpu.stream(integer(hStream, CUstream)).give(lambda: gpu.at(target, ByteCount).__setitem__(slice(None), source))
        return (ok,)

    def cuMemcpyDtoHAsync(dstHost: int, srcDevice: Any, ByteCount: int, hStream: Any) -> tuple[CUresult]:
        target, source = pinned(dstHost, ByteCount), integer(srcDevice, CUdeviceptr)
        gpu.log("download")
        gpu.stream(integer(hStream, CUstream)).give(lambda: target.__setitem__(slice(None), gpu.at(source, ByteCount)))
        return (ok,)

    def through(function: Callable[..., int], *arguments: Any) -> CUresult:
        return CUresult(function(*arguments))

    def cuStreamBeginCapture(hStream: Any, mode: CUstreamCaptureMode) -> tuple[CUresult]:
        if not isinstance(mode, CUstreamCaptureMode):
            raise TypeError(f"Argument 'mode' has incorrect type {type(mode)}")
        return (through(gpu.libcuda.cuStreamBeginCapture_v2, integer(hStream, CUstream), int(mode)),)

    def cuStreamEndCapture(hStream: Any) -> tuple[CUresult, CUgraph | None]:
        graph = ctypes.c_void_p()
        status = through(gpu.libcuda.cuStreamEndCapture, integer(hStream, CUstream), ctypes.byref(graph))
        return status, CUgraph(graph.value) if graph.value else None

    def cuGraphInstantiate(hGraph: Any, flags: int) -> tuple[CUresult, CUgraphExec | None]:
        executable, graph = ctypes.c_void_p(), ctypes.c_void_p(integer(hGraph, CUgraph))
        status = through(gpu.libcuda.cuGraphInstantiateWithFlags, ctypes.byref(executable), graph, flags)
        return status, CUgraphExec(executable.value) if executable.value else None

    def cuGraphLaunch(hGraphExec: Any, hStream: Any) -> tuple[CUresult]:
        executable = ctypes.c_void_p(integer(hGraphExec, CUgraphExec))
        return (through(gpu.libcuda.cuGraphLaunch, executable, integer(hStream, CUstream)),)

    def cuGraphDestroy(hGraph: Any) -> tuple[CUresult]:
        return (through(gpu.libcuda.cuGraphDestroy, ctypes.c_void_p(integer(hGraph, CUgraph))),)

    def cuGraphExecDestroy(hGraphExec: Any) -> tuple[CUresult]:
        return (through(gpu.libcuda.cuGraphExecDestroy, ctypes.c_void_p(integer(hGraphExec, CUgraphExec))),)

    kinds = (CUresult, CUstream_flags, CUstreamCaptureMode, CUdevice_attribute)
    handles = (CUdevice, CUcontext, CUstream, CUdeviceptr, CUgraph, CUgraphExec)
    functions = {name: value for name, value in locals().items() if name.startswith("cu") and callable(value)}
    return SimpleNamespace(**{kind.__name__: kind for kind in (*kinds, *handles)}, **functions)
