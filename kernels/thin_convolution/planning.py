"""Decides into how many programs a thin convolution's kernels are divided: a pure function of shapes and GPU.

`plans.thin_plan` says how long the strips are. No division was measured yet. A program walks down the rows of a strip,
and what it does beside its rows is counted in rows.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from ..gpus import MOST_REGISTERS, Gpu, resident_programs
from ..norm.planning import ceil_div, power_of_two

SLOTS = 4
"""columns of a tap: the channels of a thin tensor's group that a program has; others are those of other programs"""
MOST_THIN = 16
"""channels of a thin tensor's group: with more a library has few idle lanes, and a program for each four reads much"""
MOST_CHANNELS = 128
"""of a wide tensor's group: a program holds all of them, and the weights with them, in shared memory"""
LARGEST_KERNEL = 7
"""taps of a row: their columns are the 32 of a matrix product, and each has its sums in registers"""
ASYNCHRONOUS = (90, 100)
"""compute capabilities whose tensor cores read from shared memory while a program goes on: wgmma and tcgen05"""
_WARPS, _STAGES = 4, 3
_START_ROWS = 3
"""rows that a program could walk while it starts and ends, or begins another unit (assumed)"""
_ALONE = 1.5
"""the time of a program that has a multiprocessor for itself, over that of one of several, which share tensor cores and
compute while others wait (assumed)"""
_OPTIONS = {"num_warps": _WARPS, "num_stages": _STAGES, "maxnreg": MOST_REGISTERS}


@dataclass(frozen=True)
class ThinDivision:
    """Says how the pixels of a launch are divided among programs."""

    block_pixels: int
    """pixels of a strip; the last K - 1 of them belong to the next one too, where the result is thin"""
    strips: int
    chunks: int
    """parts of an image's rows"""
    rows: int
    """of a chunk"""
    units_per_program: int
    """strips of chunks that each program adds up, one after the other"""

    @property
    def options(self) -> dict[str, int]:
        return _OPTIONS


@functools.lru_cache(maxsize=1024)
def divided_forward(
    pixels: int, batch: int, groups: int, height: int, width: int, kernel: int, gpu: Gpu
) -> ThinDivision:
    """Divide a launch that writes a thin result [N, G * thin, H, W], in strips of so many pixels.

    `groups` are those of the channels that programs have: several for each of the convolution's where it has more.

    Each program computes K - 1 rows above its own as well, whose sums the program above has.
    """
    strips = ceil_div(width, pixels - kernel + 1)

    def cost(chunks: int) -> tuple[float, int]:
        held = ceil_div(batch * groups * strips * chunks, gpu.multiprocessors)
        return max(held, _ALONE) * (ceil_div(height, chunks) + kernel - 1 + _START_ROWS), chunks

    chunks = min(_divisions(height), key=cost)
    rows = ceil_div(height, chunks)
    return ThinDivision(pixels, strips, chunks, rows, 1)


@functools.lru_cache(maxsize=1024)
def divided_wgrad(pixels: int, batch: int, groups: int, height: int, width: int, gpu: Gpu) -> ThinDivision:
    """Divide a launch that sums up the weights' gradient over a wide tensor [N, G * wide, H, W].

    There is no more than one program for each place of the GPU: each writes its sums once, and they are added up.
    `groups` is as in `divided_forward`.
    """
    strips = ceil_div(width, pixels)
    programs = max(1, _places(gpu) // groups)

    def cost(chunks: int) -> tuple[int, int]:
        units = ceil_div(batch * strips * chunks, programs)
        return units * (ceil_div(height, chunks) + _START_ROWS), chunks

    chunks = min(_divisions(height), key=cost)
    rows = ceil_div(height, chunks)
    return ThinDivision(pixels, strips, chunks, rows, ceil_div(batch * strips * chunks, programs))


def _divisions(rows: int) -> Iterable[int]:
    """Yield numbers of chunks, no two of which have as many rows, and none of which is empty."""
    return dict.fromkeys(ceil_div(rows, ceil_div(rows, chunks)) for chunks in range(1, rows + 1))


def _places(gpu: Gpu) -> int:
    """Return how many programs a GPU holds at once if they take all registers that they may."""
    return gpu.multiprocessors * resident_programs(gpu.capability, _WARPS, MOST_REGISTERS)


def block_of(channels: int) -> int:
    """Return the channels of a tile: matrix instructions take at least 16."""
    return max(16, power_of_two(channels))


def blocks_of(thin: int) -> int:
    """Return how many programs have a part of the channels of a thin tensor's group each."""
    return ceil_div(thin, SLOTS)


def columns_of(kernel: int) -> int:
    """Return the columns of the product, of which each tap has `SLOTS`."""
    return SLOTS * power_of_two(kernel)
