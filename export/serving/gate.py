"""Stands in front of the application: lets requests in, or refuses them before anything of their body is read.

It answers by certain names alone, counts what is in flight, limits the rate of each address, bounds the time of a
request, and logs every answer.
"""

import asyncio
import time
import traceback
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cyclegan_fast.system.sockets import AllowedHosts
from export.serving.json_lines import JsonLines
from export.serving.measurements import Measurements
from export.serving.rate_limit import RateLimiter
from export.serving.refusal import RefusalAnswer, RequestRefused
from export.serving.service_options import ServingLimits
from export.serving.uploads import too_large

TRANSLATE = "/translate"
KNOWN_PATHS = (TRANSLATE, "/models", "/health/live", "/health/ready", "/metrics", "/", "/docs", "/openapi.json")
RECORD = "record"
"""the key of `scope["state"]` under which the application leaves what the log says of a request"""


class Gate:
    """Wraps an ASGI application.

    `in_flight` counts the translations that were let in and have not been answered. After `drain()` no further one is.
    """

    def __init__(self, application: ASGIApp, limits: ServingLimits, lines: JsonLines, hosts: AllowedHosts) -> None:
        self.in_flight = 0
        self.is_draining = False
        self.measurements: Measurements | None = None
        self._application = application
        self._limits = limits
        self._lines = lines
        self._hosts = hosts
        self._rates = RateLimiter(limits.rate, limits.burst)
        self._idle = asyncio.Event()
        self._idle.set()

    def drain(self) -> None:
        """Refuse translations from now on."""
        self.is_draining = True

    async def wait_until_idle(self, most_s: float) -> int:
        """Wait until nothing is in flight; return how many requests still are, after `most_s` seconds at the latest."""
        try:
            async with asyncio.timeout(most_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        return self.in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        answer = _Answer(send)
        record: dict[str, Any] = {}
        scope.setdefault("state", {})[RECORD] = record
        begun_s = time.monotonic()
        is_translation = scope["path"] == TRANSLATE and scope["method"] == "POST"
        try:
            if elsewhere := self._meant_for_another(scope):
                await RefusalAnswer(elsewhere)(scope, receive, answer)
            elif is_translation:
                await self._translation(scope, receive, answer)
            else:
                await self._guarded(scope, receive, answer)
        finally:
            self._tell(scope, answer, record, time.monotonic() - begun_s, is_translation)

    async def _translation(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if refused := self._refusal(scope):
            await RefusalAnswer(refused)(scope, receive, answer)
            return
        self.in_flight += 1
        self._idle.clear()
        try:
            await self._guarded(scope, receive, answer)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    def _meant_for_another(self, scope: Scope) -> RequestRefused | None:
        """Return why nothing is answered by the name that a request gives this machine; None where it is."""
        host = dict(scope["headers"]).get(b"host")
        reason = self._hosts.refusal(None if host is None else host.decode("latin-1"))
        return RequestRefused(421, reason, unread=_has_body(scope)) if reason else None

    def _refusal(self, scope: Scope) -> RequestRefused | None:
        """Return why a translation is not let in; None where it is."""
        length = dict(scope["headers"]).get(b"content-length", b"0")
        unread = _has_body(scope)
        if self.is_draining:
            return RequestRefused(
                503, "the service is stopping: try again elsewhere, or later", retry_s=5, unread=unread
            )
        if self.in_flight >= self._limits.max_requests:
            return RequestRefused(
                503, f"{self.in_flight} translations are in flight: try again", retry_s=1, unread=unread
            )
        address = scope["client"][0] if scope["client"] else ""
        if wait_s := self._rates.wait_s(address):
            return RequestRefused(
                429, f"more than {self._limits.rate:g} translations a second: slow down", retry_s=wait_s, unread=unread
            )
        if length.isdigit() and int(length[:20]) > self._limits.upload_bytes:
            return too_large(self._limits, unread=True)
        return None

    async def _guarded(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        """Run the application; a request that takes too long, or fails unexpectedly, is answered with one line."""
        try:
            async with asyncio.timeout(self._limits.request_s):
                await self._application(scope, receive, answer)
        except TimeoutError:
            if answer.status is None:
                late = RequestRefused(
                    504, f"the request took longer than {self._limits.request_s:g} seconds", retry_s=5
                )
                await RefusalAnswer(late)(scope, receive, answer)
        except asyncio.CancelledError:
            if not self.is_draining or answer.status is not None:
                raise
            # uvicorn ends what has not ended by itself; its own answer would be no JSON.
            stopped = RequestRefused(503, "the service stopped before the translation ended", retry_s=5)
            await RefusalAnswer(stopped)(scope, receive, answer)
        except Exception as error:
            places = traceback.extract_tb(error.__traceback__)[-3:]
            where = " < ".join(f"{place.filename.rpartition('/')[2]}:{place.lineno}" for place in reversed(places))
            self._lines.write("failure", level="error", error=repr(error), where=where)
            if answer.status is None:
                await RefusalAnswer(RequestRefused(500, "the service failed; its log says why"))(scope, receive, answer)

    def _tell(
        self, scope: Scope, answer: "_Answer", record: dict[str, Any], took_s: float, is_translation: bool
    ) -> None:
        path = scope["path"] if scope["path"] in KNOWN_PATHS else "other"
        status = answer.status or 499  # as nginx logs clients that went away
        if self.measurements is not None:
            self.measurements.requests.labels(path, status).inc()
            if is_translation:
                self.measurements.seconds.observe(took_s)
        if path.startswith("/health") or path == "/metrics":
            return  # these are asked for every few seconds
        self._lines.write(
            "request",
            client=scope["client"][0] if scope["client"] else None,
            method=scope["method"],
            path=scope["path"],
            status=status,
            bytes_out=answer.sent_bytes,
            ms=round(took_s * 1000, 1),
            **record,
        )


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


class _Answer:
    """Passes an answer on to the client, and remembers its status and its size."""

    def __init__(self, send: Send) -> None:
        self.status: int | None = None
        self.sent_bytes = 0
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.sent_bytes += len(message.get("body", b""))
        await self._send(message)
