"""Runs the service until it is asked to stop: binds, listens, and lets what is in flight end."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from cyclegan_fast.system.interruption import Interruption
from cyclegan_fast.system.sockets import AllowedHosts
from cyclegan_fast.system.words import counted
from export.serving.application import make_application
from export.serving.connections import guarded_protocol
from export.serving.gate import Gate
from export.serving.json_lines import JsonLines, ServerLogHandler
from export.serving.models import ServedModel
from export.serving.service_options import BatchOptions, ServingLimits

_LOOKED_S = 0.05
_CLOSING_S = 5
"""seconds that connections have to take the last bytes of their answers, once nothing is in flight"""
_BACKLOG = 128


class _Server(uvicorn.Server):
    """Leaves signals to the command, see `Interruption`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run_service(
    models: Sequence[ServedModel],
    limits: ServingLimits,
    batches: BatchOptions,
    lines: JsonLines,
    listening: socket.socket,
    hosts: AllowedHosts,
) -> int:
    """Serve on a socket until SIGTERM or Ctrl-C, and return the exit status: 1 where requests were cut off."""
    with Interruption(after="the requests in flight") as interruption:
        gate = make_application(models, limits, batches, lines, hosts)
        return asyncio.run(serve_until(lambda: interruption.requested, gate, listening, limits, lines))


async def serve_until(
    is_asked_to_stop: Callable[[], bool], gate: Gate, listening: socket.socket, limits: ServingLimits, lines: JsonLines
) -> int:
    """Serve on a socket until asked to stop, let what is in flight end, and return the exit status."""
    server = _Server(_configuration(gate, limits, lines))
    running = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not running.done():
        await asyncio.sleep(_LOOKED_S)
    host, port, *_ = listening.getsockname()
    if server.started:
        lines.write("started", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    while not is_asked_to_stop() and not running.done():
        await asyncio.sleep(_LOOKED_S)
    gate.drain()
    lines.write("stopping", in_flight=gate.in_flight)
    cut_off = await gate.wait_until_idle(limits.grace_s)
    server.should_exit = True
    await running
    lines.write("stopped", cut_off=cut_off)
    if cut_off:
        lines.write("note", message=f"{counted(cut_off, 'request')} did not end within {limits.grace_s:g} seconds")
    return 1 if cut_off else 0


def _configuration(gate: Gate, limits: ServingLimits, lines: JsonLines) -> uvicorn.Config:
    configuration = uvicorn.Config(
        gate,
        http=guarded_protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # anybody could claim another address by them
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_CLOSING_S,
    )
    logger = logging.getLogger("uvicorn.error")
    logger.handlers[:] = [ServerLogHandler(lines)]
    logger.propagate = False
    return configuration
