"""Takes tests from a queue that several processes of pytest share, in the order in which they stand; a plugin.

Which test comes next is a number in a file. What became of each test is a line in another file, written when it is
known, so that nothing is lost where the time ends or a process dies. `bench.new_gpu.parallel_tests` starts the
processes and reads the lines. Each process collects all tests, as pytest-xdist's do; here the first ones begin first.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bench.new_gpu.parallel_tests import FAILURES, LOST, NEXT, TESTS

MISSING = re.compile(r"^E +ModuleNotFoundError: No module named '([\w.]+)'$", re.MULTILINE)
ONLY_MARKED = ("tests/bench/measure/test_timing.py",)
"""Files of which only the tests that need a GPU run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench.gpu")
    group.addoption("--queue", type=Path, metavar="FOLDER", help="of the files that the processes have in common")
    group.addoption("--until", type=float, help="by time.monotonic(): no test begins afterwards")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_QueueWorker(config.getoption("--queue"), config.getoption("--until")))


class _QueueWorker:
    """Runs the tests that it takes from the queue."""

    def __init__(self, folder: Path, until_s: float) -> None:
        self.folder = folder
        self.until_s = until_s

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [
            item for item in items if item.nodeid.startswith(ONLY_MARKED) and not item.get_closest_marker("gpu")
        ]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        self._write("collected", str(len(items)), config.args[0])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.failed:
            return
        missing = MISSING.search(report.longreprtext)
        if missing and find_spec(missing[1].partition(".")[0]) is None:
            # A rented GPU's image has PyTorch and little else; what could not run is counted.
            self._write("left out", report.nodeid, f"imports {missing[1]}, which is not installed")
        else:
            self._failed("error", report.nodeid, report)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for index in self._taken():
            if index >= len(session.items) or time.monotonic() > self.until_s:
                break
            item = session.items[index]
            self._write("begun", item.nodeid)
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            if _is_lost_after_clearing():
                os._exit(LOST)  # the tests that follow would fail for this error, and so would a proper end
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed("failed", report.nodeid, report)
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._write("skipped", report.nodeid, reason)
        elif report.when == "call":
            self._write("passed", report.nodeid, f"{report.duration:.2f} s")

    def _taken(self) -> Iterator[int]:
        """Yield numbers of tests that no other process takes."""
        while True:
            with open(self.folder / NEXT, "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                number = int(file.read() or 0)
                file.seek(0)
                file.write(str(number + 1))
                file.flush()
            yield number

    def _failed(self, outcome: str, nodeid: str, report: pytest.CollectReport | pytest.TestReport) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = report.longreprtext
        self._write(outcome, nodeid, crash.message if crash else text.strip().rpartition("\n")[2])
        _append(self.folder / FAILURES, f"=== {nodeid}\n{text}\n\n")

    def _write(self, outcome: str, what: str, remark: str = "") -> None:
        first = next(iter(remark.splitlines()), "")
        _append(self.folder / TESTS, f"{outcome}\t{what}\t{first[:200]}\n")


def _append(path: Path, text: str) -> None:
    """Append the text in one piece, since other processes append as well."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _is_lost_after_clearing() -> bool:
    """Give memory back, which others need; return whether an error has left the GPU unusable for this process."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False
