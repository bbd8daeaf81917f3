"""Ends translations of scenes as kill -9 does."""

import os
import signal
from types import SimpleNamespace
from typing import Any

from cyclegan_fast.translate import main
from cyclegan_fast.translation.strips import scratch_file


def ended_at(write: int, arguments: list[str]) -> int:
    """Run the command in a forked process that kill -9 ends at its n-th write to a scratch file; return its status."""
    process = os.fork()
    if process == 0:
        pwrite, count = os.pwrite, iter(range(write))

        def strike(*given: Any) -> int:
            if next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return pwrite(*given)

        try:
            scratch_file.os = SimpleNamespace(**{**vars(os), "pwrite": strike})  # type: ignore[assignment]
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(main(arguments))
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def is_ended(status: int) -> bool:
    """Tell whether kill -9 ended a process of that status."""
    return status == -signal.SIGKILL
