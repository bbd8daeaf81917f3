"""Divides planes among programs so that the waves of a launch are nearly full, and says what that is thought to take.

A GPU holds so many programs at once: its places. The programs of a launch go through them in waves. A program's time is
that of its own loads, one after the other, however few others run: a last wave of eight programs takes as long as one
that is full. Behind one full wave it doubles the launch's time, behind eight it adds an eighth. So the number of splits
of a plane is chosen such that all waves of a launch together are full, or nearly.

Times here only compare plans with one another. Nothing was measured for them yet.
"""

import functools
from dataclasses import dataclass

from ..gpus import Gpu

WHOLE = 0.8
"""the least part of the places of all its waves together that a launch should fill"""
MOST_WAVES = 8
LAUNCH_US = 3.0  # one more launch fills and drains a GPU; assumed, with a margin
PROGRAM_US = 1.0  # from a program's start to its first tile: statistics, a pivot, sums of the splits; assumed


def last_wave(programs: int, places: int) -> float:
    """Return which part of its places the last wave of a launch fills."""
    return (programs % places or places) / places


def filled(programs: int, places: int) -> float:
    """Return which part of the places of all its waves a launch fills."""
    return programs / (-(-programs // places) * places)


def is_whole(programs: int, places: int) -> bool:
    """Return whether the waves of a launch are nearly full, or are only one, for which none has to wait."""
    return programs <= places or filled(programs, places) >= WHOLE


@dataclass(frozen=True)
class Division:
    """Says how many pixels of its plane each program has in one phase, and how long the phase is thought to take."""

    pixels_per_program: int
    us: float


@functools.lru_cache(maxsize=4096)
def in_whole_waves(pixels: int, least: int, planes: int, places: int, pixel_us: float) -> Division:
    """Return the fastest division whose waves are nearly full, or the fastest of all where there is none.

    Args:
        pixels: pixels of a plane.
        least: pixels of a program below which dividing further gains nothing.
        planes: blocks of channels of all images in a launch; none shares a program with another.
        places: programs that the GPU holds at once.
        pixel_us: microseconds for one pixel of a block of channels while all places are taken.
    """
    found = []
    for waves in range(1, MOST_WAVES + 1):
        splits = min(max(1, waves * places // planes), max(1, pixels // least))
        share = -(-pixels // splits)
        programs = planes * -(-pixels // share)
        us = LAUNCH_US + -(-programs // places) * (PROGRAM_US + share * pixel_us)
        found.append((filled(programs, places) < WHOLE, us, share))
    _, us, share = min(found)
    return Division(share, us)


def reading_gbps(gpu: Gpu, in_flight_bytes: int) -> float:
    """Return how fast the second phase reads again what the first one read: from the L2 cache where all of it fits."""
    return max(gpu.memory_gbps, gpu.l2_gbps) if in_flight_bytes <= gpu.l2_bytes else gpu.memory_gbps
