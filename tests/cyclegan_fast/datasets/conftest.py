"""Starts the server that tests download from, and lets commands run in a folder of their own."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# What needs packages is imported by fixtures: a bare image, which lacks them, reads this file as well.
if TYPE_CHECKING:
    from tests.cyclegan_fast.datasets.file_server import Behave, Handler, Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator["Server"]:
    from cyclegan_fast.datasets import fetch
    from tests.cyclegan_fast.datasets.file_server import Listener

    monkeypatch.setattr(fetch, "PAUSES_S", (0.01, 0.02))
    monkeypatch.setattr(fetch, "LEAST_BYTES_PER_S", 1)  # a machine under load is no slow server
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    listener = Listener()
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield listener.state
    listener.closing.set()
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults are relative to where the command runs."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def behaving(server: "Server", monkeypatch: pytest.MonkeyPatch) -> "Callable[[Behave], None]":
    """Return what replaces the answer to each request; the connection ends behind it."""
    from tests.cyclegan_fast.datasets.file_server import Handler

    def replace(behave: "Behave") -> None:
        def do_GET(self: "Handler") -> None:
            self.server.state.asked.append((self.path, self.headers.get("Range")))
            with contextlib.suppress(OSError):  # the client has gone
                behave(self)
            self.close_connection = True

        monkeypatch.setattr(Handler, "do_GET", do_GET)

    return replace
