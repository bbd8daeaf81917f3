"""Finds how many programs of a kernel are resident on a multiprocessor, from what the compiler made of it."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.modelling.assumptions import REGISTER_UNIT, RESERVED_SHARED_BYTES, GpuFacts
from cyclegan_fast.kernels.aot import compile_all
from cyclegan_fast.kernels.checking.specialisations import Specialisation
from cyclegan_fast.kernels.gpus import REGISTERS_OF_A_MULTIPROCESSOR
from cyclegan_fast.kernels.plans import ceil_div


@dataclass(frozen=True)
class ProgramNeeds:
    """Holds what one program takes of a multiprocessor."""

    warps: int
    registers: int
    """for one thread"""
    shared_bytes: int

    def resident(self, facts: GpuFacts) -> int:
        """Return how many programs a multiprocessor holds at once; 0 where it cannot hold one."""
        registers_of_a_warp = ceil_div(32 * self.registers, REGISTER_UNIT) * REGISTER_UNIT
        return min(
            facts.programs,
            facts.threads // (32 * self.warps),
            REGISTERS_OF_A_MULTIPROCESSOR // registers_of_a_warp // self.warps,
            facts.shared_bytes // (self.shared_bytes + RESERVED_SHARED_BYTES),
        )


def compiled_needs(
    variants: Iterable[Specialisation], done: Callable[[int, int], None]
) -> dict[Specialisation, ProgramNeeds]:
    """Compile each variant once, in all cores, and return what its programs need.

    `done` is called with the number of variants that are through, and the number of all. Triton keeps what it compiled
    on disk. Not in a process where its interpreter is on, which compiles nothing.
    """
    wanted = list(dict.fromkeys(variants))
    found = {}
    for report in compile_all(wanted, min(len(os.sched_getaffinity(0)), len(wanted))):
        warps = int(dict(report.specialisation.options)["num_warps"])
        found[report.specialisation] = ProgramNeeds(warps, report.registers, report.shared_bytes)
        done(len(found), len(wanted))
    return found
