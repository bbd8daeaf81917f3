"""Bounds connections: how many there are, how long one may say nothing, and how long one may not read."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from export.serving.refusal import error_body
from export.serving.service_options import ServingLimits


def guarded_protocol(limits: ServingLimits) -> type[H11Protocol]:
    """Return uvicorn's protocol for HTTP/1.1 with bounds that it lacks.

    - Of more than `max_connections`, a further one is told so and closed.
    - A connection is closed that sends no whole head of a request within `head_s`, at first or between two requests.
    - An answer that the client does not read within `request_s` is thrown away, with its connection.
    """

    class GuardedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.max_connections:
                transport.write(_full())
                transport.close()
                return
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
            elif self.timeout_keep_alive_task is None:
                self._await_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.get_write_buffer_size():
                self.loop.call_later(limits.request_s, self._abort_unread)

        def _await_head(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(limits.head_s, self.transport.abort)

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _abort_unread(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()

    return GuardedProtocol


def _full() -> bytes:
    body = error_body("there are too many connections: try again")
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
