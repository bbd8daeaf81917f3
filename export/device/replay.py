"""Which calls of a worker are enqueued anew, and which by a recording of the same enqueue; needs nothing but Python."""

from dataclasses import dataclass
from enum import Enum

from export.engines.engine_card import Shape


class Way(Enum):
    SET_UP = "tell the execution context the shape and the addresses, then enqueue"
    RECORD = "record the enqueue as a graph, then launch it"
    REPLAY = "launch the graph"
    ENQUEUE = "enqueue, the context being set already"


@dataclass
class Replay:
    """What a worker's execution context is set to, and whether there is a graph of it.

    One graph, for the shape of the call before: TensorRT leaves undefined what a graph does once the context that it
    was recorded from is set to something else. A shape's first call is never recorded, as it may allocate and compile.
    """

    enabled: bool
    shape: Shape | None = None
    is_recorded: bool = False

    def way(self, shape: Shape) -> Way:
        """How a call with images of that shape goes."""
        if shape != self.shape:
            return Way.SET_UP
        if not self.enabled:
            return Way.ENQUEUE
        return Way.REPLAY if self.is_recorded else Way.RECORD

    def set_to(self, shape: Shape | None) -> None:
        """The context is set to `shape`, or to nothing that is known; a graph of what it was set to must be gone."""
        self.shape = shape
        self.is_recorded = False
