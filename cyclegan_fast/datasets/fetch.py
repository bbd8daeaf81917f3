"""Fetches a file over HTTP, and continues a download that an earlier start left unfinished.

Beside an unfinished file stands what the server said of it: its address, its ETag or Last-Modified, and its size. Only
a server that says the same again may add to it; with any other answer the file is fetched anew, and the user is told.

Libraries do less: pooch does not continue a download, and `huggingface_hub`'s `http_get` asks for a range without
If-Range, so that it joins the end of a changed file to the start of the old one.
"""

import dataclasses
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import temporary_beside, write_atomically
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.version import __version__

Say = Callable[[str], None]

PAUSES_S = (1.0, 3.0, 9.0)  # pauses between attempts that gain nothing
TIMEOUT_S = 30.0  # the longest silence of a server
CHUNK_BYTES = 1 << 18
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may pass in a moment


class _Interrupted(Exception):
    """Tells that the network or the server failed in a way that may pass; the message says how."""


# --- what is kept between starts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """Holds what a server said of a file."""

    url: str
    etag: str | None
    last_modified: str | None
    size_bytes: int | None

    @property
    def validator(self) -> str | None:
        """Return the value for If-Range (RFC 9110, section 13.1.5): no weak tag, which several contents may share."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def is_of(self, other: "Version") -> bool:
        """Tell whether a partial answer is of the same content as `other`.

        The answer may leave out the tag or date that was asked for in If-Range, but a server that does not know
        If-Range sends both as always.
        """
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified))
        is_other = any(one != two for one, two in pairs if one is not None and two is not None)
        return self.size_bytes is not None and self.size_bytes == other.size_bytes and not is_other


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


def fetch(url: str, partial: Partial, say: Say) -> None:
    """Complete `partial` to the file at `url`, or leave what could be had.

    Args:
        url: an address of http or https; redirects are followed to these only.
        partial: what an earlier start left, or nothing.
        say: is called with a line where an attempt is repeated, or the file is fetched anew.

    Attempts that fail are repeated after the pauses of PAUSES_S, which begin again once an attempt has got further than
    any before. Raises UserError where the network, the server or the disk refuses.
    """
    failures, furthest = 0, partial.size_bytes
    while True:
        try:
            if _attempt(url, partial, say):
                return
        except _Interrupted as error:
            if partial.size_bytes > furthest:
                failures, furthest = 0, partial.size_bytes
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


def _attempt(url: str, partial: Partial, say: Say) -> bool:
    """Make one request; returns False where the next one has to start anew."""
    start, known = partial.size_bytes, partial.version
    if known and known.url == url and known.size_bytes == start:
        return True  # an earlier start fetched the whole file
    if start and (known is None or known.url != url or known.validator is None):
        say(f"{partial.path} is of another address, or the server cannot tell its versions apart; fetching it anew")
        start = 0
    response = _open(url, start, known.validator if known else None)
    if response is None:
        say(f"the server has no more of the file than is here, {start} bytes of another one; fetching it anew")
        partial.discard()
        return False
    with response:
        answer = _version(response, url)
        if start and response.status == 206:
            if not known or not answer.is_of(known) or _first_byte(response) != start:
                say("the file has changed on the server, or the part sent is another one; fetching it anew")
                partial.discard()
                return False
        elif response.status == 200:
            if start:
                say("the file has changed on the server, or it sends no parts; fetching it anew")
            start = 0
            _check_room(answer, partial)
            partial.begin(answer)
        else:
            raise UserError(f"{url}: the server answers {response.status}, not a file; --from URL names a mirror")
        _copy(response, partial, start, answer.size_bytes)
    return True


def _copy(response: http.client.HTTPResponse, partial: Partial, start: int, size_bytes: int | None) -> None:
    name = partial.path.name.removeprefix(".").removesuffix(".partial")
    with (
        open(partial.path, "ab") as file,
        progress_bar(
            desc=name, initial=start, total=size_bytes, unit="B", unit_scale=True, unit_divisor=1024
        ) as progress,
    ):
        while True:
            try:
                chunk = response.read1(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise _Interrupted(_reason(error, response.url)) from error
            if not chunk:
                break
            file.write(chunk)
            file.flush()  # so that a kill loses nothing that was fetched
            progress.update(len(chunk))
    had = partial.size_bytes
    if size_bytes is not None and had > size_bytes:
        partial.discard()
        raise _Interrupted(f"the server sent more than the {size_bytes} bytes that it announced")
    if size_bytes is not None and had < size_bytes:
        raise _Interrupted(f"the connection ended after {had} of {size_bytes} bytes")


def _check_room(answer: Version, partial: Partial) -> None:
    free = shutil.disk_usage(partial.path.parent).free + partial.size_bytes
    if answer.size_bytes is not None and answer.size_bytes > free:
        raise UserError(
            f"{answer.url} has {answer.size_bytes / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free in "
            f"{partial.path.parent}: make room, or name another disk with --out"
        )


# --- HTTP ----------------------------------------------------------------------------------------------------------


class _WebOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise UserError(f"{req.full_url} redirects to {newurl}, which is not followed: it is no web address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone: urllib's usual one also reads ftp:, file: and data: addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _WebOnly(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _open(url: str, start: int, validator: str | None) -> http.client.HTTPResponse | None:
    """Request all bytes from `start`, and return the answer; None where the server has none there (416)."""
    headers = {"User-Agent": f"cyclegan-fast/{__version__}", "Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        status = f"{error.code} {error.msg}"
        if error.code == 416 and start:
            return None
        if error.code in PASSING:
            raise _Interrupted(f"the server answers {status}") from error
        advice = "it is not there" if error.code in (404, 410) else "the server refuses it"
        raise UserError(f"could not fetch {url}: {advice} ({status}); --from URL names a mirror") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(f"could not fetch {url}: its certificate is not valid: {reason.verify_message}") from error
        raise _Interrupted(_reason(reason, url)) from error
    assert isinstance(response, http.client.HTTPResponse)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise UserError(f"{url}: the server sends it as {encoding}, which was not asked for; --from URL names a mirror")
    return response


def _reason(error: Exception, url: str) -> str:
    host = urlsplit(url).hostname
    if isinstance(error, socket.gaierror):
        return f"the address of {host} is not found; check the network and the name"
    if isinstance(error, ConnectionRefusedError):
        return f"{host} refuses the connection"
    if isinstance(error, TimeoutError):
        return f"{host} was silent for {TIMEOUT_S:g} s"
    return f"the connection to {host} broke ({str(error) or type(error).__name__})"


def _version(response: http.client.HTTPResponse, url: str) -> Version:
    size = response.length
    if response.status == 206:
        total = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
        size = int(total[1]) if total else None
    return Version(url, response.headers.get("ETag"), response.headers.get("Last-Modified"), size)


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None
