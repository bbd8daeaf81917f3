"""TensorRT and TensorRT for RTX over a `FakeGpu`: an engine that turns images upside down and inverts them."""

import weakref
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from export.pixel_ends import RGB_ENDS, PixelEnds
from tests.export.fake_gpu import FakeGpu, Rule

GOOD = b"an engine"


class FakeTensorRT:
    """Stands in for the module, as far as engines are run; `rtx` says which of the two.

    Args of tests: `enqueue_fails`, `context_fails`, `is_capturable`, `refuses_shape` make the next call of that kind
    return a failure.
    """

    def __init__(self, gpu: FakeGpu, *, rtx: bool, uint8_io: bool, ends: PixelEnds = RGB_ENDS) -> None:
        self.gpu, self.rtx, self.uint8_io, self.ends = gpu, rtx, uint8_io, ends
        self.enqueue_fails = self.context_fails = self.refuses_shape = False
        self.is_capturable = True
        self.names = ["image", "translated"]
        self.compiled: set[bytes] = set()  # kernels in the runtime cache
        self.configs: list[Any] = []
        self.context_memory = 0
        trt = self

        class ILogger:
            is_made = False

            def __init__(self) -> None:
                self.is_made = True

        class Runtime:
            def __init__(self, logger: Any) -> None:
                assert logger.is_made, "the base class was not initialised"
                gpu.require_current("Runtime")
                self.logger = logger
                gpu.live["runtime"] += 1

            def deserialize_cuda_engine(self, content: bytes) -> Any:
                gpu.require_current("deserialize")
                gpu.log("deserialize")
                if content != GOOD:
                    self.logger.log(trt.severity("ERROR"), "Serialization assertion\n magicTag failed")
                    return None
                return FakeEngine(trt, self)

            def __del__(self) -> None:
                gpu.live["runtime"] -= 1
                gpu.check_in_destructor("a runtime", owner_lives=gpu.live["engine"] == 0)

        self.module = SimpleNamespace(
            __version__="1.7.1" if rtx else "10.9",
            Builder=object,
            ILogger=ILogger,
            Runtime=Runtime,
            TensorIOMode=Enum("TensorIOMode", "NONE INPUT OUTPUT"),
            DataType=Enum("DataType", "FLOAT HALF UINT8"),
        )
        if rtx:
            self.module.IRuntimeCache = FakeCache
            self.module.DynamicShapesKernelSpecializationStrategy = Enum("Strategy", "LAZY EAGER NONE")

    @staticmethod
    def severity(name: str) -> Any:
        return SimpleNamespace(name=name)

    def dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any]]:
        """Return the types of the arrays that the engine takes and gives."""
        source, target = (
            np.dtype(np.uint8 if self.uint8_io and kind.dtype == "uint8" else np.float32) for kind in self.ends
        )
        return source, target

    def shapes(self, batch: int, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of the arrays that the engine takes and gives."""
        source, target = (
            (batch, height, width, kind.channels) if self.uint8_io else (batch, kind.channels, height, width)
            for kind in self.ends
        )
        return source, target


class FakeEngine:
    num_io_tensors = 2

    def __init__(self, trt: FakeTensorRT, runtime: Any) -> None:
        self.trt, self.runtime = trt, weakref.ref(runtime)
        self.contexts = 0
        trt.gpu.live["engine"] += 1

    def get_tensor_name(self, index: int) -> str:
        return self.trt.names[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.trt.module.TensorIOMode
        return modes.INPUT if name == self.trt.names[0] else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        types = self.trt.module.DataType
        return types.UINT8 if self.trt.dtypes()[self.trt.names.index(name)] == np.uint8 else types.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.trt.shapes(-1, -1, -1)[self.trt.names.index(name)]

    def create_runtime_config(self) -> Any:
        assert self.trt.rtx
        config = FakeConfig(self.trt)
        self.trt.configs.append(weakref.ref(config))
        return config

    def create_execution_context(self, *config: Any) -> Any:
        self.trt.gpu.require_current("create_execution_context")
        assert len(config) == self.trt.rtx
        if self.trt.context_fails:
            self.runtime().logger.log(self.trt.severity("ERROR"), "Requested size was 9 bytes.")  # type: ignore[union-attr]
            return None
        self.contexts += 1
        context = (RtxContext if self.trt.rtx else FakeContext)(self)
        context.active_optimization_profile = 0 if self.contexts == 1 else -1
        return context

    def __del__(self) -> None:
        self.trt.gpu.live["engine"] -= 1
        is_last = self.trt.gpu.live["context"] == 0
        self.trt.gpu.check_in_destructor("an engine", owner_lives=is_last and self.runtime() is not None)


class FakeContext:
    active_optimization_profile = 0

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.trt, self.gpu = weakref.ref(engine), engine.trt, engine.trt.gpu
        self.logger = engine.runtime().logger  # type: ignore[union-attr]
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}
        self.version = 0  # of what it is set to
        self.prepared: tuple[int, ...] | None = None  # the shape that was enqueued before
        self.gpu.live["context"] += 1

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.gpu.stream(stream).give(lambda: None)
        self.active_optimization_profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.gpu.require_current("set_input_shape")
        assert name == self.trt.names[0]
        self.gpu.log(f"shape {list(shape)}")
        self.version += 1
        if self.trt.refuses_shape:
            self.logger.log(self.trt.severity("ERROR"), "Static dimension mismatch")
            return False
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape is not None
        batch, *sides = self.shape
        height, width = sides[:2] if self.trt.uint8_io else sides[1:]
        return self.trt.shapes(batch, height, width)[self.trt.names.index(name)]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.trt.names
        assert type(address) is int
        self.version += 1
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        given = self.gpu.stream(stream)
        self.gpu.require_current("enqueue")
        if self.active_optimization_profile != 0:
            raise Rule("enqueued without a profile")
        if self.shape is None or set(self.addresses) != set(self.trt.names):
            raise Rule("enqueued without a shape or an address")
        if self.trt.enqueue_fails:
            self.logger.log(self.trt.severity("ERROR"), "Cask convolution execution failed")
            return False
        if given.recording is not None and self.prepared != self.shape:
            given.recording_is_invalid = True  # the first time it allocates
        self.prepared = self.shape
        self.gpu.log("enqueue")
        version, shape = self.version, self.shape
        addresses = [self.addresses[name] for name in self.trt.names]

        def compute() -> None:
            if self.version != version:
                raise Rule("ran a graph of a context that was set to something else since")
            shapes = shape, self.get_tensor_shape(self.trt.names[1])
            image, translated = (
                self.gpu.at(address, int(np.prod(sides)) * dtype.itemsize).view(dtype).reshape(sides)
                for address, dtype, sides in zip(addresses, self.trt.dtypes(), shapes, strict=True)
            )
            translated[:] = upside_down(image) if self.trt.ends.are_rgb else upright(image, translated.shape)

        given.give(compute)
        if self.trt.rtx:
            self.trt.compiled.add(repr(shape).encode())
        return True

    def __del__(self) -> None:
        self.gpu.live["context"] -= 1
        self.gpu.check_in_destructor("an execution context", owner_lives=self.engine() is not None)


class RtxContext(FakeContext):
    def is_stream_capturable(self, stream: int) -> bool:
        return self.trt.is_capturable and self.prepared == self.shape


class FakeConfig:
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.cache: Any = None

    def create_runtime_cache(self) -> "FakeCache":
        return FakeCache(self.trt)

    def set_runtime_cache(self, cache: "FakeCache") -> bool:
        self.cache = cache
        return True


class FakeCache:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt

    def deserialize(self, content: bytes) -> bool:
        self.trt.gpu.require_current("read a runtime cache")
        if not content.startswith(b"kernels:"):
            return False
        self.trt.compiled |= set(content.removeprefix(b"kernels:").split(b";")) - {b""}
        return True

    def serialize(self) -> memoryview:
        self.trt.gpu.require_current("write a runtime cache")
        return memoryview(b"kernels:" + b";".join(sorted(self.trt.compiled)))


def upright(images: Any, shape: tuple[int, ...]) -> Any:
    """Return what an engine of other pixels than 8-bit RGB computes: the mean of all channels in each channel."""
    axis = next((axis for axis in (1, 3) if images.shape[axis] != shape[axis]), 3)
    return np.broadcast_to(images.mean(axis, keepdims=True), shape)


def upside_down(images: Any) -> Any:
    """Return what the engine computes, either way round: [N, H, W, 3] or [N, 3, H, W]."""
    return 255 - images[:, ::-1] if images.dtype == np.uint8 else -images[:, :, ::-1]
