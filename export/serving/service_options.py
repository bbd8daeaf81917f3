"""Defines what the service allows its clients, and how requests are batched."""

from dataclasses import dataclass
from typing import Annotated

from cyclegan_fast.system.ranges import Range, check_fields

_MOST_PIXELS = 2**28
_MIB = 2**20

Seconds = Annotated[float, Range(0.1, 3600)]


@dataclass(frozen=True)
class ServingLimits:
    """Says what clients may send, how fast, and how long anything may take."""

    max_upload_mib: Annotated[int, Range(1, 1024)] = 20
    """largest body of a request, MiB; larger ones are answered with status 413"""
    max_pixels: Annotated[int, Range(64, _MOST_PIXELS)] = 2**24
    """most pixels of an image that is sent, by its header, before any is decoded"""
    max_translated_pixels: Annotated[int, Range(64, _MOST_PIXELS)] = 2**20
    """most pixels of an image as it is translated, behind a resize; a generator needs some 1.5 kB of memory for each"""
    max_requests: Annotated[int, Range(1, 65536)] = 64
    """translations in flight at once; further ones are answered with status 503 and Retry-After"""
    max_connections: Annotated[int, Range(1, 65536)] = 256
    """connections at once; further ones are answered with status 503 and closed"""
    rate: Annotated[float, Range(0, 10**6)] = 20
    """translations a second from one address of a client (of IPv6, one /64), 0 for any number; faster ones are answered
    with status 429 and Retry-After"""
    burst: Annotated[int, Range(1, 10**6)] = 40
    """translations that one address may ask for at once, before --rate slows it down"""
    head_s: Seconds = 10
    """seconds that a client may take to send a request's head, or to say anything; then the connection is closed"""
    upload_s: Seconds = 20
    """seconds that a client may take to send an image; then the status is 408"""
    request_s: Seconds = 60
    """seconds that a request may take as a whole; then the status is 504"""
    grace_s: Seconds = 30
    """seconds that requests in flight have to end, once SIGTERM or Ctrl-C asked the service to stop"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)

    @property
    def upload_bytes(self) -> int:
        """Return the largest body of a request in bytes."""
        return self.max_upload_mib * _MIB


@dataclass(frozen=True)
class BatchOptions:
    """Says how requests that wait for the same generator are translated together."""

    batch_size: Annotated[int, Range(1, 64)] = 8
    """images of one size that are translated at once, at most; never more than make half a megapixel, or than an engine
    takes"""
    batch_wait_ms: Annotated[float, Range(0, 10000)] = 2
    """milliseconds that an image waits for others while nothing is translated"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
