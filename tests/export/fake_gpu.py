"""Imitates a GPU and PyCUDA in plain Python, and is stricter: what they leave undefined raises here.

`fake_cuda_python` and `fake_tensorrt` imitate more over the same GPU.

Work given to a stream is done when the stream is waited for and not before; every call needs the context to be current
on its thread; memory is freed once, while nothing uses it. What a destructor finds wrong stands in `violations`.
"""

import ctypes
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

INVALIDATED = 901  # CUDA_ERROR_STREAM_CAPTURE_INVALIDATED


class Rule(AssertionError):
    """Raised by what no program may do on a GPU."""


class OutOfMemory(Exception):
    """Raised where an allocation does not fit; what imitates a package turns it into that package's own error."""


class Memory:
    """Holds an allocation of the device, or with `is_host` the base of a pinned array."""

    def __init__(self, gpu: "FakeGpu", size: int, *, is_host: bool, at_its_own_address: bool = False) -> None:
        self.content: Any = np.full(size, 171, np.uint8)  # never zero by luck
        self.gpu, self.is_host, self.address = gpu, is_host, gpu.next_address
        if at_its_own_address:
            self.address = self.content.ctypes.data
        gpu.next_address += size + 4096
        gpu.memory[self.address] = self
        gpu.log(f"allocate {'host' if is_host else 'device'}")

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self.gpu.require_current("free")
        self.gpu.require_idle(f"free memory at {self.address}")
        if self.gpu.memory.pop(self.address, None) is None:
            raise Rule("freed twice")
        self.gpu.log(f"free {'host' if self.is_host else 'device'}")
        self.content[:] = 85


class PinnedArray(np.ndarray):  # type: ignore[type-arg]
    """numpy would let go of a base that is no buffer."""

    allocation: Any = None

    @property
    def base(self) -> Any:
        return self.allocation


class Stream:
    def __init__(self, gpu: "FakeGpu", flags: int) -> None:
        gpu.require_current("Stream")
        assert flags == 1, "a stream that waits for the default one"
        self.gpu, self.handle = gpu, 0x7F00_0000_0000 + len(gpu.streams)  # beyond 32 bits, as real ones are
        self.pending: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.recording_is_invalid = False
        gpu.streams[self.handle] = weakref.ref(self)
        gpu.live["stream"] += 1

    def give(self, work: Callable[[], None]) -> None:
        self.gpu.require_current("work for a stream")
        (self.pending if self.recording is None else self.recording).append(work)

    def synchronize(self) -> None:
        self.gpu.require_current("synchronize")
        if self.recording is not None:
            self.recording_is_invalid = True
            raise Rule("waited for a stream that is recorded")
        pending, self.pending = self.pending, []
        self.gpu.log("synchronize")
        for work in pending:
            work()

    def __del__(self) -> None:
        self.gpu.live["stream"] -= 1
        self.gpu.check_in_destructor("a stream", is_idle=not self.pending)


def _is_recorded(reference: "weakref.ref[Stream]") -> bool:
    """Tell it in a frame of its own: one that raises would keep the stream, by its traceback."""
    stream = reference()
    return stream is not None and stream.recording is not None


