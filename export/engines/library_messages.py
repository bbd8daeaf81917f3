"""Passes what a TensorRT library says to Python's log, and keeps the last message for errors."""

import logging
from typing import Any

_LOG = logging.getLogger("tensorrt")
_LOG.addHandler(logging.NullHandler())  # errors that matter are in a UserError; the rest is for those who ask

_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.DEBUG,
}


def make_messages(library: Any) -> Any:
    """Make a logger for the library's Runtime or Builder; it must outlive them.

    Its `last` is the last error in one line, or else the last warning, since the last call of its `forget()`.

    The class is made here because its base is part of the library.
    """

    class Messages(library.ILogger):  # type: ignore[misc]  # the two libraries have no types
        def __init__(self) -> None:
            library.ILogger.__init__(self)  # super() would not do: the library looks for this very call
            self.forget()

        def forget(self) -> None:
            self.last = "the library did not say why"
            self._is_error = False

        def log(self, severity: Any, message: str) -> None:
            level = _LEVELS.get(severity.name, logging.DEBUG)
            line = " ".join(message.split())
            if level >= logging.ERROR or (level == logging.WARNING and not self._is_error):
                self.last, self._is_error = line, level >= logging.ERROR
            _LOG.log(level, "%s", line)

    return Messages()
