"""Lets visitors reach what the page needs of Gradio and nothing else, and keeps Gradio from fetching anything."""

import importlib
import re
from typing import Any

from cyclegan_fast.system.sockets import AllowedHosts

_PATHS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)"
    r"|/(assets|static)/.*|/pwa_icon(/\d+)?"
    r"|/gradio_api/(queue/(join|data)|upload|upload_progress|cancel|heartbeat/.*|theme\.css|startup-events|info)"
    r"|/gradio_api/file=(?!\w+:).*",  # a file that was sent or made, and no address elsewhere
    re.DOTALL,
)
"""Lists what is answered. Gradio has more: a proxy, addresses that it fetches for whoever asks, histories, editing by
prompts."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""The Content-Security-Policy of every answer: browsers fetch nothing from elsewhere, whatever a script of Gradio's
asks for. Gradio itself needs inline scripts."""


class PageShield:
    """Answers the paths that the page needs by an ASGI application, with a policy for browsers, and others with 404.

    What asks by a name that is not allowed is answered with 421: Gradio 6.31 forbids pages of other origins to read its
    answers, and does not look at the name by which it is asked for.
    """

    def __init__(self, application: Any, hosts: AllowedHosts) -> None:
        self.application = application
        self._hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        if scope["type"] == "http" and (refused := self._refusal(scope)):
            status, reason = refused
            await send_with_policy({"type": "http.response.start", "status": status})
            await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
            return
        await self.application(scope, receive, send_with_policy)

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        host = dict(scope["headers"]).get(b"host")
        if reason := self._hosts.refusal(None if host is None else host.decode("latin-1")):
            return 421, reason
        return None if _PATHS.fullmatch(scope["path"]) else (404, "there is no such page here")


def forbid_fetching() -> None:
    """Let Gradio, in this process, raise PermissionError where it would fetch an address.

    It does so where a visitor names an address in place of a file that was sent.
    """
    processing: Any = importlib.import_module("gradio.processing_utils")
    for name in ("async_ssrf_protected_download", "ssrf_protected_download"):
        assert hasattr(processing, name), f"this release of Gradio has no {name}"
    processing.async_ssrf_protected_download = _refuse_later
    processing.ssrf_protected_download = _refuse


def _refuse(url: str, *_: Any, **__: Any) -> str:
    raise PermissionError(f"nothing is fetched from elsewhere, and {url!r} was asked for")


async def _refuse_later(url: str, *_: Any, **__: Any) -> str:
    return _refuse(url)
