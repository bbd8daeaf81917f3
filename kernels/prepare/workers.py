"""Compiles variants into Triton's cache in all cores, in processes that a process of their own starts.

A process of multiprocessing imports the program that it was started from. Where that is somebody's script without
`if __name__ == "__main__"`, it would begin to train again: hence this module is run by its name, and starts them.
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from ..checking.ahead import MOST_PROCESSES
from ..checking.specialisations import Specialisation
from .cache import compile_into_cache

_MODULE = "cyclegan_fast.kernels.prepare.workers"
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def compile_in_workers(
    wanted: Sequence[Specialisation], processes: int | None, done: Callable[[], object]
) -> dict[Specialisation, str]:
    """Compile variants into Triton's cache, each for its own compute capability; return why that failed, where it did.

    No GPU is touched. The environment of this process decides, as at a launch, where the cache is.

    Args:
        processes: how many compile at a time; None for all cores.
        done: is called once for each variant that is through.
    """
    if not wanted:
        return {}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    answers, answers_to = os.pipe()
    out = 2 if _is_open(2) else subprocess.DEVNULL
    command = [sys.executable, "-m", _MODULE, str(answers_to)]
    failures: dict[Specialisation, str] = {}
    left = dict(enumerate(wanted))
    with (
        open(answers, "rb") as lines,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=out, pass_fds=[answers_to]
        ) as compiling,
    ):
        os.close(answers_to)  # the other process has its own, and is the last to close it
        assert compiling.stdin is not None
        try:
            try:
                compiling.stdin.write(pickle.dumps((list(wanted), processes)))
                compiling.stdin.close()
            except BrokenPipeError:  # it ended already: what is left is said below
                pass
            for line in lines:
                number, _, reason = line.decode().rstrip("\n").partition(" ")
                one = left.pop(int(number))
                if reason:
                    failures[one] = reason
                done()
        except BaseException:
            compiling.send_signal(signal.SIGINT)
            raise
    return failures | dict.fromkeys(left.values(), f"its process ended with status {compiling.returncode}")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _end_with_the_parent() -> None:
    """Have the system end this process when the thread that started it ends, also by `kill -9`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _begin_as_a_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_the_parent()


def main(answers_to: int) -> int:
    """Compile the pickled variants on standard input; write the number of each and why it failed, in any order.

    `answers_to` is an open file: standard output may have what a compiler or a library prints.
    """
    _end_with_the_parent()
    wanted, processes = pickle.load(sys.stdin.buffer)
    count = min(processes or len(os.sched_getaffinity(0)), MOST_PROCESSES, len(wanted))
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin_as_a_worker)
    try:
        futures = {pool.submit(compile_into_cache, one): number for number, one in enumerate(wanted)}
        for future in as_completed(futures):
            os.write(answers_to, f"{futures[future]} {future.result()}\n".encode())
    except (BrokenProcessPool, BrokenPipeError, KeyboardInterrupt):
        return 1
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
