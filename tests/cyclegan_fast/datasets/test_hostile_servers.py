"""Downloads come to an end whatever a server does, in one line, and leave what is worth keeping."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cyclegan_fast.datasets import fetch, published, web
from tests.cyclegan_fast.conftest import contents
from tests.cyclegan_fast.datasets.file_server import Behave, Handler, Server, data_set, refused, run

pytestmark = pytest.mark.usefixtures("in_folder")


def trickled(handler: Handler, content: bytes, pause_s: float = 0.02) -> None:
    """Send a byte at a time until the client goes."""
    for byte in content:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.server.closing.wait(pause_s):
            return


def head(content: bytes, *lines: str, status: int = 200) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", *lines, "", ""]).encode("latin-1")


def test_a_server_that_sends_a_byte_at_a_time_is_given_up_and_what_it_sent_is_kept(
    server: Server,
    behaving: Callable[[Behave], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It knows ranges, and each attempt gains some bytes: all the same the attempts come to an end."""
    monkeypatch.setattr(fetch, "LEAST_BYTES_PER_S", 10**5)
    monkeypatch.setattr(fetch, "SPEED_WINDOW_S", 0.2)
    content = data_set()

    def slowly(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        place = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
        handler.wfile.write(head(content[start:], 'ETag: "one"', place, status=206 if start else 200))
        trickled(handler, content[start:])

    behaving(slowly)
    message = refused(server, capsys, "horse2zebra")
    assert "127.0.0.1 sends less than 100000 bytes a second" in message
    assert "the same command continues" in message
    starts = [int(wanted[6:-1]) for _, wanted in server.asked if wanted]
    assert len(server.asked) == 3
    assert 0 < starts[0] < starts[1]
    kept = (tmp_path / "data/.horse2zebra.zip.partial").read_bytes()
    assert len(kept) > starts[1]
    assert content.startswith(kept)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000, "has sent no whole answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000, "no further part of it, for 0.2 s"),
    ],
    ids=["head", "size of a chunk"],
)
def test_an_answer_whose_head_never_ends_is_given_up_after_a_time(
    server: Server,
    behaving: Callable[[Behave], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    reason: str,
) -> None:
    monkeypatch.setattr(web, "HEAD_S", 0.2)
    quick = len(sent) - 5000

    def dawdle(handler: Handler) -> None:
        handler.wfile.write(sent[:quick])
        trickled(handler, sent[quick:])

    behaving(dawdle)
    assert reason in refused(server, capsys, "horse2zebra")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    ],
    ids=["100 Continue", "trailers"],
)
def test_an_answer_whose_head_never_ends_is_given_up_after_a_megabyte(
    server: Server, behaving: Callable[[Behave], None], capsys: pytest.CaptureFixture[str], first: bytes, then: bytes
) -> None:
    def flood(handler: Handler) -> None:
        handler.wfile.write(first)
        while True:
            handler.wfile.write(then * 1000)

    behaving(flood)
    assert "sends headers without end, 1 MiB of them" in refused(server, capsys, "horse2zebra")


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:-1/x",
        "http://127.0.0.1:x/x",
        "https://",
        "http://" + "a" * 70 + ".invalid/x",
        "http://a\x01b/x",
        "//[",
    ],
)
def test_a_redirect_to_what_is_no_address_is_one_line_at_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    server.redirect = address
    assert "address" in refused(server, capsys, "horse2zebra")
    assert len(server.asked) == 1
    assert contents(tmp_path) == {}


def test_redirects_without_end_are_given_up_and_their_content_is_not_read(
    server: Server, behaving: Callable[[Behave], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sent = []

    def redirect(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /%d\r\n\r\n" % len(server.asked))
        sent.append(0)
        while sent[-1] < 1 << 26:
            handler.wfile.write(bytes(1 << 16))
            sent[-1] += 1 << 16

    behaving(redirect)
    message = refused(server, capsys, "horse2zebra")
    assert re.search(r"it redirects to /\d+ and to no file", message)
    assert 5 < len(server.asked) < 15
    assert max(sent) < 1 << 26


def test_hostile_marks_and_ranges_are_those_of_no_version(
    server: Server, behaving: Callable[[Behave], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = data_set()

    def send(handler: Handler) -> None:
        handler.wfile.write(head(content, 'ETag: "\x0b\xe9' + "x" * 1000 + '"', "Last-Modified: \x85"))
        handler.wfile.write(content[: 1000 if len(server.asked) == 1 else None])

    behaving(send)
    assert run(server, "horse2zebra") == 0
    assert [wanted for _, wanted in server.asked] == [None, None]
    digits = "9" * 5000

    def send_part(handler: Handler) -> None:
        if handler.headers.get("Range"):
            handler.wfile.write(head(content, f"Content-Range: bytes {digits}-{digits}/{digits}", status=206) + content)
        else:
            handler.wfile.write(head(content, 'ETag: "one"') + content[: 1000 if len(server.asked) == 1 else None])

    behaving(send_part)
    server.asked.clear()
    assert run(server, "horse2zebra", "--out", str(tmp_path / "other")) == 0
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000-", None]


def test_a_file_that_is_larger_than_any_such_is_refused_before_it_fills_the_disk(
    server: Server,
    behaving: Callable[[Behave], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def announce(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")

    behaving(announce)
    assert "has 1000000 MB and is refused: what the authors published" in refused(server, capsys, "horse2zebra")
    row = dataclasses.replace(published.DATA_SETS["horse2zebra"], size_bytes=10**5)
    monkeypatch.setitem(published.DATA_SETS, "horse2zebra", row)

    def send(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(bytes(1 << 16))

    behaving(send)
    assert "is refused and removed: what the authors published is far smaller" in refused(server, capsys, "horse2zebra")
    assert contents(tmp_path) == {}
