"""Describes the GPUs that kernels are planned and compiled for, and finds the one that a tensor is on."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

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
    l2_gbps: float
    """10^9 bytes a second from its L2 cache to all multiprocessors"""


# This has one GPU of each architecture that kernels are compiled for, with figures from NVIDIA's data sheets. The last
# one, the L2 cache's bandwidth, is an assumption: data sheets do not have it, and this project has not measured it.
GPUS = {
    gpu.capability: gpu
    for gpu in (
        Gpu("NVIDIA A100", 80, 108, 40 * MIB, 1555, 4000),
        Gpu("NVIDIA GeForce RTX 3090", 86, 82, 6 * MIB, 936, 2500),
        Gpu("NVIDIA GeForce RTX 4090", 89, 128, 72 * MIB, 1008, 4500),
        Gpu("NVIDIA H200", 90, 132, 60 * MIB, 4800, 6600),
        Gpu("NVIDIA B200", 100, 148, 126 * MIB, 8000, 10000),
        Gpu("NVIDIA GeForce RTX 5090", 120, 170, 96 * MIB, 1792, 6000),
    )
}
_planned_for = [GPUS[90]]

# What a multiprocessor holds beside registers, by compute capability: warps, programs, bytes of shared memory, from the
# CUDA C++ programming guide's table of compute capabilities. Each program takes 1 KiB of shared memory for the driver.
_MOST_WARPS = {80: 64, 86: 48, 89: 48, 90: 64, 100: 64, 120: 48}
_MOST_PROGRAMS = {80: 32, 86: 16, 89: 24, 90: 32, 100: 32, 120: 24}
_SHARED_KIB = {80: 164, 86: 100, 89: 100, 90: 228, 100: 228, 120: 100}
_RESERVED_BYTES = 1024
_PARTITIONS = 4  # of a multiprocessor; each has a quarter of the registers, which it gives to whole warps


def resident_programs(capability: int, num_warps: int, registers: int, shared_bytes: int = 0) -> int:
    """Return how many programs a multiprocessor holds at once.

    Args:
        capability: 10 * major + minor; one that is not known counts as the next smaller one that is.
        num_warps: warps of a program.
        registers: registers of a thread; a warp takes them in units of 256.
        shared_bytes: shared memory of a program.
    """
    known = _nearest(capability)
    of_a_warp = 256 * -(-32 * registers // 256)
    warps = min(_MOST_WARPS[known], _PARTITIONS * (REGISTERS_OF_A_MULTIPROCESSOR // _PARTITIONS // of_a_warp))
    by_memory = (_SHARED_KIB[known] << 10) // (shared_bytes + _RESERVED_BYTES)
    return min(warps // num_warps, _MOST_PROGRAMS[known], by_memory)


def most_registers(num_warps: int, programs: int) -> int:
    """Return the most registers of a thread with which a multiprocessor holds so many programs at once."""
    return min(MOST_REGISTERS, REGISTERS_OF_A_MULTIPROCESSOR // (programs * 32 * num_warps) // 8 * 8)


def _nearest(capability: int) -> int:
    return max((known for known in GPUS if known <= capability), default=min(GPUS))


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
    like = GPUS[_nearest(capability)]
    return replace(
        like,
        name=properties.name,
        capability=capability,
        multiprocessors=properties.multi_processor_count,
        l2_bytes=properties.L2_cache_size,
    )
