"""Asks a web server for a file or for the rest of one, and gives up on a server that never comes to an end.

A server may send a byte a minute, headers without end, or redirect to what is no address. Whatever it does, each wait
and each answer's head is bounded here, in time and in bytes; `fetch.py` holds it to a least speed.
"""

import http.client
import io
import re
import socket
import ssl
import time
import urllib.request
from dataclasses import dataclass
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from cyclegan_fast.system.errors import UserError, in_brief_words
from cyclegan_fast.version import __version__

TIMEOUT_S = 30.0  # the longest silence of a server
HEAD_S = 60.0  # the longest time for the head of an answer, or for the next part of its content
HEAD_BYTES = 1 << 20  # the most bytes of a head, or of what stands between two parts of content
CHUNK_BYTES = 1 << 18
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may pass in a moment


class Interrupted(Exception):
    """Tells that the network or the server failed in a way that may pass; the message says how."""


class _Endless(Exception):
    """Tells what a server does without end."""


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


class _Bounded(io.RawIOBase):
    """Reads from a connection for HEAD_S and HEAD_BYTES more than a part of the content has, then raises _Endless."""

    def __init__(self, connection: io.RawIOBase) -> None:
        self._connection = connection
        self.renew()

    def renew(self) -> None:
        """Allow as much again."""
        self._deadline, self._bytes_left = time.monotonic() + HEAD_S, HEAD_BYTES + CHUNK_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._deadline:
            raise _Endless(f"has sent no whole answer, or no further part of it, for {HEAD_S:g} s")
        if self._bytes_left <= 0:
            raise _Endless(f"sends headers without end, {HEAD_BYTES >> 20} MiB of them")
        number = self._connection.readinto(buffer)
        self._bytes_left -= number or 0
        return number

    def close(self) -> None:
        self._connection.close()
        super().close()


class Answer(http.client.HTTPResponse):
    """Holds a server's answer, with a head and content that are read within bounds."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._bounded = _Bounded(self.fp.detach())
        self.fp = io.BufferedReader(self._bounded)

    @property
    def host(self) -> str | None:
        return urlsplit(self.url).hostname

    def next_bytes(self) -> bytes:
        """Return the next part of the content, empty at its end; raises Interrupted where the connection breaks."""
        self._bounded.renew()
        try:
            return self.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException, _Endless) as error:
            raise Interrupted(_reason(error, self.url)) from error

    def version_of(self, url: str) -> Version:
        """Return what the server says of the file at `url`."""
        size = self.length
        if self.status == 206:
            total = re.fullmatch(r"bytes [0-9]+-[0-9]+/([0-9]{1,18})", self.headers.get("Content-Range", ""))
            size = int(total[1]) if total else None
        return Version(url, self._mark("ETag"), self._mark("Last-Modified"), size)

    def first_byte(self) -> int | None:
        """Return which byte of the file a part begins with."""
        match = re.match(r"bytes ([0-9]{1,18})-", self.headers.get("Content-Range", ""))
        return int(match[1]) if match else None

    def _mark(self, name: str) -> str | None:
        """Return a header that may be sent back as it is, or None."""
        value: str | None = self.headers.get(name)
        return value if value and re.fullmatch("[ -~]{1,500}", value) else None


def is_web_address(text: str) -> bool:
    """Return whether a text is an address of http or https: with a host, a port that there is, and no spaces."""
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that cannot be
        return False
    return is_one and re.search(r"[\x00- \x7f]", text) is None


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
        if not is_web_address(newurl):
            raise UserError(f"{req.full_url} redirects to {newurl[:200]}, which is not followed: it is no web address")
        fp.close()  # or urllib would read the content that comes with it, all of it
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _WithAnswers:
    """Lets a handler's connections give an Answer."""

    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> Any:
        def connected(*arguments: Any, **settings: Any) -> Any:
            connection = http_class(*arguments, **settings)
            connection.response_class = Answer
            return connection

        return super().do_open(connected, req, **options)  # type: ignore[misc]  # of the class that it is mixed into


class _Http(_WithAnswers, urllib.request.HTTPHandler):
    pass


class _Https(_WithAnswers, urllib.request.HTTPSHandler):
    pass


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone: urllib's usual one also reads ftp:, file: and data: addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _Http(),
        _Https(),
        urllib.request.HTTPDefaultErrorHandler(),
        _WebOnly(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def ask(url: str, start: int, validator: str | None) -> Answer | None:
    """Request all bytes from `start`, and return the answer; None where the server has none there (416).

    Raises Interrupted where asking again may help, and UserError where it will not.
    """
    headers = {"User-Agent": f"cyclegan-fast/{__version__}", "Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        answer = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:
            return None
        raise _refusal(error, url) from error
    except (ValueError, OverflowError, http.client.InvalidURL) as error:
        raise UserError(
            f"could not fetch {url}: it is, or redirects to, what is no web address ({in_brief_words(error)}); "
            "--from URL names a mirror"
        ) from error
    except (OSError, http.client.HTTPException, _Endless) as error:
        reason = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(f"could not fetch {url}: its certificate is not valid: {reason.verify_message}") from error
        raise Interrupted(_reason(reason, url)) from error
    assert isinstance(answer, Answer)
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        answer.close()
        raise UserError(f"{url}: the server sends it as {encoding}, which was not asked for; --from URL names a mirror")
    return answer


def _refusal(error: HTTPError, url: str) -> Exception:
    if 300 <= error.code < 400:
        place = error.headers.get("Location", "nowhere")[:200]
        return UserError(f"could not fetch {url}: it redirects to {place} and to no file; --from URL names a mirror")
    status = f"{error.code} {error.msg}"
    if error.code in PASSING:
        return Interrupted(f"the server answers {status}")
    advice = "it is not there" if error.code in (404, 410) else "the server refuses it"
    return UserError(f"could not fetch {url}: {advice} ({status}); --from URL names a mirror")


def _reason(error: Exception, url: str) -> str:
    host = urlsplit(url).hostname
    if isinstance(error, socket.gaierror):
        return f"the address of {host} is not found; check the network and the name"
    if isinstance(error, ConnectionRefusedError):
        return f"{host} refuses the connection"
    if isinstance(error, _Endless):
        return f"{host} {error}"
    if isinstance(error, TimeoutError):
        return f"{host} was silent for {TIMEOUT_S:g} s"
    return f"the connection to {host} broke ({str(error) or type(error).__name__})"
