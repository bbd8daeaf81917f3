"""Lines of the log are whole or counted as lost, and neither a request nor the end waits for whoever reads them."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from export.serving import json_lines
from export.serving.json_lines import JsonLines
from tests.export.serving.service import as_file, picture, running, wait_until

NOBODY_READS = """
import sys
from export.serving.json_lines import JsonLines
with JsonLines() as lines:
    for index in range(2000):
        lines.write("request", path="/" + "x" * 150)
print(lines.lost, file=sys.stderr)
"""


def filled_up(writer: int) -> int:
    """Fill a pipe, whatever its size is, and return how many bytes it took."""
    os.set_blocking(writer, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(writer, bytes(512))
    os.set_blocking(writer, True)
    return filled


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_nobody_reads_holds_up_no_request_and_no_end(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "LAST_LINES_S", 0.2)
    reader, writer = pipe
    filled = filled_up(writer)
    lines = JsonLines(writer, most_waiting=20)
    with running(lines=lines) as service:
        connection = service.connection()
        for _ in range(250):
            connection.request("GET", "/models")
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:9]) == (200, b'[{"name":')
        connection.close()
        assert service.translate(as_file(picture())).status == 200
        lost = 1 + 251 - 1 - 20  # one line is at the pipe, and 20 behind it; the first one is of the start
        wait_until(lambda: service.figure("cyclegan_fast_lost_log_lines") >= lost)
        assert lost == service.figure("cyclegan_fast_lost_log_lines")
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 3
    assert lines.lost == lost + 2 + 20  # those of the end, and those that waited
    os.read(reader, filled)  # lets the thread end


def test_a_process_ends_though_nobody_reads_what_it_logged() -> None:
    begun_s = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", NOBODY_READS],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.wait(30) == 0
            took_s = time.monotonic() - begun_s
            out, errors = process.communicate()
        finally:
            process.kill()
    assert took_s >= json_lines.LAST_LINES_S, "the pipe took all of it, which proves nothing"
    written = out.splitlines()
    assert all(json.loads(line)["event"] == "request" for line in written[:-1])
    assert 1998 - len(written) <= int(errors) <= 2000 - len(written)


def test_a_slow_reader_gets_every_line_in_order(pipe: tuple[int, int]) -> None:
    """Reads from a pipe that does not block its writer, as some programs make them."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    with JsonLines(writer) as lines:
        for index in range(700):
            lines.write("request", index=index, path="/" + "x" * 150)
        content = b""
        while content.count(b"\n") < 700:
            content += os.read(reader, 5000)
    assert lines.lost == 0
    assert [json.loads(line)["index"] for line in content.splitlines()] == [*range(700)]


def test_no_request_fails_for_a_full_disk_under_the_log() -> None:
    with open("/dev/full", "wb") as full, running(lines=JsonLines(full.fileno())) as service:
        assert service.translate(as_file(picture())).status == 200
        wait_until(lambda: service.figure("cyclegan_fast_lost_log_lines") == 2)  # the start, and the request


def test_a_line_behind_one_that_a_full_disk_tore_off_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    said = iter([7, OSError(errno.ENOSPC, "No space left on device"), OSError(errno.ENOSPC, "No space"), None, None])

    def write_on_a_full_disk(descriptor: int, content: memoryview) -> int:
        answer = next(said)
        if isinstance(answer, OSError):
            raise answer
        return write(descriptor, content[:answer])

    monkeypatch.setattr(os, "write", write_on_a_full_disk)
    with open(tmp_path / "log", "wb") as file, JsonLines(file.fileno()) as lines:
        for name in ("torn", "lost", "whole", "last"):
            lines.write(name)
    torn, *rest = (tmp_path / "log").read_text().splitlines()
    assert torn == '{"time"'
    assert [json.loads(line)["event"] for line in rest] == ["whole", "last"]
    assert lines.lost == 2


def test_without_standard_output_all_lines_are_lost() -> None:
    with JsonLines(None) as lines:
        lines.write("started")
    assert lines.lost == 1
