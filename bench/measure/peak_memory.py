"""Measures a contender's tensor memory at its highest, from nothing to the end of its first calls."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from bench.measure.live_memory import BYTES_PER_GIB, live_memory

Made = TypeVar("Made")


def followed(device: torch.device, make: Callable[[], Made], run: Callable[[Made], object]) -> tuple[Made, float]:
    """Call `make`, then `run` with what it returns; return that, and the most GiB of tensors alive meanwhile.

    On a GPU PyTorch's allocator counts. On a CPU the tensors that PyTorch's operators return are counted: what an
    operator allocates and frees inside itself is not seen there, nor what another thread computes.
    """
    if device.type == "cuda":
        # A graph and what it records hold each other: only a collection frees graphs that are no longer used.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        made = make()
        run(made)
        torch.cuda.synchronize(device)
        return made, (torch.cuda.max_memory_allocated(device) - before) / BYTES_PER_GIB
    with live_memory("cpu") as memory:
        made = make()
        run(made)
    return made, memory.peak / BYTES_PER_GIB
