"""Fetches a file over HTTP, and continues a download that an earlier start left unfinished; `web.py` asks for it.

Beside an unfinished file stands what the server said of it: its address, its ETag or Last-Modified, and its size. Only
a server that says the same again may add to it; with any other answer the file is fetched anew, and the user is told.

Libraries do less: pooch does not continue a download, and `huggingface_hub`'s `http_get` asks for a range without
If-Range, so that it joins the end of a changed file to the start of the old one.
"""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cyclegan_fast.datasets.web import Answer, Interrupted, Version, ask
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import temporary_beside, write_atomically
from cyclegan_fast.system.progress import progress_bar

Say = Callable[[str], None]

PAUSES_S = (1.0, 3.0, 9.0)  # pauses between attempts that gain too little
LEAST_BYTES_PER_S = 1000
SPEED_WINDOW_S = 60.0  # the time over which a server is to send as much


# --- what is kept between starts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Partial:
    """Keeps the beginning of a file, hidden beside the place where the whole file goes."""

    path: Path

    @classmethod
    def of(cls, target: Path) -> "Partial":
        """Return the beginning of the file that becomes `target`."""
        return cls(temporary_beside(target))

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def size_bytes(self) -> int:
        """Bytes that are there; 0 without a file."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> Version | None:
        """Return what the server said of the file that this is the beginning of; None where that is not known."""
        try:
            return Version(**json.loads(self._note.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, version: Version) -> None:
        """Begin anew with `version`: empty the file first, so that a kill never leaves a new note beside old bytes."""
        self.path.write_bytes(b"")
        write_atomically(self._note, json.dumps(dataclasses.asdict(version)).encode())

    def discard(self) -> None:
        """Remove the file and the note on it."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def publish(self, target: Path) -> None:
        """Give the whole file its name, `target`."""
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())
        self.path.replace(target)
        self._note.unlink(missing_ok=True)


# --- fetching ------------------------------------------------------------------------------------------------------


def fetch(url: str, partial: Partial, say: Say, most_bytes: int) -> None:
    """Complete `partial` to the file at `url`, or leave what could be had.

    Args:
        url: an address of http or https; redirects are followed to these only.
        partial: what an earlier start left, or nothing.
        say: is called with a line where an attempt is repeated, or the file is fetched anew.
        most_bytes: a file that is larger is refused, so that no server can fill the disk.

    Attempts that fail are repeated after the pauses of PAUSES_S, which begin again once as much has been gained as a
    server of LEAST_BYTES_PER_S sends. Raises UserError where the network, the server or the disk refuses.
    """
    failures, gained = 0, _Gain(partial.size_bytes)
    while True:
        try:
            if _attempt(url, partial, say, most_bytes):
                return
        except Interrupted as error:
            if gained.suffices(partial.size_bytes):
                failures, gained = 0, _Gain(partial.size_bytes)
            if failures == len(PAUSES_S):
                kept = f"{partial.size_bytes / 1e6:.1f} MB are kept, and " if partial.size_bytes else ""
                raise UserError(
                    f"could not fetch {url}: {error}; {kept}the same command continues; --from URL names a mirror"
                ) from error
            say(f"{error}; trying again in {PAUSES_S[failures]:g} s")
            time.sleep(PAUSES_S[failures])
            failures += 1
        except OSError as error:
            raise UserError(
                f"could not write {partial.path}: {error.strerror or error}; once this is mended the same command "
                "continues"
            ) from error


class _Gain:
    """Measures from when it is made whether bytes come at LEAST_BYTES_PER_S."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes, self._since = size_bytes, time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._since

    def suffices(self, size_bytes: int) -> bool:
        """Return whether the file has grown by enough since, to `size_bytes`."""
        return size_bytes > self._size_bytes + LEAST_BYTES_PER_S * self.elapsed_s


def _attempt(url: str, partial: Partial, say: Say, most_bytes: int) -> bool:
    """Make one request; returns False where the next one has to start anew."""
    start, known = partial.size_bytes, partial.version
    if known and known.url == url and known.size_bytes == start:
        return True  # an earlier start fetched the whole file
    if start and (known is None or known.url != url or known.validator is None):
        say(f"{partial.path} is of another address, or the server cannot tell its versions apart; fetching it anew")
        start = 0
    answer = ask(url, start, known.validator if known else None)
    if answer is None:
        say(f"the server has no more of the file than is here, {start} bytes of another one; fetching it anew")
        partial.discard()
        return False
    with answer:
        version = answer.version_of(url)
        if start and answer.status == 206:
            if not known or not version.is_of(known) or answer.first_byte() != start:
                say("the file has changed on the server, or the part sent is another one; fetching it anew")
                partial.discard()
                return False
        elif answer.status == 200:
            if start:
                say("the file has changed on the server, or it sends no parts; fetching it anew")
            start = 0
            _check_size(version, partial, most_bytes)
            partial.begin(version)
        else:
            raise UserError(f"{url}: the server answers {answer.status}, not a file; --from URL names a mirror")
        _copy(answer, partial, start, version.size_bytes, most_bytes)
    return True


def _copy(answer: Answer, partial: Partial, start: int, size_bytes: int | None, most_bytes: int) -> None:
    name = partial.path.name.removeprefix(".").removesuffix(".partial")
    had, gained = start, _Gain(start)
    with (
        open(partial.path, "ab") as file,
        progress_bar(
            desc=name, initial=start, total=size_bytes, unit="B", unit_scale=True, unit_divisor=1024
        ) as progress,
    ):
        while chunk := answer.next_bytes():
            file.write(chunk)
            file.flush()  # so that a kill loses nothing that was fetched
            progress.update(len(chunk))
            had += len(chunk)
            if had > most_bytes:
                break
            if gained.elapsed_s >= SPEED_WINDOW_S:
                if not gained.suffices(had):
                    raise Interrupted(f"{answer.host} sends less than {LEAST_BYTES_PER_S} bytes a second")
                gained = _Gain(had)
    if had > most_bytes:
        partial.discard()
        raise UserError(f"{answer.url} is refused and removed: {_too_large(most_bytes)}")
    if size_bytes is not None and had > size_bytes:
        partial.discard()
        raise Interrupted(f"the server sent more than the {size_bytes} bytes that it announced")
    if size_bytes is not None and had < size_bytes:
        raise Interrupted(f"the connection ended after {had} of {size_bytes} bytes")


def _check_size(version: Version, partial: Partial, most_bytes: int) -> None:
    if version.size_bytes is None:
        return
    free = shutil.disk_usage(partial.path.parent).free + partial.size_bytes
    if version.size_bytes > most_bytes:
        raise UserError(f"{version.url} has {version.size_bytes / 1e6:.0f} MB and is refused: {_too_large(most_bytes)}")
    if version.size_bytes > free:
        raise UserError(
            f"{version.url} has {version.size_bytes / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free in "
            f"{partial.path.parent}: make room, or name another disk with --out"
        )


def _too_large(most_bytes: int) -> str:
    return f"what the authors published is far smaller than {most_bytes / 1e6:.0f} MB; name a mirror with --from URL"
