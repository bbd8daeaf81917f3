"""Serves files to downloads of a test: a server on this machine that sends parts, cuts them, or changes its mind."""

import io
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.download import main

ZIP = "/datasets/horse2zebra.zip"
PTH = "/pretrained_models/horse2zebra.pth"
FILES = {f"{folder}/{index}.png": index for folder in ("trainA", "trainB", "testA", "testB") for index in range(2)}


@dataclass
class Server:
    """Holds what the handler sends, and what it was asked for."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    marks: dict[str, str] = field(
        default_factory=lambda: {"ETag": '"one"', "Last-Modified": "Mon, 03 Apr 2017 10:00:00 GMT"}
    )
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers end
    statuses: list[int] = field(default_factory=list)  # of the next answers
    redirect: str = ""
    knows_ranges: bool = True
    knows_if_range: bool = True
    part: tuple[int, int] | None = None  # sends these bytes whatever part is asked for
    announces_size: bool = True
    stalls: bool = False  # instead of ending an answer that is cut
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range


class Handler(BaseHTTPRequestHandler):
    server: "Listener"

    def do_GET(self) -> None:
        state = self.server.state
        wanted = self.headers.get("Range")
        state.asked.append((self.path, wanted))
        status = state.statuses.pop(0) if state.statuses else 200
        content = state.files.get(self.path)
        if state.redirect:
            self.answer(302, {"Location": state.redirect})
        elif content is None or status != 200:
            self.answer(404 if content is None else status, {})
        elif wanted and state.knows_ranges and self.is_current(state):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            start, end = state.part or (start, len(content))
            if start >= len(content):
                self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
            else:
                self.answer(206, {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}, content[start:end])
        else:
            self.answer(200, {}, content)

    def is_current(self, state: Server) -> bool:
        return not state.knows_if_range or self.headers.get("If-Range") in state.marks.values()

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        state = self.server.state
        self.send_response(status)
        for name, value in {**state.marks, **headers}.items():
            self.send_header(name, value)
        if state.announces_size:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = state.cuts.pop(0) if state.cuts and body else len(body)
        self.wfile.write(body[:cut])
        if cut < len(body) and state.stalls:
            self.server.closing.wait(20)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class Listener(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = Server(f"http://127.0.0.1:{self.server_address[1]}")
        self.closing = threading.Event()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(value).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "png")
    return buffer.getvalue()


IMAGES = {name: png(index) for name, index in FILES.items()}


def zipped(members: dict[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def data_set(extra: dict[str | zipfile.ZipInfo, bytes] | None = None, name: str = "horse2zebra") -> bytes:
    """Return an archive as the authors lay it out, with members beside."""
    return zipped({f"{name}/": b"", **{f"{name}/{path}": content for path, content in IMAGES.items()}, **(extra or {})})


def run(server: Server, *arguments: str) -> int:
    return main([*arguments, "--from", server.address])


def refused(server: Server, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a command ends on, after its notes."""
    capsys.readouterr()
    assert run(server, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["note"] * (len(lines) - 1) + ["error"]
    return lines[-1].removeprefix("error: ")


Behave = Callable[[Handler], None]
"""Answers one request."""
