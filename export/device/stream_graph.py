"""Records what one stream is given as a CUDA graph, and launches it.

No line of this has run on a GPU yet.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from export.device.driver import Driver, DriverError, Stream


class StreamGraph:
    """Holds a recording of what `enqueue` gives to a stream, which does not run then; `launch` runs it.

    Args:
        driver: the driver, in whose current context the stream is.
        stream: a stream that is not the default one.
        enqueue: a function that gives work to that stream only, and waits for nothing.

    Raises DriverError where it cannot be recorded, and whatever `enqueue` raises; the stream can be used on after both.
    """

    def __init__(self, driver: Driver, stream: Stream, enqueue: Callable[[], None]) -> None:
        self._driver = driver
        self._stream = stream
        self._executable: Any = None
        driver.begin_recording(stream)
        try:
            enqueue()
        except BaseException:
            # A recording that is left open would take in whatever the stream is given next.
            with suppress(DriverError):
                driver.free_graph(driver.end_recording(stream))
            raise
        graph = driver.end_recording(stream)
        try:
            self._executable = driver.instantiate(graph)
        finally:
            driver.free_graph(graph)

    def launch(self) -> None:
        self._driver.launch(self._executable, self._stream)

    def destroy(self) -> None:
        """Free the graph, which must not be running. Does nothing the second time."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._driver.free_executable(executable)
