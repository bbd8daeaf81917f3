"""Asks the profiler for the time of every kernel and copy that a GPU carried out, as CUPTI saw them.

Events say when work began and ended; the sum of its kernels' times leaves out what lies between them. The difference is
what launches cost, and what the device waits for. Kernels that run at the same time count with the whole time of each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity

NO_KERNELS = "the profiler saw no kernel: CUPTI is missing, or another profiler has it"


@dataclass(frozen=True)
class KernelTime:
    """Holds the microseconds that a kernel took."""

    name: str
    us: float


def profiled_kernels(run: Callable[[], Any], device: torch.device) -> list[KernelTime]:
    """Return each kernel and copy that the GPU carries out for `run`; an empty list where the profiler sees none.

    The profiler slows the host down: kernels take as long with it, what lies between them takes longer.
    """
    supported = torch.profiler.supported_activities()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if ProfilerActivity.CUDA not in supported:
        return []
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize(device)
    return [
        KernelTime(event.name, event.device_time_total)
        for event in profiler.events() or []
        if event.device_type.name == "CUDA"
    ]
