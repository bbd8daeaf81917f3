"""Defines how a request is refused: a status, one line of JSON, and when to try again."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

from starlette.types import Receive, Scope, Send

LINGER_S = 2.0
"""seconds that the rest of a body is thrown away for: a client that still sends would not read the answer, and closing
the connection under it could destroy the answer on its way"""


class RequestRefused(Exception):
    """Says why a request is refused.

    Args:
        status: of HTTP.
        reason: one line for the client, without anything of the server's files.
        retry_s: seconds after which the client may try again.
        unread: whether a part of the body was not read.
    """

    def __init__(self, status: int, reason: str, *, retry_s: float | None = None, unread: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_s = retry_s
        self.unread = unread


class RefusalAnswer:
    """Sends a refusal, as an ASGI application; `extra` are further headers."""

    def __init__(self, refused: RequestRefused, extra: Mapping[str, str] | None = None) -> None:
        self.refused = refused
        self.extra = extra or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self.refused
        body = error_body(refused.reason)
        headers = {"content-type": "application/json", "content-length": str(len(body)), **self.extra}
        if refused.retry_s is not None:
            headers["retry-after"] = str(max(1, round(refused.retry_s)))
        if refused.unread:
            headers["connection"] = "close"
        pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
        await send({"type": "http.response.body", "body": body, "more_body": refused.unread})
        if refused.unread:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await _thrown_away(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _thrown_away(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def error_body(reason: str) -> bytes:
    """Return the JSON of an error: one line, {"error": "..."}."""
    return (json.dumps({"error": " ".join(reason.split())}) + "\n").encode()


def phrase_of(status: int) -> str:
    """Return the usual words for a status of HTTP, such as "not found"."""
    return HTTPStatus(status).phrase.lower()
