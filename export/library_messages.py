"""What a TensorRT library says, into Python's log, and the last of it into errors."""

import logging
from typing import Any

LOG = logging.getLogger("tensorrt")

LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.DEBUG,
}


def make_messages(library: Any) -> Any:
    """A logger for that library's Runtime, which must outlive it; `last` is the last error, or else warning, in a line.

    The class is made here because its base is part of the library.
    """

    class Messages(library.ILogger):  # type: ignore[misc]  # the two libraries have no types
        def __init__(self) -> None:
            library.ILogger.__init__(self)  # super() would not do: the library looks for this very call
            self.last = "the library did not say why"

        def log(self, severity: Any, message: str) -> None:
            level = LEVELS.get(severity.name, logging.DEBUG)
            line = " ".join(message.split())
            if level >= logging.WARNING:
                self.last = line
            LOG.log(level, "%s", line)

    return Messages()
