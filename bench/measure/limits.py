"""Measures how fast this machine is at the two things that bound everything: moving bytes and multiplying matrices."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.measure.timing import Contender, Race
from cyclegan_fast.system.device import has_bfloat16, name_of
from cyclegan_fast.system.files import write_atomically

ROUNDS = {"cuda": 20, "cpu": 7}
MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}
_COPIED_BYTES = {"cuda": 2 << 30, "cpu": 512 << 20}
TINY_SIDE, TINY_BYTES = 256, 4 << 20
"""The sizes in a rehearsal, whose numbers mean nothing."""


@dataclass(frozen=True)
class Workload:
    """Says what a computation cannot do without, whatever carries it out."""

    moved_bytes: int
    """bytes of its inputs, each read once, and of its outputs, each written once"""
    operations: int
    """a multiply-add is two"""


UNBOUNDED = Workload(0, 0)
"""The workload of what the host does: the device's limits say nothing about it."""


@dataclass(frozen=True)
class Limits:
    """Holds a machine's limits as they were measured, not looked up."""

    copy_gbps: float
    """10^9 bytes a second, read and written, in a copy of a tensor far larger than any cache"""
    matrix_tflops: dict[str, float]
    """by dtype: 10^12 operations a second of a large matrix product, a multiply-add being two; on a GPU float32 is
    TF32, which cuDNN computes in unless told otherwise"""

    def __str__(self) -> str:
        peaks = ", ".join(f"{tflops:.3g} TFLOP/s in {dtype}" for dtype, tflops in self.matrix_tflops.items())
        return f"copies {self.copy_gbps:.0f} GB/s, multiplies {peaks}"

    def seconds(self, moved_bytes: int, operations: int, dtype: str) -> float:
        """Return the seconds that no computation which moves so much and computes so much can beat."""
        return max(moved_bytes / (self.copy_gbps * 1e9), operations / (self.matrix_tflops[dtype] * 1e12))


def dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """Return the precisions that are worth measuring there: those that the hardware has instructions for."""
    if device.type == "cuda":
        return (torch.float32, torch.float16, *((torch.bfloat16,) if has_bfloat16(device) else ()))
    return (torch.float32, *((torch.bfloat16,) if has_bfloat16(device) else ()))


def measure_limits(device: torch.device, *, tiny: bool = False) -> Limits:
    """Measure the device; return the best of a few rounds, since a limit is what was reached once.

    With `tiny` the operands are so small that the result means nothing.
    """
    side = TINY_SIDE if tiny else MATRIX_SIDE[device.type]
    copied_bytes = TINY_BYTES if tiny else _COPIED_BYTES[device.type]
    started = time.perf_counter()
    while time.perf_counter() - started < 0.3:  # clocks rise under load
        _products(device, torch.float32, side)[0]()
        if device.type == "cuda":  # otherwise hundreds are launched, and the GPU is busy with them for a second
            torch.cuda.synchronize(device)
    return Limits(
        copy_gbps=_copy_gbps(device, copied_bytes),
        matrix_tflops={
            name_of(dtype): 2 * side**3 / _best(device, _products(device, dtype, side)) / 1e12
            for dtype in dtypes(device)
        },
    )


def measured_once(device: torch.device, path: Path, *, tiny: bool = False) -> Limits:
    """Return the limits that the file holds; where there is none, measure them and write it."""
    if path.exists():
        return Limits(**json.loads(path.read_text()))
    found = measure_limits(device, tiny=tiny)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(found)).encode())
    return found


def _copy_gbps(device: torch.device, copied_bytes: int) -> float:
    source = torch.randn(copied_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * copied_bytes / _best(device, [lambda: target.copy_(source)]) / 1e9


def _best(device: torch.device, calls: list[Callable[[], Tensor]]) -> float:
    """Return the seconds of the fastest call seen."""
    contenders = {str(index): Contender([call]) for index, call in enumerate(calls)}
    race = Race(device, contenders, "0", in_one_thread=torch.get_num_threads() == 1)
    race.run(ROUNDS[device.type])
    return min(min(seconds) for seconds in race.seconds.values())


def _products(device: torch.device, dtype: torch.dtype, side: int) -> list[Callable[[], Tensor]]:
    """Return calls that multiply matrices of that side; on a CPU also as a 1x1 convolution, which oneDNN computes.

    The library behind PyTorch's float32 product (MKL) leaves AVX-512 idle on AMD's processors.
    """
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    if device.type == "cuda":
        return [lambda: _with_tf32(lambda: one @ other)]
    image = one.view(1, 64, side // 64, side).permute(0, 3, 1, 2)
    return [lambda: one @ other, lambda: F.conv2d(image, other[:, :, None, None])]


def _with_tf32(product: Callable[[], Tensor]) -> Tensor:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return product()
    finally:
        torch.set_float32_matmul_precision(before)
