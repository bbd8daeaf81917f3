"""Describes the GPUs that kernels are planned and compiled for, and finds the one that a tensor is on."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

MIB = 1 << 20
REGISTERS_OF_A_MULTIPROCESSOR = 1 << 16
MOST_REGISTERS = 255  # for one thread
SECTOR_BYTES = 32  # the least that an NVIDIA GPU moves between its caches and memory


@dataclass(frozen=True)
class Gpu:
    """Holds the properties of a GPU that a plan depends on."""

    name: str
    capability: int
    """10 * major + minor, 90 for Hopper"""
    multiprocessors: int
    l2_bytes: int
    memory_gbps: float
    """bandwidth of its memory, 10^9 bytes a second"""


# This has one GPU of each architecture that kernels are compiled for, with figures from NVIDIA's data sheets.
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
    """Return a device's name as it stands in the name of a file, such as "nvidia_h200"."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


def gpu_of(x: Tensor) -> Gpu:
    """Return the GPU that x is on; for a tensor on no GPU an H200, or the GPU that `planning_for` names."""
    return _gpu(x.device.index) if x.is_cuda else _planned_for[-1]


@contextmanager
def planning_for(gpu: Gpu) -> Iterator[None]:
    """Make plans for tensors that are on no GPU as if they were on `gpu`."""
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
