"""Writes what the service logs as lines of JSON, by a thread of its own: nobody waits for whoever reads them."""

import json
import logging
import os
import select
import threading
import time
from collections import deque
from typing import Any, Self

STANDARD_OUTPUT = 1
MOST_WAITING = 1024
"""lines that wait to be written, at most, of some 300 bytes; further ones are lost"""
LAST_LINES_S = 1.0
"""seconds that lines which still wait have at the end, where their reader is slow or does not read"""
_LONGEST_TEXT = 200  # characters of what a client chose, such as a path


class JsonLines:
    """Writes events as lines of JSON, each whole, from any thread; nothing of an image is in them.

    `write` never blocks: where whatever reads the lines falls behind by `most_waiting`, further ones are lost. `lost`
    counts them, and those that could not be written, as on a full disk: no request fails for that.

    As a context manager it ends when all are written, after `LAST_LINES_S` seconds at the latest. A thread that is
    still at a pipe that nobody reads holds none of Python's streams, and ends with the process.

    Args:
        descriptor: of the file that takes the lines; None where there is none, and all of them are lost.
    """

    def __init__(self, descriptor: int | None = STANDARD_OUTPUT, most_waiting: int = MOST_WAITING) -> None:
        self.lost = 0
        self._descriptor = descriptor
        self._most_waiting = 0 if descriptor is None else most_waiting
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()  # never held while a line is written
        self._is_closed = self._is_torn = False
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(LAST_LINES_S)
        with self._changed:
            self.lost += len(self._waiting)
            self._waiting.clear()

    def write(self, event: str, **fields: Any) -> None:
        """Let an event be written with the time of now; text that a client may have chosen is cut off."""
        shown = {name: _cut(value) for name, value in fields.items() if value is not None}
        time_ms = round(time.time() * 1000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms / 1000)) + f".{time_ms % 1000:03d}Z"
        line = json.dumps({"time": moment, "event": event, **shown})
        with self._changed:
            if len(self._waiting) >= self._most_waiting or self._is_closed:
                self.lost += 1
                return
            self._waiting.append(f"{line}\n".encode())
            self._changed.notify()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if not self._waiting:
                    return
                line = self._waiting.popleft()
            if not self._is_written(line):
                with self._changed:
                    self.lost += 1

    def _is_written(self, line: bytes) -> bool:
        """Write a line, behind the end of one that a full disk has torn off; tell whether the system took it."""
        assert self._descriptor is not None
        whole = rest = memoryview(b"\n" + line if self._is_torn else line)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # whoever started the service made the pipe so
                    _wait_for_room(self._descriptor)
        except OSError:
            self._is_torn |= len(rest) < len(whole)
            return False
        self._is_torn = False
        return True


class ServerLogHandler(logging.Handler):
    """Writes what uvicorn logs as lines of JSON."""

    def __init__(self, lines: JsonLines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record in one line, with the type of its exception."""
        error = record.exc_info[1] if record.exc_info else None
        said = repr(error) if error is not None else None
        self._lines.write("server", level=record.levelname.lower(), message=record.getMessage().strip(), error=said)


def _wait_for_room(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def _cut(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}..."
