"""Sets up the process of a command, its environment and threads; says how much memory is free, and frees some.

Importing it needs no PyTorch, whose libraries read the environment as they are loaded.
"""

import ctypes
import os
import resource
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import brief
from cyclegan_fast.system.shortage import is_out_of_threads

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which users say how OpenMP's threads wait for one another: GNU's OpenMP reads the first two, LLVM's and
Intel's all but the second."""

SPINS = "20000"
"""Rounds of GNU's OpenMP before a waiting thread sleeps; 300000 by default. On a quiet machine that costs nothing, and
sleeping at once 12 to 42 %; on a busy one images of 256x256 take 0.58 of the time (LOG.md, 2026-11-29)."""

CACHED_PRIMITIVES = "256"
"""Convolutions, each compiled for one size, that PyTorch keeps on a CPU. A generator has 7 for each size of images."""


def set_up_process() -> None:
    """Set what PyTorch's libraries read as they are loaded, here and in processes started from here.

    Commands call it before they import PyTorch; importing this package changes nothing. What the user has set stays.

    Threads of OpenMP that wait for the others sleep after a short while. By default they spin for milliseconds, which
    on a machine that is busy otherwise takes the processor from the very threads that they wait for.

    Compiled convolutions are kept in two caches, oneDNN's and that of PyTorch's layer above it. Each holds 1024 by
    default, half a MiB for each new size of images; neither forgets anything while the other remembers it.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPINS
    os.environ.setdefault("LRU_CACHE_CAPACITY", CACHED_PRIMITIVES)
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # its older name
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", CACHED_PRIMITIVES)


def check_threads(threads: int | None) -> None:
    """Raise UserError for a --threads that this machine cannot have; None leaves the number to the libraries."""
    processors = os.cpu_count() or 1
    if threads is not None and not (isinstance(threads, int) and 1 <= threads <= processors):
        raise UserError(
            f"--threads must be between 1 and {processors}, the processors of this machine, got {brief(threads)}: "
            "leave it out for all of them"
        )


def check_threads_start(threads: int) -> None:
    """Raise UserError where the system does not start so many threads, of which this is one.

    OpenMP's threads start at the first large computation, and where one does not GNU's OpenMP ends the process there.
    """
    done = threading.Event()
    others: list[threading.Thread] = []
    try:
        for _ in range(threads - 1):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            others.append(thread)
    except RuntimeError as error:
        if not is_out_of_threads(error):
            raise
        raise UserError(
            f"the system starts {len(others) + 1} of {threads} threads: give --threads {len(others) + 1}, end other "
            "programs, or raise the limits that this process has (ulimit -u, ulimit -v)"
        ) from error
    finally:
        done.set()
        for thread in others:
            thread.join()


def release_free_memory() -> None:
    """Give freed memory back to the operating system, which glibc keeps between what is in use.

    Images of many sizes leave holes of many sizes: 130 MiB after 300 sizes up to 400 pixels. It takes some
    milliseconds, and does nothing with another C library.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def installed_bytes() -> int:
    """Return the bytes of memory that this process can have at most, with those that are swapped to a disk.

    That is the machine's, or less by the limits of its container (control groups v2) and of the process (ulimit -v).
    """
    import psutil  # here, because benchmarks run where it is not installed

    swap = int(psutil.swap_memory().total)
    limits = [int(psutil.virtual_memory().total) + swap]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    with suppress(OSError, ValueError):  # there is no such file, or it says "max"
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()) + swap)
    return min(limits)


def available_bytes() -> int:
    """Return the bytes of memory that are free now.

    They are those of the machine, of its container (control groups v2), and of the addresses that this process may use
    (ulimit -v), whichever are the fewest.
    """
    import psutil  # here, because benchmarks run where it is not installed

    free = int(psutil.virtual_memory().available)
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY:
        free = min(free, max(0, addresses - int(psutil.Process().memory_info().vms)))
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        counts = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
    except OSError:
        return free  # there is no such limit here
    # Files that the system keeps in memory count as used, and give way to whoever needs room.
    in_use = int(used) - int(counts.get("inactive_file", "0"))
    return free if limit == "max" else min(free, max(0, int(limit) - in_use))
