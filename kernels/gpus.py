"""The GPUs that kernels are planned and compiled for, and which one a tensor is on."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

MIB = 1 << 20
REGISTERS_OF_A_MULTIPROCESSOR = 1 << 16
MOST_REGISTERS = 255  # of a thread
SECTOR_BYTES = 32  # what an NVIDIA GPU moves between its caches and memory at the least


@dataclass(frozen=True)
class Gpu:
    """What a plan depends on."""

    name: str
    capability: int
    """10 * major + minor, 90 for Hopper"""
    multiprocessors: int
    l2_bytes: int
    memory_gbps: float
    """what its memory moves, 10^9 bytes a second"""


# One GPU of each architecture that kernels are compiled for, from NVIDIA's data sheets.
GPUS = {
    gpu.capability: gpu
    for gpu in (
        Gpu("NVIDIA A100", 80, 108, 40 * MIB, 1555),
        Gpu("NVIDIA GeForce RTX 3090", 86, 82, 6 * MIB, 936),
        Gpu("NVIDIA GeForce RTX 4090", 89, 128, 72 * MIB, 1008),
        Gpu("NVIDIA H200", 90, 132, 60 * MIB, 4800),
        Gpu("NVIDIA B200", 100, 148, 126 * MIB, 8000),
        Gpu("NVIDIA GeForce RTX 5090", 120, 170, 96 * MIB, 1792),
    )
}
_planned_for = [GPUS[90]]


def file_name(device: str) -> str:
    """What a device is called in the name of a file."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


def gpu_of(x: Tensor) -> Gpu:
    """The GPU that x is on; for a tensor elsewhere, as in the interpreter, an H200 or what `planning_for` says."""
    return _gpu(x.device.index) if x.is_cuda else _planned_for[-1]


@contextmanager
def planning_for(gpu: Gpu) -> Iterator[None]:
    """Plan for `gpu` what is not on any GPU."""
    _planned_for.append(gpu)
    try:
        yield
    finally:
        _planned_for.pop()


@functools.cache
def _gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    capability = 10 * properties.major + properties.minor
    like = GPUS[max((known for known in GPUS if known <= capability), default=min(GPUS))]
    return Gpu(
        properties.name, capability, properties.multi_processor_count, properties.L2_cache_size, like.memory_gbps
    )
