"""Downloads from hostile servers: nothing is written elsewhere, nothing wrong is kept, and every command ends.

Each fault is a server of its own on this machine (`_hostile_servers.py`, `_hostile_archives.py`), and a command in a
folder of its own. Many run at once, since most of the time they wait.
"""

import contextlib
import os
import random
import shutil
import signal
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from tests.faults import _hostile_archives as archives, _hostile_servers as servers
from tests.faults.harness import Campaign, Ended, Tally, begin, end_of

AT_ONCE = 12
LONGEST_S = 150
MOST_BYTES = 50_000_000


@dataclass(frozen=True)
class _Download:
    """Holds a command that downloads from a server, both in processes of their own."""

    fault: servers.Fault
    server: int
    command: int
    folder: Path


def _hasten() -> None:
    """Let the command lose patience sooner than it does with a user's server, and take less for too much."""
    import dataclasses

    from cyclegan_fast.datasets import fetch, published, web

    fetch.PAUSES_S = (0.1, 0.2)
    fetch.SPEED_WINDOW_S, fetch.LEAST_BYTES_PER_S = 2.0, 200
    web.TIMEOUT_S = web.HEAD_S = 3.0
    row = published.DATA_SETS[archives.NAME]
    published.DATA_SETS[archives.NAME] = dataclasses.replace(row, size_bytes=MOST_BYTES // 10)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)


def _begun(number: int, work: Path, source: random.Random) -> _Download:
    fault = servers.drawn(source)
    folder = work / str(number) / "deep" / "in"  # so that an escape is seen
    folder.mkdir(parents=True)
    server, address = servers.begun(fault)
    arguments = [archives.NAME, "--from", address, "--out", "target"]
    return _Download(fault, server, begin("cyclegan_fast.download", arguments, folder, prepare=_hasten), folder)


def _judged(ended: Ended, download: _Download) -> tuple[str, bool]:
    """Return what came of a download, and whether that is a failure."""
    if not ended.acceptable:
        return f"{ended.kind}: {ended.last_line}", True
    if strange := _strange(download.folder):
        return f"wrote {strange}", True
    target, expected = download.folder / "target", download.fault.expected
    if ended.kind != "done":
        if target.exists():
            return "ended in an error, and left a data set", True
        return ended.kind if expected != "done" else f"refused what is good: {ended.last_line}", expected == "done"
    if expected == "refused":
        return "was taken", True
    found = {name: target / name for name in archives.IMAGES}
    wrong = [name for name, path in found.items() if not path.is_file() or path.read_bytes() != archives.IMAGES[name]]
    return (f"done, with other images than were sent: {wrong}", True) if wrong else ("done", False)


def _strange(folder: Path) -> list[str]:
    """Return what a download wrote elsewhere, and links."""
    top = folder.parent.parent
    ours = ("target", ".target", ".said")
    strange = [path for path in top.rglob("*") if path.is_symlink()]
    strange += [path for path in top.rglob("*") if not path.is_dir() and not path.is_relative_to(folder)]
    strange += [path for path in folder.iterdir() if not path.name.startswith(ours)]
    escaped = Path(archives.ESCAPED)
    if escaped.exists():
        strange.append(escaped)
        escaped.unlink()
    return [str(path) for path in strange]


def _make(tally: Tally, work: Path, count: int, source: random.Random) -> None:
    downloads: deque[_Download] = deque()
    for number in range(count + AT_ONCE):
        if number < count:
            downloads.append(_begun(number, work, source))
        if downloads and (len(downloads) >= AT_ONCE or number >= count):
            download = downloads.popleft()
            came_of_it, failed = _judged(end_of(download.command, download.folder, timeout_s=LONGEST_S), download)
            with contextlib.suppress(ProcessLookupError):
                os.kill(download.server, signal.SIGKILL)
            os.waitpid(download.server, 0)
            tally.add(f"a server that {download.fault.what}", came_of_it, failed=failed)
            shutil.rmtree(download.folder.parent.parent)


CAMPAIGN = Campaign(_make, full=400, few=40)
