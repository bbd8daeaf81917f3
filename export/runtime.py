"""Runs a TensorRT engine on NumPy arrays, without PyTorch.

    with Engine(Path("engines/x-float16-uint8.engine")) as engine:
        translated = engine(pixels)

It needs numpy, PyCUDA or cuda-python, the library that built the engine, and this repository's folders cyclegan_fast/,
export/ and kernels/. All that is decided without a GPU is in `engine_card`, `image_layout`, `replay` and `buffers`, and
tested; no call of CUDA has run on a GPU yet.
"""

from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np

from cyclegan_fast.system.errors import UserError
from export.device.primary_context import open_gpu
from export.device.runtime_cache import RuntimeCache, cache_paths
from export.device.worker import Worker
from export.engines.engine_card import EngineCard
from export.engines.image_layout import Array, ImageLayout
from export.engines.libraries import load_library
from export.engines.library_messages import make_messages
from export.library_errors import explaining


class Engine:
    """Runs an engine file on a GPU; call it from any thread, as often as you like.

    Threads that call it at once get a worker each, with a stream, buffers and an execution context; workers are made on
    demand, kept, and freed with the engine. `worker()` returns one to keep, for example one for each size of images: a
    worker's CUDA graph serves only the shape of its last call.

    Args:
        path: the .engine file, with the .json file that was written beside it.
        device: the index of the GPU, counted from 0.
        cuda_graph: whether to replay the work of a shape that is given again and again as one graph. TensorRT for RTX
            then compiles kernels for a shape at its first call, which takes seconds, instead of beside the calls after.

    Raises UserError, before the library sees the file, where it is missing, damaged or foreign, was built by another
    library or for another GPU, or where PyCUDA and cuda-python, the library or a GPU is missing; later where memory
    runs out.
    """

    def __init__(self, path: Path, *, device: int = 0, cuda_graph: bool = True) -> None:
        self.path = path
        self.card = EngineCard.beside(path)
        self._cuda_graph = cuda_graph
        self._taken, self._given = ImageLayout.of_ends(self.card)
        self._lock = Lock()
        self._workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._is_closed = False
        self._runtime: Any = None
        self._engine: Any = None
        self._config: Any = None
        self._cache: RuntimeCache | None = None

        content = self.card.content_of_engine(path)
        library = load_library(self.card.library)
        self._gpu = open_gpu(device)
        self.driver = self._gpu.driver.description
        """the package that CUDA is called through, and its version"""
        self.card.check_runs_on(library.name, library.version, self._gpu.capability)
        self._messages = make_messages(library.module)
        try:
            with (
                self._gpu.current(),
                explaining(f"{path} cannot be loaded", "build it anew with python export/trt.py"),
                self._gpu.explaining_exhaustion(f"the engine {path.name}"),
            ):
                self._load(library.module, content)
        except BaseException:
            self.close()
            raise

    def _load(self, library: Any, content: bytes) -> None:
        self._runtime = library.Runtime(self._messages)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise UserError(f"{self.path} cannot be loaded: {self._messages.last}")
        self._check_tensors(library)
        if hasattr(library, "IRuntimeCache"):  # TensorRT for RTX
            self._config = self._engine.create_runtime_config()
            if self._cuda_graph:
                # A graph would hold on to the slower kernels that stand in for a shape's own until those are compiled.
                strategies = library.DynamicShapesKernelSpecializationStrategy
                self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            self._cache = RuntimeCache(self._config, cache_paths(self.path, self.card.engine_sha256))

    def _check_tensors(self, library: Any) -> None:
        """Raise UserError where the engine has other inputs and outputs than its card says."""
        card = self.card
        modes, types = library.TensorIOMode, library.DataType
        found = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            found[name] = (
                self._engine.get_tensor_mode(name),
                self._engine.get_tensor_dtype(name),
                tuple(self._engine.get_tensor_shape(name))[self._taken.channel_axis :][:1],
            )
        promised = {
            name: (mode, types.UINT8 if layout.dtype == np.uint8 else types.FLOAT, (layout.kind.channels,))
            for name, mode, layout in (
                (card.input, modes.INPUT, self._taken),
                (card.output, modes.OUTPUT, self._given),
            )
        }
        if found != promised:
            described = " and ".join(dict.fromkeys(map(str, (self._taken, self._given))))
            raise UserError(
                f"{self.path} takes and gives {', '.join(found)}, not {card.input} and {card.output} as {described}"
            )

    def __call__(self, images: Array) -> Array:
        """Translate a batch: samples [N, H, W, C] to samples, or float32 [N, C, H, W] in [-1, 1] to the same.

        `card.uint8_io` says which of the two it takes. Samples of 8 bits are uint8, others float32 in their own units;
        `card.ends` describes them. Raises UserError for an array that the engine does not take.
        """
        shape = self._taken.check(images)
        with self._lock:
            self._require_open()
            # Take the worker that has this shape's graph, or else the one used last, whose memory is warm.
            worker = next((worker for worker in self._idle if worker.shape == shape), None) or next(
                reversed(self._idle), None
            )
            if worker is not None:
                self._idle.remove(worker)
        worker = worker or self.worker()
        try:
            return worker(images)
        finally:
            with self._lock:
                self._idle.append(worker)

    def worker(self) -> Worker:
        """Make a worker for one thread, which this engine's own calls do not use.

        It is freed with the engine, unless it is closed before.

        Raises UserError where the GPU's memory does not hold another.
        """
        with self._lock:  # one context is made at a time
            self._require_open()
            worker = Worker(
                self._gpu, self.card, self._make_context, lambda: str(self._messages.last), cuda_graph=self._cuda_graph
            )
            self._workers.append(worker)
        return worker

    def _make_context(self) -> Any:
        # None cannot be passed: the two libraries take different arguments there.
        return self._engine.create_execution_context(*([self._config] if self._config is not None else []))

    def _require_open(self) -> None:
        if self._is_closed:
            raise UserError("the engine is closed: call it inside its `with`")

    def close(self) -> None:
        """Free everything; waits for calls that are running. Does nothing the second time."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        # All is freed, last to first, whatever fails on the way; the library's objects are freed by letting go of them.
        with self._gpu.current(), ExitStack() as release:
            for name in ("_runtime", "_engine", "_config", "_cache"):
                release.callback(setattr, self, name, None)
            if self._cache is not None:
                release.callback(self._cache.save)
            for worker in self._workers:
                release.callback(worker.close)
            self._idle.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
