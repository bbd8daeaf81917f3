"""Runs a service in a thread of the test, on any free port of this machine, and speaks HTTP with it."""

import asyncio
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import numpy as np
from PIL import Image

from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.system.sockets import AllowedHosts, bound_socket
from cyclegan_fast.translation.translator import FunctionTranslator
from export.serving.application import make_application
from export.serving.json_lines import JsonLines
from export.serving.models import ServedModel
from export.serving.server import serve_until
from export.serving.service_options import BatchOptions, ServingLimits

WAIT_S = 30.0


def negative(samples: SampleArray) -> SampleArray:
    return 255 - samples


def upside_down(samples: SampleArray) -> SampleArray:
    return samples[:, ::-1]


def model_of(
    function: Any = negative,
    name: str = "negative",
    direction: Any = "a2b",
    kinds: tuple[PixelType, PixelType] = (RGB, RGB),
    **rest: Any,
) -> ServedModel:
    return ServedModel(name, direction, FunctionTranslator(function, *kinds), "NumPy", **rest)


def picture(height: int = 20, width: int = 28, seed: int = 0) -> SampleArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def as_file(pixels: Any, name: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format=name, **options)
    return content.getvalue()


def pixels_in(content: bytes) -> SampleArray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """Return the one line of a refusal."""
        assert self.headers["content-type"] == "application/json"
        said = json.loads(self.body)
        assert list(said) == ["error"]
        assert self.body.endswith(b"\n")
        assert b"\n" not in self.body[:-1]
        error: str = said["error"]
        assert error
        return error


class Log:
    """Reads what a service logs, from a pipe, as whoever started it does."""

    def __init__(self) -> None:
        reader, self.descriptor = os.pipe()
        self._content = bytearray()
        self._reading = threading.Thread(target=self._read, args=[reader])
        self._reading.start()

    def _read(self, reader: int) -> None:
        while content := os.read(reader, 2**16):
            self._content += content
        os.close(reader)

    def close(self) -> None:
        os.close(self.descriptor)
        self._reading.join(WAIT_S)

    def getvalue(self) -> str:
        return bytes(self._content).decode()


@dataclass
class Service:
    port: int
    log: Log
    gate: Any
    stop: threading.Event
    thread: threading.Thread
    status: list[int] = field(default_factory=list)

    def connection(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Reply:
        connection = self.connection()
        try:
            connection.request(method, target, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def translate(self, body: Any, query: str = "", **headers: str) -> Reply:
        return self.ask("POST", f"/translate{query}", body, **headers)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines(True) if line.endswith("\n")]

    def figure(self, name: str) -> float:
        """Return one of the figures of /metrics."""
        text = self.ask("GET", "/metrics").body.decode()
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


@contextmanager
def running(
    models: Sequence[ServedModel] | None = None,
    batches: BatchOptions | None = None,
    expected_status: int = 0,
    lines: JsonLines | None = None,
    allowed_hosts: Sequence[str] = (),
    **limits: Any,
) -> Iterator[Service]:
    """Run a service, which at the end must stop by itself, with the expected status.

    Args:
        lines: what it logs to in place of `Service.log`.
    """
    allowed = ServingLimits(**{"rate": 0, "grace_s": 10, **limits})
    log = Log()
    with closing(log), lines or JsonLines(log.descriptor) as lines, bound_socket("127.0.0.1", 0) as listening:
        stop, status = threading.Event(), list[int]()
        hosts = AllowedHosts.of(listening, allowed_hosts)
        gate = make_application(models or [model_of()], allowed, batches or BatchOptions(), lines, hosts)
        thread = threading.Thread(
            target=lambda: status.append(asyncio.run(serve_until(stop.is_set, gate, listening, allowed, lines)))
        )
        thread.start()
        service = Service(listening.getsockname()[1], log, gate, stop, thread, status)
        try:
            wait_until(lambda: is_listened_to(service.port))
            yield service
        finally:
            stop.set()
            thread.join(WAIT_S)
            assert not thread.is_alive()
    assert status == [expected_status], log.getvalue()


def is_listened_to(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def wait_until(is_true: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
