"""Sets Gradio up so that it asks nobody else for anything, and serves the page.

Gradio's own `launch` is not used: it asks the address that it listens on for an answer, through a proxy where one is
set, and offers a public address through somebody else's machine.
"""

import importlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_fast.demonstration.shield import PageShield, forbid_fetching
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.sockets import AllowedHosts

if TYPE_CHECKING:
    from cyclegan_fast.demonstration.options import DemoLimits

_MIB = 2**20
_CLOSING_S = 1
"""seconds that connections have to end: an open page holds one for as long as it is open"""


def set_up_gradio(folder: Path) -> None:
    """Import Gradio so that it sends no statistics, and keeps what visitors send in `folder`.

    Raises UserError where it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        importlib.import_module("gradio")
    except ImportError as error:
        raise UserError(
            f"the demo needs Gradio, which cannot be imported ({error}): pip install 'cyclegan-fast[demo]'"
        ) from error
    forbid_fetching()


@contextmanager
def served_page(page: Any, listening: socket.socket, limits: "DemoLimits", hosts: AllowedHosts) -> Iterator[str]:
    """Serve a page in a thread of its own as long as the context lasts; yield its address."""
    import uvicorn

    configuration = uvicorn.Config(
        _application(page, limits, hosts),
        lifespan="on",
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSING_S,
    )
    server = uvicorn.Server(configuration)
    # Signals are the main thread's, see `Interruption`; uvicorn leaves them alone in another one.
    thread = threading.Thread(target=server.run, args=([listening],), name="page", daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.05)
            if not thread.is_alive():
                raise UserError("the page could not be served: what was wrong is printed above")
        host, port, *_ = listening.getsockname()
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.should_exit = True
        thread.join()


def _application(page: Any, limits: "DemoLimits", hosts: AllowedHosts) -> Any:
    import gradio
    from fastapi import FastAPI

    from cyclegan_fast.demonstration.page import THEME

    # `launch` sets this; without it Gradio 6.31 reads any file of the machine that a visitor names as a picture.
    page.has_launched = True
    mounted = gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        theme=THEME,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,  # of what no visitor can mend; refusals are shown all the same
        max_file_size=limits.max_upload_mib * _MIB,
    )
    return PageShield(mounted, hosts)
