"""Records what one stream is given as a CUDA graph and launches it, through the driver itself.

PyCUDA (2026.1) has no graphs, so libcuda is called directly. No line of this has run on a GPU yet.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

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


class GraphError(RuntimeError):
    """Says that the driver could not record or launch, with the names of its function and its error."""


@cache
def driver_library() -> Any:
    """Return libcuda with the signatures of the functions that are called here.

    Raises GraphError where it is missing, or too old for graphs.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
        for name, arguments in _SIGNATURES.items():
            # Without the arguments' types ctypes would cut handles to 32 bits.
            getattr(library, name).argtypes = arguments
    except (OSError, AttributeError) as error:
        raise GraphError(f"this driver has no CUDA graphs: {error}") from error
    return library


def _call(name: str, *arguments: Any) -> None:
    library = driver_library()
    status = getattr(library, name)(*arguments)
    if status:
        error = ctypes.c_char_p()
        known = library.cuGetErrorName(status, ctypes.byref(error)) == 0 and error.value
        raise GraphError(f"{name} failed: {error.value.decode() if known and error.value else f'error {status}'}")


class StreamGraph:
    """Holds a recording of what `enqueue` gives to a stream, which does not run then; `launch` runs it.

    Args:
        stream: the handle of a stream that is not the default one, in the context that is current.
        enqueue: a function that gives work to that stream only, and waits for nothing.

    Raises GraphError where it cannot be recorded, and whatever `enqueue` raises; the stream can be used on after both.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        self._stream = stream
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", stream, THIS_THREAD)
        try:
            enqueue()
        except BaseException:
            # A recording that is left open would take in whatever the stream is given next.
            with suppress(GraphError):
                _call("cuStreamEndCapture", stream, ctypes.byref(graph))
            if graph:
                _call("cuGraphDestroy", graph)
            raise
        _call("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, 0)
        finally:
            _call("cuGraphDestroy", graph)

    def launch(self) -> None:
        _call("cuGraphLaunch", self._executable, self._stream)

    def destroy(self) -> None:
        """Free the graph, which must not be running. Does nothing the second time."""
        executable, self._executable = self._executable, ctypes.c_void_p()
        if executable:
            _call("cuGraphExecDestroy", executable)
