"""What a TensorRT library says, into Python's log, and the last of it into errors."""

import logging
from typing import Any

LOG = logging.getLogger("tensorrt")
LOG.addHandler(logging.NullHandler())  # an error that matters is part of a UserError; who wants the rest asks for it

LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.DEBUG,
}


def make_messages(library: Any) -> Any:
    """A logger for that library's Runtime or Builder, which must outlive it.

    `last` is the last error, or else warning, in a line, since the last call of `forget()`.

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
            level = LEVELS.get(severity.name, logging.DEBUG)
            line = " ".join(message.split())
            if level >= logging.ERROR or (level == logging.WARNING and not self._is_error):
                self.last, self._is_error = line, level >= logging.ERROR
            LOG.log(level, "%s", line)

    return Messages()
