"""Compiles in all cores what will be launched, so that nothing waits for a compiler later.

Triton compiles a kernel at its first launch, one after the other, and keeps what it made on disk. Here launches are
recorded on tensors without storage, and other processes then compile them through the same call that a launch makes:
later launches, of any process, find everything on disk.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch

from ..triton_language import INTERPRETED
from .specialisations import TYPE_NAMES, Specialisation

DTYPE_OF = {name: dtype for dtype, name in TYPE_NAMES.items()}
NOT_SPECIAL = {"i32": 3, "i64": 2**31 + 1, "fp32": 0.5}
"""values that Triton does not specialise a kernel for, by their type in a signature"""
MOST_PROCESSES = 16


def compile_ahead(
    wanted: Iterable[Specialisation], processes: int | None, done: Callable[[int, int], None], until_s: float = math.inf
) -> dict[Specialisation, str]:
    """Compile for the current GPU, load what was compiled, and return why where that failed.

    Args:
        wanted: from `recorded_launches`, planned for this GPU; the first ones are compiled first.
        processes: how many compile at a time; None for all cores. Each has a CUDA context of its own.
        done: is called with the number of variants that are through, and the number of all.
        until_s: the time by `time.monotonic()` after which no variant is begun; the rest compiles at its first launch.

    Raises RuntimeError in Triton's interpreter, which compiles nothing.
    """
    if INTERPRETED:
        raise RuntimeError("Triton's interpreter compiles nothing: unset TRITON_INTERPRET")
    everything = list(wanted)
    failures: dict[Specialisation, str] = {}
    if not everything:
        return failures
    count = min(processes or len(os.sched_getaffinity(0)), MOST_PROCESSES, len(everything))
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    try:
        futures = {pool.submit(compile_as_launched, one): one for one in everything}
        left_s = None if until_s == math.inf else max(0.0, until_s - time.monotonic())
        for number, future in enumerate(as_completed(futures, left_s), 1):
            reason = future.result()
            if reason:
                failures[futures[future]] = reason
            done(number, len(everything))
    except TimeoutError:
        pass
    except BrokenProcessPool:  # a compiler crashed its process: the variant's own launch will tell
        print(
            "a process that compiles ahead died; what it and others had left compiles at first launch", file=sys.stderr
        )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return failures


def compile_as_launched(specialisation: Specialisation) -> str:
    """Compile and load one variant as its first launch would; return why it failed, or nothing."""
    try:
        _ = warm_up(specialisation).run  # this loads it, and builds its launcher
    except Exception as error:  # whatever a compiler raises is reported, and the next variant follows
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ""


def warm_up(specialisation: Specialisation) -> Any:
    """Return Triton's compiled kernel of a variant, from its cache or its compiler, and load it nowhere."""
    kernel = specialisation.jit
    arguments = [_argument(specialisation, name) for name in kernel.arg_names]
    return kernel.warmup(*arguments, grid=(1, 1, 1), **dict(specialisation.options))


def _argument(specialisation: Specialisation, name: str) -> Any:
    """Return a value that makes Triton compile this variant; a dtype stands for a tensor of it."""
    constants = dict(specialisation.constants)
    if name in constants:
        return constants[name]
    kind = dict(specialisation.signature)[name]
    if isinstance(kind, tuple):
        return tuple(
            _stand_in(DTYPE_OF[of_one[1:]], f"{name}.{index}" in specialisation.divisible)
            for index, of_one in enumerate(kind)
        )
    if kind.startswith("*"):
        return DTYPE_OF[kind[1:]]
    return 16 if name in specialisation.divisible else NOT_SPECIAL[kind]


def _stand_in(dtype: torch.dtype, is_aligned: bool) -> Any:
    """Return what Triton takes for a tensor inside a tuple, where a dtype by itself does not do."""
    from triton.runtime.jit import MockTensor

    tensor = MockTensor(dtype)
    if not is_aligned:
        tensor.data_ptr = lambda: 2
    return tensor
