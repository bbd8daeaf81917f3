"""Lets the programs of a launch that share a plane wait for one another: each holds its part of it on chip."""

from typing import Any

import torch
from torch import Tensor

from ..gpus import gpu_of
from ..triton_language import INTERPRETED, tl, triton
from .planning import NormPlan, places


@triton.jit
def arrive_and_wait(arrivals_ptr, group, splits):
    """Wait until all `splits` programs of this plane have arrived here.

    `arrivals_ptr` + `group` counts them, int32 from 0. A cooperative launch guarantees that all programs are resident
    at once, without which this would wait forever.
    """
    tl.debug_barrier()  # every thread's partials are written before the one arrival below publishes them
    tl.atomic_add(arrivals_ptr + group, 1, sem="release")
    while tl.atomic_add(arrivals_ptr + group, 0, sem="acquire") < splits:
        pass
    # The loop's own lowering has a barrier behind each look at the counter, which orders as much. This barrier keeps
    # the protocol right if a compiler finds another way to tell all threads; compared with the wait it costs nothing.
    tl.debug_barrier()


def cooperate(plan: NormPlan, x: Tensor, values: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments and launch options that an on-chip kernel needs beside its operands.

    Where one program holds a plane, the arguments are placeholders. Else they have memory for partials
    [N, splits, values, C] and for a counter of arrivals for each block of channels of each image.

    Raises RuntimeError in Triton's interpreter, and ValueError where the programs do not all fit the GPU at once.
    """
    batch, channels, height, width = x.shape
    splits = plan.programs(height * width)
    if plan.variant == "on_chip":
        assert splits == 1, f"a tile of {plan.block_pixels} pixels cannot hold a plane of {height}x{width}"
        return {"splits": 1, "partial_ptr": x, "arrivals_ptr": x, "COOPERATIVE": False}, {}
    if INTERPRETED:
        raise RuntimeError(
            "the cooperative variant waits for programs that run at the same time, which Triton's interpreter does not "
            "have; run it on a GPU"
        )
    blocks = plan.blocks(channels)
    resident = places(plan, gpu_of(x))
    if splits * blocks * batch > resident:
        raise ValueError(
            f"the cooperative plan needs {splits * blocks * batch} programs at once for {tuple(x.shape)}, "
            f"{gpu_of(x).name} holds {resident}: take it out of the tuned table"
        )
    partials = torch.empty((batch, splits, values, channels), dtype=torch.float32, device=x.device)
    arrivals = torch.zeros(batch * blocks, dtype=torch.int32, device=x.device)
    arguments = {"splits": splits, "partial_ptr": partials, "arrivals_ptr": arrivals, "COOPERATIVE": True}
    return arguments, {"launch_cooperative_grid": True}
