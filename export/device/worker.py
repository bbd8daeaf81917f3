"""Runs an engine for one caller, on an execution context, a stream and buffers of its own.

`export.runtime` opens the engine and makes the workers. No line of this has run on a GPU yet.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from threading import Lock
from typing import Any

import numpy as np

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted
from cyclegan_fast.translation.translator import BatchDoesNotFit
from export.device.buffers import Buffer
from export.device.driver import DriverError
from export.device.primary_context import CudaDevice
from export.device.replay import Replay, Way
from export.device.stream_graph import StreamGraph
from export.engines.engine_card import EngineCard, ImageShape
from export.engines.image_layout import Array, ImageLayout
from export.library_errors import explaining

_LOG = logging.getLogger(__name__)


def _explaining() -> AbstractContextManager[None]:
    return explaining("the GPU could not run the engine", "try again, or translate by python export/run.py --onnx FILE")


class Worker:
    """Runs an engine on a stream of its own: workers of one engine compute beside each other, in a thread each.

    Where two threads call it at once, one waits. It is closed with its engine, or before.

    Args:
        gpu: the GPU that holds the engine.
        card: the engine's card, which says what images it takes.
        make_context: makes an execution context of the engine, or returns None where that fails.
        last_message: returns what the library said last, for errors.
        cuda_graph: replay the work of a shape that is given again and again as one graph.
    """

    def __init__(
        self,
        gpu: CudaDevice,
        card: EngineCard,
        make_context: Callable[[], Any],
        last_message: Callable[[], str],
        *,
        cuda_graph: bool,
    ) -> None:
        self._gpu = gpu
        self._card = card
        self._taken, self._given = ImageLayout.of_ends(card)
        self._last_message = last_message
        self._replay = Replay(cuda_graph)
        self._lock = Lock()
        self._is_closed = False
        self._graph: StreamGraph | None = None
        self._stream: Any = None  # a Stream, once it is made
        self._context: Any = None
        self._input, self._output = Buffer(gpu.driver), Buffer(gpu.driver)
        try:
            with gpu.current(), _explaining(), gpu.explaining_exhaustion("another worker of the engine"):
                self._stream = gpu.driver.make_stream()
                self._context = make_context()
                if self._context is None:
                    raise self._failure("could not make room for a worker, for want of GPU memory perhaps")
                self._choose_profile()
        except BaseException:
            self.close()
            raise

    @property
    def shape(self) -> ImageShape | None:
        """Return the shape of images that it is fastest at, that of its last call, or None."""
        return self._replay.shape

    def __call__(self, images: Array) -> Array:
        """Translate a batch of arrays as `export.engines.image_layout` describes them.

        Raises UserError for an array that the engine does not take, and BatchDoesNotFit for one of other sides, or
        where the GPU's memory does not hold it.
        """
        shape = self._taken.check(images)
        with self._lock:
            if self._is_closed:
                raise UserError("the engine is closed: call it inside its `with`")
            with self._gpu.current(), _explaining():
                try:
                    return self._run(images, shape)
                except BaseException:
                    self._forget()  # how far the call came is unknown
                    raise

    def _run(self, images: Array, shape: ImageShape) -> Array:
        way = self._replay.way(shape)
        if way is Way.SET_UP:
            self._set_up(shape)
        np.copyto(self._input.view(self._taken.array_shape(shape), self._taken.dtype), images)
        if way is Way.RECORD:
            self._record()
        self._input.upload(self._taken.size(shape), self._stream)
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()
        self._output.download(self._given.size(shape), self._stream)
        self._stream.synchronize()
        return self._output.view(self._given.array_shape(shape), self._given.dtype).copy()

    def _set_up(self, shape: ImageShape) -> None:
        """Make room, and tell the execution context where that is."""
        self._forget()
        batch, height, width = shape
        what = f"a batch of {counted(batch, 'image')} of {width}x{height} pixels"
        with self._gpu.explaining_exhaustion(what, BatchDoesNotFit):
            try:
                self._input.grow_to(self._taken.size(shape))
                self._output.grow_to(self._given.size(shape))
            except BaseException:
                self._input.free()  # so that smaller images find the room that these did not
                raise
        # No local variable holds the context: an error's traceback would keep it alive after `close`.
        wanted, promised = self._taken.array_shape(shape), self._given.array_shape(shape)
        if not self._context.set_input_shape(self._card.input, wanted):
            raise self._failure(f"refused the shape {list(wanted)}")
        for name, buffer in ((self._card.input, self._input), (self._card.output, self._output)):
            if not self._context.set_tensor_address(name, buffer.address):
                raise self._failure(f"refused memory for {name!r}")
        given = tuple(self._context.get_tensor_shape(self._card.output))
        if given != promised:
            raise UserError(f"the engine gives {list(given)} for {list(wanted)}: it is no generator of this project")
        self._replay.set_to(shape)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._failure("could not run")

    def _record(self) -> None:
        """Record the graph, or note for good that this engine has none."""
        try:
            if not self._is_capturable():
                raise UserError("this engine's work cannot be recorded on a stream")
            self._graph = StreamGraph(self._gpu.driver, self._stream, self._enqueue)
        except (DriverError, UserError) as error:
            self._replay.enabled = False
            # The error is logged as text: a handler that keeps the record would keep the error, its traceback and the
            # context.
            _LOG.warning("without a CUDA graph, every call enqueues its kernels one by one: %s", str(error))
        else:
            self._replay.is_recorded = True

    def _is_capturable(self) -> bool:
        # Only TensorRT for RTX can tell; it says no where it compiles or allocates in between.
        if not hasattr(self._context, "is_stream_capturable"):
            return True
        return bool(self._context.is_stream_capturable(self._stream.handle))

    def _forget(self) -> None:
        """Destroy the graph, and forget the shape that the context is set to."""
        self._replay.set_to(None)
        if self._stream is not None:
            # Nothing is freed or moved that is still in use. After an error on the GPU even waiting fails.
            with suppress(DriverError):
                self._stream.synchronize()
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.destroy()

    def _choose_profile(self) -> None:
        # An engine's first context has the first profile from the start; later contexts may have none.
        if self._context.active_optimization_profile != 0:
            if not self._context.set_optimization_profile_async(0, self._stream.handle):
                raise self._failure("refused its profile")
            self._stream.synchronize()

    def _failure(self, what: str) -> UserError:
        return UserError(f"the engine {what}: {self._last_message()}")

    def close(self) -> None:
        """Free everything; waits for a call that is running. Does nothing the second time."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            # All is freed, last to first, whatever fails; objects of TensorRT are freed by letting go of them.
            with self._gpu.current(), ExitStack() as release:
                if self._stream is not None:
                    release.callback(self._stream.close)
                release.callback(self._input.free)
                release.callback(self._output.free)
                release.callback(setattr, self, "_context", None)
                release.callback(self._forget)
