"""Runs a function in several ranks on gloo, in forked processes: a start takes no seconds of imports."""

import contextlib
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("fork")


def in_ranks(
    count: int, function: Callable[..., int | None], *arguments: Any, nodes: int = 1, timeout_s: float = 300
) -> list[int | None]:
    """Call `function` in `count` processes, of as many on each of `nodes`; return their exit statuses.

    Each has the environment that torchrun gives its ranks. The caller must have started no thread of OpenMP.
    """
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    shared |= {"GROUP_WORLD_SIZE": nodes, "TORCHELASTIC_RUN_ID": "forked"}
    own = [{"RANK": n, "LOCAL_RANK": n % (count // nodes), "GROUP_RANK": n // (count // nodes)} for n in range(count)]
    ranks = [CONTEXT.Process(target=_rank, args=({**shared, **its}, function, arguments)) for its in own]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout_s)
    statuses = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    return statuses


def _rank(place: dict[str, Any], function: Callable[..., int | None], arguments: tuple[Any, ...]) -> None:
    os.environ |= {name: str(value) for name, value in place.items()}
    status = 1
    try:
        status = function(*arguments) or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)
