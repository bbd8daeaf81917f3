"""Counts what the service does, for Prometheus, and writes a line of JSON for each request."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cyclegan_fast.version import __version__

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONGEST_TEXT = 200  # characters of what a client chose, such as a path


class Measurements:
    """Holds the figures of one service, under names that begin with cyclegan_fast."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(
        self, in_flight: Callable[[], float], waiting: Callable[[], float], lost_lines: Callable[[], float]
    ) -> None:
        self._registry = registry = CollectorRegistry()
        name = "cyclegan_fast"
        self.requests = Counter(
            f"{name}_requests", "Answers, by address and status", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            f"{name}_request_seconds", "Seconds of a translation's request", buckets=_SECONDS, registry=registry
        )
        self.queue_seconds = Histogram(
            f"{name}_queue_seconds", "Seconds that an image waited for its batch", buckets=_SECONDS, registry=registry
        )
        self.compute_seconds = Histogram(
            f"{name}_compute_seconds", "Seconds of a batch", ["model"], buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            f"{name}_batch_images", "Images of a batch", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.uploaded = Counter(f"{name}_uploaded_bytes", "Bytes of images that were taken", registry=registry)
        self.sent = Counter(f"{name}_sent_bytes", "Bytes of translations", registry=registry)
        Gauge(f"{name}_in_flight", "Translations in flight", registry=registry).set_function(in_flight)
        Gauge(f"{name}_waiting_images", "Images that wait for a batch", registry=registry).set_function(waiting)
        Gauge(f"{name}_lost_log_lines", "Lines that could not be logged", registry=registry).set_function(lost_lines)
        Gauge(f"{name}_info", "The version", ["version"], registry=registry).labels(__version__).set(1)

    def as_text(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        return generate_latest(self._registry)


class JsonLines:
    """Writes events as lines of JSON, each whole, from any thread; nothing of an image is in them.

    `lost` counts lines that could not be written, as on a full disk: no request fails for that.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._lock = threading.Lock()
        self.lost = 0

    def write(self, event: str, **fields: Any) -> None:
        """Write an event with the time; text that a client may have chosen is cut off."""
        shown = {name: _cut(value) for name, value in fields.items() if value is not None}
        time_ms = round(time.time() * 1000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms / 1000)) + f".{time_ms % 1000:03d}Z"
        line = json.dumps({"time": moment, "event": event, **shown})
        with self._lock:
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except OSError:
                self.lost += 1


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


def _cut(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}..."
