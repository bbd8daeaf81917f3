"""Compiles variants into Triton's cache in all cores, in processes that a process of their own starts.

A process of multiprocessing imports the program that it was started from. Where that is somebody's script without
`if __name__ == "__main__"`, it would begin to train again: hence this module is run by its name, and starts them.
"""

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
    command = [sys.executable, "-m", _MODULE]
    failures: dict[Specialisation, str] = {}
    left = dict(enumerate(wanted))
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as compiling:
        assert compiling.stdin is not None
        assert compiling.stdout is not None
        try:
            try:
                compiling.stdin.write(pickle.dumps((list(wanted), processes)))
                compiling.stdin.close()
            except BrokenPipeError:  # it ended already: what is left is said below
                pass
            for line in compiling.stdout:
                number, _, reason = line.decode().rstrip("\n").partition(" ")
                one = left.pop(int(number))
                if reason:
                    failures[one] = reason
                done()
        except BaseException:
            compiling.send_signal(signal.SIGINT)
            raise
    return failures | dict.fromkeys(left.values(), f"its process ended with status {compiling.returncode}")


def main() -> int:
    """Compile the pickled variants on standard input; write the number of each and why it failed, in any order."""
    wanted, processes = pickle.load(sys.stdin.buffer)
    count = min(processes or len(os.sched_getaffinity(0)), MOST_PROCESSES, len(wanted))
    pool = ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        futures = {pool.submit(compile_into_cache, one): number for number, one in enumerate(wanted)}
        for future in as_completed(futures):
            print(futures[future], future.result(), flush=True)
    except (BrokenProcessPool, KeyboardInterrupt):
        return 1
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
