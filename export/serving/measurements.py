"""Counts what the service does, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cyclegan_fast.version import __version__

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


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
