"""Measures where a training step's time goes on a GPU: convolution, norm, optimiser, copies, gaps."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from bench.cases.plain_cyclegan import PAPER_SIZE, PlainNetworkSize
from bench.cases.training_step import Steps
from bench.measure.kernel_times import NO_KERNELS, KernelTime, profiled_kernels
from cyclegan_fast.system.device import working_dtype
from cyclegan_fast.system.errors import UserError

STEPS = 10
LISTED = 12

KINDS = (
    ("fused norms", ("instance_norm",)),
    ("reflection padding", ("reflection_pad",)),
    ("copies and layout", ("nchwtonhwc", "nhwctonchw", "memcpy", "memset", "copy", "transpose", "fill", "catarray")),
    ("optimiser", ("adam", "multi_tensor", "foreach")),
    (
        "convolutions",
        ("conv", "gemm", "cutlass", "cudnn", "xmma", "wgrad", "dgrad", "fprop", "cublas", "sm90_", "sm80_"),
    ),
)
"""The kinds of kernels by words in their names; the first that fits counts."""
_REST = "other"


@dataclass(frozen=True)
class GpuStepProfile:
    """Holds the microseconds of one step, by kind of kernel, and its slowest kernels."""

    wall_us: float
    kinds_us: dict[str, float]
    slowest: list[KernelTime]

    @property
    def gaps_us(self) -> float:
        """Return the microseconds in which no kernel ran; 0 where kernels overlap."""
        return max(0.0, self.wall_us - sum(self.kinds_us.values()))

    def described(self) -> str:
        """Return the times and their shares of the step, a line for each kind and each of the slowest kernels."""
        lines = [f"a step of ours takes {self.wall_us / 1e3:.2f} ms; of that"]
        rows = [*sorted(self.kinds_us.items(), key=lambda row: -row[1]), ("gaps between kernels", self.gaps_us)]
        lines += [f"  {kind:<22} {us / 1e3:8.3f} ms {us / self.wall_us:6.1%}" for kind, us in rows]
        lines.append("the slowest kernels, all their launches together:")
        lines += [f"  {kernel.us / 1e3:8.3f} ms  {kernel.name[:110]}" for kernel in self.slowest]
        return "\n".join(lines)


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel by its name."""
    lower = kernel.lower()
    return next((kind for kind, words in KINDS if any(word in lower for word in words)), _REST)


def summed(kernels: Iterable[KernelTime], wall_us: float, steps: int) -> GpuStepProfile:
    """Return the profile of one step from every kernel of so many steps, which took `wall_us` together."""
    by_name: dict[str, float] = {}
    for kernel in kernels:
        by_name[kernel.name] = by_name.get(kernel.name, 0.0) + kernel.us / steps
    kinds: dict[str, float] = {}
    for name, us in by_name.items():
        kinds[kind_of(name)] = kinds.get(kind_of(name), 0.0) + us
    slowest = sorted((KernelTime(name, us) for name, us in by_name.items()), key=lambda kernel: -kernel.us)
    return GpuStepProfile(wall_us / steps, kinds, slowest[:LISTED])


def profile_step(
    device: torch.device, side: int = 256, batch: int = 1, size: PlainNetworkSize = PAPER_SIZE, steps: int = STEPS
) -> GpuStepProfile:
    """Profile steps of ours with --amp as they are trained, replayed from their graph."""
    low, _ = working_dtype(device, amp=True, amp_dtype="auto")
    step = Steps(side, batch, device, low, lambda name: False, size).ours()
    for _ in range(5):
        step()
    torch.cuda.synchronize(device)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    began.record()
    for _ in range(steps):
        step()
    ended.record()
    torch.cuda.synchronize(device)
    wall_us = began.elapsed_time(ended) * 1e3
    # The steps above were timed without the profiler, which slows the host down; kernels take as long with it.
    kernels = profiled_kernels(lambda: [step() for _ in range(steps)], device)
    if not kernels:
        raise UserError(NO_KERNELS)
    return summed(kernels, wall_us, steps)
