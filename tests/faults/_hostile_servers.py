"""Draws servers that do what no server should, for the campaign `downloads`, and starts them on this machine."""

import contextlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.faults import _hostile_archives as archives
from tests.faults._hostile_archives import Expected


class _Request(BaseHTTPRequestHandler):
    behave: "Behave"
    number = 0

    def do_GET(self) -> None:
        type(self).number += 1
        with contextlib.suppress(OSError):  # the command has gone
            type(self).behave(self)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    @property
    def start(self) -> int:
        """Return the first byte that is asked for."""
        return int((self.headers.get("Range") or "bytes=0-")[6:-1])

    def head(self, status: int, *lines: str) -> None:
        self.wfile.write("\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode("latin-1"))

    def send(self, content: bytes, *lines: str, status: int = 200, announced: object = None) -> None:
        self.head(status, f"Content-Length: {len(content) if announced is None else announced}", *lines)
        self.wfile.write(content)

    def send_from_start(self, content: bytes, most: int, tag: str = '"a"') -> None:
        """Send at most so many bytes from where the client is; the connection then ends."""
        place = f"Content-Range: bytes {self.start}-{len(content) - 1}/{len(content)}"
        self.head(206 if self.start else 200, f"Content-Length: {len(content) - self.start}", f"ETag: {tag}", place)
        self.wfile.write(content[self.start : self.start + most])

    def trickle(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def flood(self, content: bytes) -> None:
        while True:
            self.wfile.write(content)

    def fall_silent(self) -> None:
        self.rfile.read(1)  # comes back when the client goes


Behave = Callable[[_Request], object]


@dataclass(frozen=True)
class Fault:
    """Holds what a server does at each request, and what is to come of a download from it."""

    what: str
    behave: Behave
    expected: Expected


def _then(*steps: Behave) -> Behave:
    def behave(request: _Request) -> None:
        for step in steps:
            step(request)

    return behave


GOOD = archives.GOOD.content
BAD_PLACES = (
    "http://[::1",
    "http://127.0.0.1:99999/x",
    "http://127.0.0.1:-1/x",
    "http://127.0.0.1:x/",
    "https://",
    "//[",
    "file:///etc/passwd",
    "ftp://127.0.0.1/x",
    "data:,x",
    "javascript:x",
    f"http://{'a' * 70}.invalid/",
    "http://a\x01b/",
    "http://127.0.0.1/\xff \x02",
    "http://user:pass@:80/",
    "http://%00/",
    "",
    " ",
    "http://" + "x" * 60000,
)


def _cut_off(source: random.Random) -> Fault:
    most, low = source.randint(len(GOOD) // 8, len(GOOD)), source.randint(1, len(GOOD) - 1)
    other = GOOD[:40] + source.randbytes(len(GOOD) - 40)

    def lie(request: _Request) -> None:
        if request.start:
            request.send(
                bytes(len(GOOD) - request.start),
                'ETag: "a"',
                f"Content-Range: bytes {request.start}-{len(GOOD) - 1}/{len(GOOD)}",
                status=206,
            )
        else:
            request.send_from_start(GOOD, low)

    def another_part(request: _Request) -> None:
        place = f"Content-Range: bytes 9-{len(GOOD) - 1}/{len(GOOD)}"
        if request.start:
            request.send(GOOD[9:], 'ETag: "a"', place, status=206)
        else:
            request.send_from_start(GOOD, low)

    return source.choice(
        [
            Fault(
                f"ends after {most} bytes, and knows ranges",
                lambda request: request.send_from_start(GOOD, most),
                "done",
            ),
            Fault(
                f"ends after {low} bytes, and knows none",
                lambda request: request.send(GOOD[:low], announced=len(GOOD)),
                "refused",
            ),
            Fault(
                f"ends after {low} bytes, and has another file each time",
                lambda request: request.send_from_start(GOOD + bytes(request.number), low, f'"{request.number}"'),
                "either",
            ),
            Fault(
                f"ends after {low} bytes, with one tag for two files",
                lambda request: request.send_from_start(GOOD if request.number % 2 else other, low),
                "either",
            ),
            Fault(f"ends after {low} bytes, then lies about the rest", lie, "refused"),
            Fault(f"ends after {low} bytes, then sends another part", another_part, "refused"),
            Fault(
                f"falls silent after {low} bytes",
                _then(
                    lambda request: request.send(GOOD[:low], announced=len(GOOD)), lambda request: request.fall_silent()
                ),
                "refused",
            ),
        ]
    )


def _endless(source: random.Random) -> Fault:
    quick = source.randint(0, 400)
    chunked = "Transfer-Encoding: chunked"

    def slow(request: _Request) -> None:
        request.send(GOOD[:quick], 'ETag: "a"', announced=len(GOOD))
        request.trickle(GOOD[quick:])

    def slow_resumed(request: _Request) -> None:
        request.send_from_start(GOOD, quick)
        request.trickle(GOOD[request.start + quick :])

    return source.choice(
        [
            Fault(f"sends {quick} bytes, then one at a time", slow, "refused"),
            Fault(f"sends {quick} bytes, then one at a time, and knows ranges", slow_resumed, "refused"),
            Fault(
                "sends its head a byte at a time",
                lambda request: request.trickle(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9999),
                "refused",
            ),
            Fault(
                "sends a chunk's size a byte at a time",
                _then(lambda request: request.head(200, chunked), lambda request: request.trickle(b"1;" + b"x" * 9999)),
                "refused",
            ),
            Fault(
                "sends 100 Continue without end",
                lambda request: request.flood(b"HTTP/1.1 100 X\r\n\r\n" * 99),
                "refused",
            ),
            Fault(
                "sends trailers without end",
                _then(
                    lambda request: request.head(200, chunked),
                    lambda request: request.flood(b"0\r\n" + b"X: y\r\n" * 99),
                ),
                "refused",
            ),
            Fault(
                "sends headers without end",
                lambda request: request.flood(b"HTTP/1.1 200 X\r\n" + b"X: y\r\n" * 99),
                "refused",
            ),
            Fault(
                "sends one header without end",
                lambda request: request.flood(b"HTTP/1.1 200 X\r\nX: " + b"x" * 9999),
                "refused",
            ),
            Fault("never answers", lambda request: request.fall_silent(), "refused"),
            Fault(
                "redirects without end", lambda request: request.head(302, f"Location: /{request.number}"), "refused"
            ),
            Fault("redirects to itself", lambda request: request.head(301, f"Location: {request.path}"), "refused"),
            Fault(
                "redirects, with content without end",
                _then(lambda request: request.head(302, "Location: /x"), lambda request: request.flood(bytes(9999))),
                "refused",
            ),
        ]
    )


def _odd_length(source: random.Random) -> Fault:
    less, more = source.randint(0, len(GOOD) - 1), len(GOOD) + source.randint(1, 10**6)
    lengths: list[tuple[object, Expected]] = [
        (less, "refused"),
        (more, "refused"),
        (10**18, "refused"),
        (10**30, "refused"),
        ("9" * 5000, "either"),
        (-less, "either"),
        ("many", "either"),
        ("", "either"),
        (f"{len(GOOD)}, 5", "either"),
        ("1e9", "either"),
    ]
    length, expected = source.choice(lengths)
    what = f"announces {str(length)[:30]} of {len(GOOD)} bytes"
    return Fault(what, lambda request: request.send(GOOD, announced=length), expected)


def _odd_answer(source: random.Random) -> Fault:
    place, status = source.choice(BAD_PLACES), source.choice([201, 204, 206, 301, 304, 401, 403, 404, 410, 418, 599])
    noise = source.randbytes(source.randint(1, 3000))
    size = source.choice(["zz", "-5", "f" * 30, "", " 5", "0x5", "5;" + "x" * 70000])
    mark = source.choice(['"\x0b"', '"' + "x" * 5000 + '"', "\xe9", 'W/"a"', '"a\tb"'])
    passing = source.choice([408, 429, 500, 502, 503, 504])
    encoding = source.choice(["gzip", "br", "identity, gzip", "\x01"])

    def passes(request: _Request) -> None:
        request.send(GOOD) if request.number > 1 else request.send(b"", status=passing)

    def marked(request: _Request) -> None:
        request.send(GOOD[: 1000 if request.number == 1 else None], f"ETag: {mark}", announced=len(GOOD))

    return source.choice(
        [
            Fault(f"redirects to {place[:60]!r}", lambda request: request.head(302, f"Location: {place}"), "refused"),
            Fault(f"answers {status}", lambda request: request.send(GOOD, status=status), "refused"),
            Fault(f"answers {passing} for ever", lambda request: request.send(b"", status=passing), "refused"),
            Fault(f"answers {passing} once", passes, "done"),
            Fault("answers in no HTTP", lambda request: request.wfile.write(noise), "refused"),
            Fault(
                f"sends a chunk of size {size[:30]!r}",
                _then(
                    lambda request: request.head(200, "Transfer-Encoding: chunked"),
                    lambda request: request.wfile.write(f"{size}\r\nabc\r\n".encode()),
                ),
                "refused",
            ),
            Fault(
                f"sends it as {encoding!r}",
                lambda request: request.send(GOOD, f"Content-Encoding: {encoding}"),
                "refused",
            ),
            Fault(f"calls the version {mark[:30]!r}", marked, "either"),
            Fault(
                "sends as much as it can",
                _then(lambda request: request.head(200), lambda request: request.flood(bytes(1 << 20))),
                "refused",
            ),
        ]
    )


def drawn(source: random.Random) -> Fault:
    """Return a server that misbehaves, or one that sends a hostile archive."""
    if source.random() < 0.4:
        archive = archives.drawn(source)
        return Fault(f"sends {archive.what}", lambda request: request.send(archive.content), archive.expected)
    return source.choice([_cut_off, _cut_off, _endless, _endless, _odd_length, _odd_answer, _odd_answer])(source)


def begun(fault: Fault) -> tuple[int, str]:
    """Start a server in a process of its own; return the process and the server's address."""
    handler = type("Handler", (_Request,), {"behave": staticmethod(fault.behave), "number": 0})
    server = HTTPServer(("127.0.0.1", 0), handler)
    process = os.fork()
    if not process:
        try:
            server.serve_forever()
        finally:
            os._exit(1)
    server.server_close()
    return process, f"http://127.0.0.1:{server.server_address[1]}"