class FakeGpu:
    def __init__(self, capability: tuple[int, int] = (8, 9), count: int = 1, total: int = 1 << 30) -> None:
        self.capability, self.count, self.total = capability, count, total
        self.calls: list[str] = []
        self.violations: list[str] = []
        self.memory: dict[int, Memory] = {}
        self.streams: dict[int, weakref.ref[Stream]] = {}
        self.graphs: dict[int, Any] = {}
        self.live = dict.fromkeys(("stream", "runtime", "engine", "context"), 0)
        self.next_address = 0x7E00_0000_0000
        self.next_graph = 0x7D00_0000_0000
        self.current = threading.local()
        self.has_driver = True  # whether libcuda can be loaded
        self.init_fails = False
        self.failing_allocation: int | None = None  # the next one where 1, counted down by each
        self.driver = self._make_driver()
        self.libcuda = FakeLibcuda(self)

    # --- rules

    def log(self, call: str) -> None:
        self.calls.append(call)

    @property
    def depth(self) -> int:
        return getattr(self.current, "depth", 0)

    def push(self) -> None:
        self.current.depth = self.depth + 1

    def pop(self) -> None:
        self.require_current("pop")
        self.current.depth -= 1

    def allocate(self, size: int, *, is_host: bool, at_its_own_address: bool = False) -> Memory:
        """Allocate, or raise OutOfMemory."""
        self.require_current("allocate")
        if any(map(_is_recorded, self.streams.values())):
            raise Rule("allocated while a stream is recorded")
        if self.failing_allocation is not None:
            self.failing_allocation -= 1
        if self.failing_allocation == 0 or (not is_host and self.used + size > self.total):
            raise OutOfMemory
        return Memory(self, size, is_host=is_host, at_its_own_address=at_its_own_address)

    def require_current(self, call: str) -> None:
        if not self.depth:
            raise Rule(f"{call} without a current context")

    def require_idle(self, call: str) -> None:
        if any((stream := reference()) is not None and stream.pending for reference in self.streams.values()):
            raise Rule(f"{call} while work is pending")

    def check_in_destructor(self, what: str, *, is_idle: bool = True, owner_lives: bool = True) -> None:
        if not self.depth:
            self.violations.append(f"{what} destroyed without a current context")
        if not is_idle:
            self.violations.append(f"{what} destroyed while it works")
        if not owner_lives:
            self.violations.append(f"{what} destroyed after what it belongs to")

    def at(self, address: int, size: int) -> Any:
        """Return the bytes at an address that the device can reach."""
        memory = self.memory.get(address)
        if memory is None or memory.is_host:
            raise Rule(f"used memory that is not there, at {address}")
        if memory.content.size < size:
            raise Rule(f"{size} bytes in a buffer of {memory.content.size}")
        return memory.content[:size]

    def stream(self, handle: int) -> Stream:
        stream = self.streams[handle]()
        if stream is None:
            raise Rule("used a stream that is gone")
        return stream

    @property
    def used(self) -> int:
        return sum(memory.content.size for memory in self.memory.values() if not memory.is_host)

    def assert_all_freed(self) -> None:
        assert self.violations == [], self.violations
        assert not self.memory, f"{len(self.memory)} allocations are left"
        assert not self.graphs, f"{len(self.graphs)} graphs are left"
        assert not any(self.live.values()), self.live
        assert self.depth == 0, "a context is left current"

    # --- pycuda.driver

    def _make_driver(self) -> Any:
        gpu = self
        error = type("Error", (Exception,), {})

        class Context:
            def push(self) -> None:
                gpu.push()

            def detach(self) -> None:
                gpu.log("detach")

            @staticmethod
            def pop() -> None:
                gpu.pop()

        class Device:
            def __init__(self, index: int) -> None:
                assert 0 <= index < gpu.count

            @staticmethod
            def count() -> int:
                return gpu.count

            def name(self) -> str:
                return "Fake GPU"

            def compute_capability(self) -> tuple[int, int]:
                return gpu.capability

            def retain_primary_context(self) -> Context:
                gpu.log("retain")
                return Context()

        def allocate(size: int, is_host: bool) -> Memory:
            try:
                return gpu.allocate(int(size), is_host=is_host)
            except OutOfMemory:
                raise driver.MemoryError("cuMemAlloc failed: out of memory") from None

        def init() -> None:
            if gpu.init_fails:
                raise driver.RuntimeError("cuInit failed: no CUDA-capable device is detected")

        def pagelocked_empty(size: int, dtype: Any) -> PinnedArray:
            memory = allocate(size, is_host=True)
            array = memory.content.view(dtype).view(PinnedArray)
            array.allocation = memory
            return array  # type: ignore[no-any-return]

        def host_of(array: Any) -> Any:
            assert isinstance(array, PinnedArray), "only copies of pinned memory are asynchronous"
            return array.view(np.ndarray)

        def upload(device: Memory, host: Any, stream: Stream) -> None:
            source = host_of(host)
            gpu.log("upload")
            stream.give(lambda: gpu.at(int(device), source.size).__setitem__(slice(None), source))

        def download(host: Any, device: Memory, stream: Stream) -> None:
            target = host_of(host)
            gpu.log("download")
            stream.give(lambda: target.__setitem__(slice(None), gpu.at(int(device), target.size)))

        driver = SimpleNamespace(
            Error=error,
            MemoryError=type("MemoryError", (error,), {}),
            RuntimeError=type("RuntimeError", (error,), {}),
            init=init,
            Device=Device,
            Context=Context,
            Stream=lambda flags: Stream(gpu, flags),
            mem_alloc=lambda size: allocate(size, is_host=False),
            pagelocked_empty=pagelocked_empty,
            memcpy_htod_async=upload,
            memcpy_dtoh_async=download,
            mem_get_info=lambda: (gpu.total - gpu.used, gpu.total),
        )
        return driver


class FakeLibcuda:
    """Offers the graph functions of the driver, with arguments as ctypes hands them over."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.fails: str | None = None  # a function that returns an error

    def _status(self, name: str) -> int:
        self.gpu.require_current(name)
        self.gpu.log(name)
        return 999 if self.fails == name else 0

    def _new_graph(self, work: Any) -> int:
        self.gpu.next_graph += 1
        self.gpu.graphs[self.gpu.next_graph] = work
        return self.gpu.next_graph

    def cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:
        assert mode == 1, "a recording that other threads disturb"
        given = self.gpu.stream(stream)
        if given.recording is not None:
            raise Rule("recordings in each other")
        if status := self._status("cuStreamBeginCapture_v2"):
            return status
        given.recording, given.recording_is_invalid = [], False
        return 0

    def cuStreamEndCapture(self, stream: int, graph: Any) -> int:
        given = self.gpu.stream(stream)
        if given.recording is None:
            raise Rule("ended a recording that was not begun")
        work, given.recording = given.recording, None
        status = self._status("cuStreamEndCapture")
        if given.recording_is_invalid or status:
            return status or INVALIDATED
        graph._obj.value = self._new_graph(work)
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: ctypes.c_void_p, flags: int) -> int:
        if status := self._status("cuGraphInstantiateWithFlags"):
            return status
        executable._obj.value = self._new_graph(self.gpu.graphs[graph.value or 0])
        return 0

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: int) -> int:
        if status := self._status("cuGraphLaunch"):
            return status
        for work in self.gpu.graphs[executable.value or 0]:
            self.gpu.stream(stream).give(work)
        return 0

    def cuGraphExecDestroy(self, executable: ctypes.c_void_p) -> int:
        self.gpu.require_idle("destroy a graph")
        del self.gpu.graphs[executable.value or 0]
        return self._status("cuGraphExecDestroy")

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        del self.gpu.graphs[graph.value or 0]
        return self._status("cuGraphDestroy")

    def cuGetErrorName(self, status: int, name: Any) -> int:
        name._obj.value = {999: b"CUDA_ERROR_UNKNOWN", INVALIDATED: b"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}[status]
        return 0
