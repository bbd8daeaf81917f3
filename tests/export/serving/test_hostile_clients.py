"""Clients that send too much, too slowly or nonsense are refused in one line, and the service lives on."""

import io
import json
import os
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image

from export.serving import rate_limit, uploads
from export.serving.rate_limit import RateLimiter
from tests.export.serving.service import Service, as_file, model_of, negative, picture, pixels_in, running, wait_until

MIB = 2**20


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(max_upload_mib=1, max_pixels=2**20, upload_s=1.0, head_s=1.0) as found:
        yield found


@pytest.fixture(autouse=True)
def _lives_on(service: Service) -> Iterator[None]:
    """Looks behind each test whether the next client is served."""
    yield
    reply = service.translate(as_file(picture()))
    assert np.array_equal(pixels_in(reply.body), 255 - picture())


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(width: int, height: int, *chunks: bytes, bits: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


# --- what is sent ----------------------------------------------------------------------------------------------------


def animated(name: str) -> bytes:
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    content = io.BytesIO()
    frames[0].save(content, name, save_all=True, append_images=frames[1:])
    return content.getvalue()


def many_zeros(mebibytes: int) -> bytes:
    """Return that many zeros as zlib compresses them, without a second of work: one block of them, again and again."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = encoder.compress(bytes(MIB)) + encoder.flush(zlib.Z_FULL_FLUSH)
    checksum = (mebibytes * MIB % 65521 << 16) + 1  # Adler-32 (RFC 1950)
    return b"\x78\xda" + block * mebibytes + b"\x03\0" + checksum.to_bytes(4, "big")


def hostile_images() -> dict[str, tuple[bytes, int, str]]:
    photo = picture(64, 64)
    zeros = zlib.compress(bytes(20000 * (3 * 20000 // 100 + 1)), 9)[: MIB // 2]
    text = chunk(b"zTXt", b"x\0\0" + many_zeros(200))
    icc = chunk(b"iCCP", b"x\0\0" + many_zeros(200))
    tiff = as_file(photo, "TIFF")
    return {
        "nothing": (b"", 400, "the body is empty"),
        "a byte": (b"\x89", 415, "it is no image of a format that is taken"),
        "text": (b"GET / HTTP/1.1", 415, "it is no image of a format that is taken: send PNG, JPEG, WebP or TIFF"),
        "a page": (
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            415,
            "it is no",
        ),
        "a GIF": (as_file(photo, "GIF"), 415, "it is no image of a format that is taken"),
        "an animated GIF": (animated("GIF"), 415, "it is no image of a format that is taken"),
        "an animated PNG": (animated("PNG"), 415, "it has 3 frames: send one image at a time"),
        "an animated WebP": (animated("WEBP"), 415, "it has 3 frames"),
        "a TIFF of pages": (animated("TIFF"), 415, "it has 3 frames"),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "it is no image"),
        "another RIFF": (b"RIFF\x10\0\0\0WAVEfmt " + bytes(64), 415, "it is no image"),
        "DICOM behind a PNG's beginning": (
            b"\x89PNG\r\n\x1a\n" + bytes(120) + b"DICM" + bytes(64),
            415,
            "it is no image",
        ),
        "half a PNG": (as_file(photo)[:-5000], 415, "the image cannot be used: "),
        "half a JPEG": (as_file(photo, "JPEG")[:-500], 415, "the image cannot be used: image file is truncated"),
        "half a WebP": (as_file(photo, "WEBP")[:-500], 415, "the image cannot be used: "),
        "half a TIFF": (tiff[:-5000], 415, "the image cannot be used: "),
        "a PNG's first bytes": (as_file(photo)[:20], 415, "the image cannot be used: "),
        "a TIFF's first bytes": (b"II*\0\xff\xff\xff\xff", 415, "the image cannot be used: "),
        "a PNG of no width": (png_of(0, 64), 415, "the image cannot be used: "),
        "sides of 2^31 - 1": (png_of(2**31 - 1, 2**31 - 1), 415, "the image cannot be used: "),
        "a bomb": (png_of(20000, 20000, chunk(b"IDAT", zeros)), 415, "the image cannot be used: "),
        "a small bomb": (png_of(5000, 5000, chunk(b"IDAT", zeros)), 413, "it has 5000x5000 pixels, more than the"),
        "a bomb of text": (png_of(8, 8, text), 415, "the image cannot be used: "),
        "a bomb of colours": (png_of(8, 8, icc, chunk(b"IDAT", zlib.compress(bytes(8 * 25)))), 0, ""),
        "a wrong sum": (as_file(photo).replace(b"IDAT", b"IDAX", 1), 415, "the image cannot be used: "),
    }


HOSTILE = hostile_images()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_refused_in_one_line(service: Service, name: str) -> None:
    content, status, said = HOSTILE[name]
    before = psutil.Process().memory_info().rss
    reply = service.translate(content)
    if status:
        assert (reply.status, reply.error[: len(said)]) == (status, said)
        assert "/proc" not in reply.error
        assert "/tmp" not in reply.error
        assert len(reply.error) < 400
    else:
        assert reply.status in (200, 415)
    assert psutil.Process().memory_info().rss - before < 200 * MIB


@pytest.mark.parametrize("seed", range(4))
def test_damaged_images_are_refused_or_translated(service: Service, seed: int) -> None:
    random = np.random.default_rng(seed)
    for name in ("PNG", "JPEG", "WEBP", "TIFF"):
        content = bytearray(as_file(picture(32, 32, seed), name))
        for place in random.integers(0, len(content), 6):
            content[place] = random.integers(256)
        reply = service.translate(bytes(content))
        assert reply.status in (200, 400, 413, 415, 422), reply.body
        if reply.status != 200:
            assert reply.error


def test_a_photograph_with_a_preview_behind_it_is_translated(service: Service) -> None:
    """Sends what cameras write as JPEG of several pictures (CIPA DC-007): the first one counts, as to the commands."""
    photo, content = Image.fromarray(picture(64, 64)), io.BytesIO()
    photo.save(content, "MPO", save_all=True, append_images=[photo.resize((16, 16))], quality=95)
    reply = service.translate(content.getvalue())
    assert np.array_equal(pixels_in(reply.body), 255 - pixels_in(content.getvalue()))


def test_a_file_that_an_image_names_is_not_opened(service: Service, tmp_path: Path) -> None:
    """Names a pipe in the metadata of OME-TIFF, on which whoever opens it would wait without end."""
    os.mkfifo(tmp_path / "pipe")
    ome = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a"><Image ID="Image:0"><Pixels '
        'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="16" SizeY="16" SizeZ="2" SizeC="1" SizeT="1">'
        f'<TiffData PlaneCount="1"><UUID FileName="{tmp_path / "pipe"}">urn:uuid:b</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    content = io.BytesIO()
    tifffile.imwrite(content, np.zeros((2, 16, 16), np.uint8), description=ome, metadata=None)
    reply = service.translate(content.getvalue())
    assert (reply.status, reply.error) == (415, "it has 2 frames: send one image at a time")


def test_a_hundred_megabytes_are_refused_before_they_are_read(service: Service) -> None:
    started = time.monotonic()
    connection = service.connection()
    connection.putrequest("POST", "/translate")
    connection.putheader("Content-Length", str(100 * MIB))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (
        413,
        {"error": "the body has more than 1 MiB, the largest that is taken"},
    )
    assert answer.getheader("connection") == "close"
    connection.close()
    assert time.monotonic() - started < 10


def test_a_body_without_a_length_is_refused_once_it_is_too_large(service: Service) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(MIB // 10)

    connection = service.connection()
    connection.request("POST", "/translate", pieces(), encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    connection.close()


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("multipart/form-data", b"", "the form has no boundary"),
        ("multipart/form-data; boundary=", b"x", "the form has no boundary"),
        ("multipart/form-data; boundary=" + "x" * 5000, b"x", "the form cannot be read: "),
        ("multipart/mixed; boundary=edge", b"--edge--", "the form has no boundary, or is no multipart/form-data"),
        ("multipart/form-data; boundary=edge", b"nonsense", "the form cannot be read: "),
        ("multipart/form-data; boundary=edge", b"--edge\r\n", "the form is cut off"),
        ("multipart/form-data; boundary=edge", b"--edge\r\n\r\nx\r\n--edge--\r\n", "the form has 0 fields `image`"),
        (
            "multipart/form-data; boundary=edge",
            b'--edge\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n' * 2 + b"--edge--\r\n",
            "the form has 2 fields `image`: send one",
        ),
        (
            "multipart/form-data; boundary=edge",
            b"--edge\r\nA: b\r\n\r\nx\r\n" * 100 + b"--edge--\r\n",
            "the form has more than 16 parts",
        ),
        (
            "multipart/form-data; boundary=edge",
            b"--edge\r\n" + b"A: b\r\n" * 10000 + b"\r\nx\r\n--edge--\r\n",
            "the form cannot be read: Maximum header count exceeded",
        ),
        (
            "multipart/form-data; boundary=edge",
            b"--edge\r\nContent-Disposition: form-data; name=" + b"x" * 100000 + b"\r\n\r\nx\r\n--edge--\r\n",
            "the form cannot be read: Maximum header size exceeded",
        ),
    ],
)
def test_a_wrong_form_is_refused(service: Service, kind: str, body: bytes, said: str) -> None:
    reply = service.translate(body, Content_Type=kind)
    assert (reply.status, reply.error[: len(said)]) == (400, said)


# --- how it is sent --------------------------------------------------------------------------------------------------


def answer_of(client: socket.socket) -> bytes:
    """Return the bytes of one answer that has a length, which may come in parts."""
    said = b""
    while not (length := re.search(rb"content-length: (\d+)\r\n(?:.*?\r\n)?\r\n", said, re.DOTALL)) or len(said) < (
        length.end() + int(length[1])
    ):
        part = client.recv(4096)
        assert part, said
        said += part
    return said


def test_a_slow_body_is_given_up(service: Service) -> None:
    with service.socket() as client:
        client.sendall(b"POST /translate HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5000\r\n\r\n")
        stop = threading.Event()

        def drip() -> None:
            try:
                while not stop.wait(0.1):
                    client.sendall(b"x")
            except OSError:
                pass

        dripping = threading.Thread(target=drip)
        dripping.start()
        said = answer_of(client)
        stop.set()
        dripping.join()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"the image did not arrive within 1 seconds" in said


@pytest.mark.parametrize(
    "begun", [b"", b"POST /translate HTTP/1.1\r\nHost: [::1]\r\nA: ", b"GET /models HTTP/1.1\r\n\r"]
)
def test_a_slow_head_is_given_up(service: Service, begun: bytes) -> None:
    started = time.monotonic()
    with service.socket() as client:
        client.sendall(begun)
        try:
            said = client.recv(4096)
        except ConnectionResetError:
            said = b""
    assert said == b""
    assert 0.5 < time.monotonic() - started < 8


def test_a_slow_second_head_is_given_up(service: Service) -> None:
    with service.socket() as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: [::1]\r\n\r\n")
        assert answer_of(client).endswith(b'{"status":"live"}')
        client.sendall(b"GET /health/live")
        started = time.monotonic()
        with suppress(ConnectionResetError):
            assert client.recv(4096) == b""
        assert time.monotonic() - started < 4, "the keep-alive's 5 seconds do not stand in for it"


@pytest.mark.parametrize(
    "request_line",
    [
        b"nonsense\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nHost: [::1]\r\nContent-Length: -5\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nHost: [::1]\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /translate HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]\r\nA: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
    ids=["nonsense", "negative length", "long length", "two lengths", "wrong chunk", "long header"],
)
def test_a_broken_request_is_refused(service: Service, request_line: bytes) -> None:
    with service.socket() as client:
        try:
            client.sendall(request_line)
            said = client.recv(4096)
        except (ConnectionResetError, BrokenPipeError):
            said = b""
    assert not said or said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))


def test_a_client_that_goes_away_costs_no_translation() -> None:
    seen: list[int] = []
    begun, may_end = threading.Event(), threading.Event()

    def watched(samples: Any) -> Any:
        seen.append(samples.shape[1])
        if samples.shape[1] == 20:
            begun.set()
            assert may_end.wait(20)
        return negative(samples)

    with running([model_of(watched)]) as service, ThreadPoolExecutor(1) as client:
        first = client.submit(service.translate, as_file(picture()))
        assert begun.wait(20)
        body = as_file(picture(64, 64))
        with service.socket() as gone:
            gone.sendall(b"POST /translate HTTP/1.1\r\nHost: [::1]\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: service.figure("cyclegan_fast_waiting_images") == 1)
        wait_until(lambda: service.gate.in_flight == 1)
        may_end.set()
        assert first.result(20).status == 200
        assert service.translate(as_file(picture(16, 16))).status == 200
    assert 64 not in seen
    assert [event["status"] for event in service.events if event["event"] == "request"].count(499) == 1


# --- how much of it --------------------------------------------------------------------------------------------------


def test_more_translations_than_allowed_are_sent_away() -> None:
    may_end = threading.Event()

    def slow(samples: Any) -> Any:
        assert samples.shape[1] != 20 or may_end.wait(20)
        return negative(samples)

    with running([model_of(slow)], max_requests=3) as service, ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(service.translate, as_file(picture())) for _ in range(3)]
        wait_until(lambda: service.gate.in_flight == 3)
        refused = service.translate(as_file(picture()))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.error == "3 translations are in flight: try again"
        assert service.ask("GET", "/health/ready").status == 200
        may_end.set()
        assert [each.result(20).status for each in waiting] == [200] * 3
        assert service.translate(as_file(picture())).status == 200


def test_a_request_that_takes_too_long_is_given_up() -> None:
    may_end = threading.Event()

    def slow(samples: Any) -> Any:
        assert samples.shape[1] != 20 or may_end.wait(20)
        return negative(samples)

    with running([model_of(slow)], request_s=0.3) as service:
        reply = service.translate(as_file(picture()))
        assert (reply.status, reply.error) == (504, "the request took longer than 0.3 seconds")
        may_end.set()
        assert service.translate(as_file(picture(16, 16))).status == 200


def test_an_address_that_asks_too_often_waits() -> None:
    with running(rate=0.001, burst=3) as service:
        replies = [service.translate(as_file(picture())) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert 900 < int(replies[3].headers["retry-after"]) <= 1000
        assert service.translate(as_file(picture()), X_Forwarded_For="1.2.3.4").status == 429, "a header is no address"
        assert service.ask("GET", "/health/ready").status == 200


def test_tokens_come_back_and_addresses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_ADDRESSES", 300)
    now = [0.0]
    limiter = RateLimiter(2.0, 3, clock=lambda: now[0])
    assert [limiter.wait_s("1.1.1.1") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limiter.wait_s("1.1.1.2") == 0
    now[0] += 0.5
    assert [limiter.wait_s("1.1.1.1") for _ in range(2)] == [0, 0.5]
    now[0] += 100
    assert [limiter.wait_s("::ffff:1.1.1.1") for _ in range(4)] == [0, 0, 0, 0.5], (
        "the same address, and no more tokens"
    )
    assert [limiter.wait_s(f"2001:db8::{number:x}") for number in range(4)] == [0, 0, 0, 0.5], "one /64"
    assert limiter.wait_s("2001:db8:0:1::1") == 0
    for number in range(600):
        limiter.wait_s(f"10.0.{number >> 8}.{number & 255}")
    assert len(limiter) == 300
    assert RateLimiter(0, 1).wait_s("1.1.1.1") == 0


def test_more_connections_than_allowed_are_closed() -> None:
    with running(max_connections=5) as service:
        kept = [service.socket() for _ in range(5)]
        try:
            with service.socket() as further:
                said = answer_of(further)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert said.endswith(b'{"error": "there are too many connections: try again"}\n')
        finally:
            for client in kept:
                client.close()
        wait_until(lambda: _status_of(service) == 200)


def _status_of(service: Service) -> int:
    try:
        return service.ask("GET", "/health/live").status
    except OSError:
        return 0


def test_an_answer_that_nobody_reads_is_thrown_away() -> None:
    """Asks again and again on one connection without reading, until more is written than the system holds."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    with running([model_of(lambda x: noise[None])], request_s=4.0) as service:
        body = as_file(np.zeros((1000, 1000, 3), np.uint8))
        with service.socket() as client:
            for _ in range(6):
                head = b"POST /translate HTTP/1.1\r\nHost: [::1]\r\nAccept: image/tiff\r\nContent-Length: %d\r\n\r\n"
                client.sendall(head % len(body) + body)
            wait_until(lambda: service.figure("cyclegan_fast_sent_bytes_total") > 0)
            started = time.monotonic()
            while time.monotonic() - started < 60:
                try:
                    client.sendall(b"x")
                except OSError:
                    break
                time.sleep(0.1)
            else:
                pytest.fail("the connection is still there")


# --- where it lies meanwhile -----------------------------------------------------------------------------------------


def test_what_is_sent_reaches_no_disk(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = []
    read = uploads.read_samples

    def watched(path: Path, *rest: Any) -> Any:
        places.append(path)
        return read(path, *rest)

    monkeypatch.setattr(uploads, "read_samples", watched)
    assert service.translate(as_file(picture())).status == 200
    assert str(places[0]).startswith("/proc/self/fd/")
    # Elsewhere than on Linux there is no such file: one of the system's folder for such takes its place, and goes.
    monkeypatch.delattr("os.memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reply = service.translate(as_file(picture()))
    assert np.array_equal(pixels_in(reply.body), 255 - picture())
    assert places[1].parent == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "[::2]", "a b", ""])
def test_nothing_is_answered_by_a_name_that_somebody_else_lets_lead_here(service: Service, host: str) -> None:
    """DNS rebinding: a browser lets pages of that name read what they get."""
    for method, path in (("GET", "/"), ("GET", "/models"), ("GET", "/metrics"), ("POST", "/translate")):
        reply = service.ask(method, path, as_file(picture()) if method == "POST" else None, Host=host)
        assert reply.status == 421
        assert "let --allowed-hosts name it where this is started" in reply.error
        assert "access-control-allow-origin" not in reply.headers


def test_further_names_are_answered_where_they_are_allowed() -> None:
    with running(allowed_hosts=["gpu.lab"]) as service:
        for host in ("gpu.lab", "GPU.lab:8000", "localhost:1", "127.0.0.1", "[::1]:8000"):
            assert service.translate(as_file(picture()), Host=host).status == 200
        assert service.translate(as_file(picture()), Host="other.lab").status == 421
        assert service.figure('cyclegan_fast_requests_total{path="/translate",status="421"}') == 1
