"""Decides which calls of a worker enqueue their work anew, and which launch a recorded CUDA graph of it.

It needs nothing but Python; `stream_graph` records and `worker` does what is decided here.
"""

from dataclasses import dataclass
from enum import Enum

from export.engines.engine_card import ImageShape


class Way(Enum):
    """Names what a worker does for one call."""

    SET_UP = "tell the execution context the shape and the addresses, then enqueue"
    RECORD = "record the enqueue as a graph, then launch it"
    REPLAY = "launch the graph"
    ENQUEUE = "enqueue, the context being set already"


@dataclass
class Replay:
    """Knows the shape that a worker's execution context is set to, and whether there is a graph for it.

    There is one graph at most, for the shape of the call before: TensorRT leaves undefined what a graph does once the
    context that it was recorded from is set to something else. A shape's first call is never recorded, because it may
    allocate and compile.
    """

    enabled: bool
    shape: ImageShape | None = None
    is_recorded: bool = False

    def way(self, shape: ImageShape) -> Way:
        """Return what to do for a call with images of `shape`."""
        if shape != self.shape:
            return Way.SET_UP
        if not self.enabled:
            return Way.ENQUEUE
        return Way.REPLAY if self.is_recorded else Way.RECORD

    def set_to(self, shape: ImageShape | None) -> None:
        """Note that the context is set to `shape`, or that it is unknown where None.

        A graph that was recorded before must have been destroyed.
        """
        self.shape = shape
        self.is_recorded = False
