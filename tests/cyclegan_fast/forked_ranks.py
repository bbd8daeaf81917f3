"""Runs a function in several ranks on gloo, in forked processes: a start takes no seconds of imports."""

import contextlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("fork")


def in_ranks(count: int, function: Callable[..., object], *arguments: Any, timeout_s: float = 120) -> None:
    """Call `function` in `count` processes with the environment that torchrun gives its ranks, one process as well.

    The caller must have started no thread of OpenMP. Raises AssertionError where a rank fails.
    """
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [CONTEXT.Process(target=_rank, args=(index, count, port, function, arguments)) for index in range(count)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout_s)
    statuses = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    assert statuses == [0] * count, statuses


def _rank(index: int, count: int, port: int, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
