"""Reads what a program of a kernel takes of a multiprocessor from what the compiler made of the kernel."""

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from bench.modelling.assumptions import PARTITIONS, GpuFacts
from cyclegan_fast.kernels.aot import compile_to_cubin, compile_variant, nvidia_tool
from cyclegan_fast.kernels.checking.specialisations import Specialisation
from cyclegan_fast.kernels.gpus import resident_programs


@dataclass(frozen=True)
class ProgramNeeds:
    """Holds what one program takes of a multiprocessor."""

    warps: int
    registers: int
    """for one thread"""
    shared_bytes: int
    instructions: int
    """that a warp issues once, beside its tiles"""
    instructions_of_a_tile: int

    def resident(self, facts: GpuFacts) -> int:
        """Return how many programs a multiprocessor holds at once; 0 where it cannot hold one."""
        return resident_programs(facts.gpu.capability, self.warps, self.registers, self.shared_bytes)

    def issue_us(self, tiles: int, facts: GpuFacts) -> float:
        """Return the time in which a multiprocessor issues the instructions of one program with so many tiles."""
        instructions = self.warps * (self.instructions + tiles * self.instructions_of_a_tile)
        return instructions / (PARTITIONS * facts.clock_ghz * 1e3)


def compiled_needs(
    variants: Iterable[Specialisation], done: Callable[[int, int], None]
) -> dict[Specialisation, ProgramNeeds]:
    """Compile each variant once, in all cores, and return what its programs need.

    `done` is called with the number of variants that are through, and the number of all. Triton keeps what it compiled
    on disk. Not in a process where its interpreter is on, which compiles nothing.
    """
    wanted = list(dict.fromkeys(variants))
    found = {}
    processes = min(len(os.sched_getaffinity(0)), len(wanted))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for variant, needs in zip(wanted, pool.map(_needs_of, wanted, chunksize=4), strict=True):
            found[variant] = needs
            done(len(found), len(wanted))
    return found


def _needs_of(variant: Specialisation) -> ProgramNeeds:
    report = compile_variant(variant)
    once, of_a_tile = count_instructions(nvidia_tool("nvdisasm", "-c", compile_to_cubin(variant).asm["cubin"]))
    return ProgramNeeds(int(dict(variant.options)["num_warps"]), report.registers, report.shared_bytes, once, of_a_tile)


_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(\S.*)")
_LABEL = re.compile(r"(\.L_x_\d+):")
_BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")
_LOAD = "LDG"


def count_instructions(machine_code: str) -> tuple[int, int]:
    """Return how many instructions of a kernel a warp issues once, and how many for each tile.

    A warp comes, in what nvdisasm prints, to the first return, or jump back, that has no condition. The loop over tiles
    is the last one that loads from memory and has no such loop inside. What it may jump over with loads of its own is
    for tiles at an edge of the image, which are few: it doesn't count. Both sides of other branches count, and other
    loops count once.
    """
    lines: list[str] = []
    labels: dict[str, int] = {}
    """the number of instructions in front of each"""
    for line in map(str.strip, machine_code.splitlines()):
        if label := _LABEL.match(line):
            labels[label.group(1)] = len(lines)
        elif instruction := _INSTRUCTION.match(line):
            lines.append(instruction.group(1))
    jumps = [(at, labels[branch.group(1)]) for at, line in enumerate(lines) if (branch := _BRANCH.search(line))]
    without_condition = {at + 1 for at, line in enumerate(lines) if line.startswith("EXIT")}
    without_condition |= {at + 1 for at, to in jumps if to <= at and lines[at].startswith("BRA")}
    end = min(without_condition)
    jumps = [(at, to) for at, to in jumps if at < end]

    def loads(first: int, last: int) -> bool:
        return any(_LOAD in line for line in lines[first:last])

    loops = [(to, at + 1) for at, to in jumps if to <= at and loads(to, at)]
    if not loops:
        return end, 0
    innermost = [(to, end_) for to, end_ in loops if not any(to <= one and other < end_ for one, other in loops)]
    first, last = innermost[-1]
    left_out = sum(to - at - 1 for at, to in jumps if first < at < to < last and loads(at, to))
    return end - (last - first), last - first - left_out
