"""`python -m kernels.checking.waves`: say how full the waves are in which every norm of the networks is launched.

A GPU holds so many programs of a kernel at once as the registers and the shared memory of the compiled variant leave
room for: its places. The launches of every site are recorded on tensors without storage, their variants compiled with
no GPU present, and the programs of each launch compared with the places that there are for that very variant. A launch
leaves a gap where its waves together fill less than 80% of their places; the exit status is 1 where one does. A last
wave alone may be emptier behind many that are full: of eight waves, the last one is an eighth of the time, however few
programs it has. The table says how full it is, too.
"""

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch

from .. import triton_language
from ..aot import compile_all
from ..gpus import GPUS, Gpu, planning_for, resident_programs
from ..launching import Grid, launching_with
from ..norm.division import WHOLE, filled, is_whole, last_wave
from ..plans import NormPass
from .sites import NormSite, all_sites, run_backward, run_forward
from .specialisations import Specialisation, recorded

BATCHES = (1, 2, 8, 16, 32)
ARCHITECTURES = (90, 80, 89)
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

Places = Mapping[Specialisation, int]
"""Programs of a variant that a multiprocessor holds at once."""


@dataclass(frozen=True)
class SiteLaunch:
    """Describes the equal launches of one kernel at one site."""

    site: NormSite
    which_pass: NormPass
    batch: int
    phase: int
    """1, or 2 for the second kernel of two"""
    variant: Specialisation
    programs: int
    """programs of each launch"""
    times: int
    """launches, one after the other; the last one of a batch that is not divided evenly counts like the others"""

    @property
    def is_on_chip(self) -> bool:
        """Return whether each program holds planes as a whole, so that there is nothing to divide."""
        return self.variant.name.endswith("_on_chip")

    def leaves_a_gap(self, places: int) -> bool:
        """Return whether the waves on so many places are together less than 80% full without need.

        One launch of less than a wave leaves none where programs hold whole planes: there are no more of them.
        """
        return not is_whole(self.programs, places) if self.is_on_chip else filled(self.programs, places) < WHOLE

    def ends_nearly_empty(self, places: int) -> bool:
        """Return whether the last wave on so many places is less than 80% full, behind another one."""
        return self.programs > places and last_wave(self.programs, places) < WHOLE

    def described(self, places: int) -> str:
        """Describe programs, places, and how full the waves are, such as "2 x 1024/132 97%, last 76%".

        The last wave is named where there are others; a star marks less than a wave.
        """
        star = "*" if self.programs < WHOLE * places else ""
        often = f"{self.times} x " if self.times > 1 else ""
        last = f", last {last_wave(self.programs, places):.0%}" if self.programs > places else ""
        return f"{often}{self.programs}/{places} {filled(self.programs, places):.0%}{last}{star}"


def site_launches(gpu: Gpu, batches: Iterable[int], dtype: torch.dtype = torch.bfloat16) -> Iterator[SiteLaunch]:
    """Yield what every site of the networks launches on a GPU at 256x256, in both passes, for batches of images."""
    for batch in batches:
        for site in all_sites():
            operands = site.operands(batch, dtype, "meta")
            statistics = torch.empty((batch, 3, site.channels), device="meta")
            runs: dict[NormPass, Callable[[], object]] = {
                "forward": partial(run_forward, site, operands),
                "backward": partial(run_backward, site, operands, statistics),
            }
            for which_pass, run in runs.items():
                for phase, ((variant, programs), times) in enumerate(_counted(run, gpu).items(), 1):
                    yield SiteLaunch(site, which_pass, batch, phase, variant, programs, times)


def _counted(run: Callable[[], object], gpu: Gpu) -> Counter[tuple[Specialisation, int]]:
    """Return how often `run` launches so many programs of a variant, in the order of the first launches."""
    launched: Counter[tuple[Specialisation, int]] = Counter()

    def record(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        launched[recorded(gpu.capability, kernel, arguments, options), math.prod(grid)] += 1

    with planning_for(gpu), launching_with(record):
        run()
    return launched


def promised_places(launches: Iterable[SiteLaunch]) -> Places:
    """Return the programs that a multiprocessor holds by the registers that each variant is compiled for at most."""
    return {one.variant: _resident(one.variant, dict(one.variant.options)["maxnreg"], 0) for one in launches}


def compiled_places(launches: Iterable[SiteLaunch], processes: int | None) -> Places:
    """Compile each variant once and return the programs of it that a multiprocessor holds."""
    variants = list(dict.fromkeys(one.variant for one in launches))
    reports = compile_all(variants, processes or os.cpu_count() or 1)
    return {one.specialisation: _resident(one.specialisation, one.registers, one.shared_bytes) for one in reports}


def _resident(variant: Specialisation, registers: int, shared_bytes: int) -> int:
    return resident_programs(variant.capability, dict(variant.options)["num_warps"], registers, shared_bytes)


def waves_markdown(gpu: Gpu, launches: Sequence[SiteLaunch], places: Places) -> str:
    """Return a Markdown table: a row for each kernel of a site, a column for each number of images."""
    batches = list(dict.fromkeys(one.batch for one in launches))
    cells: dict[tuple[str, str, int], dict[int, str]] = {
        (site.name, which_pass, phase): {}
        for site in dict.fromkeys(one.site for one in launches)
        for which_pass in get_args(NormPass)
        for phase in (1, 2)
    }
    for one in launches:
        described = one.described(gpu.multiprocessors * places[one.variant])
        cells[one.site.name, one.which_pass, one.phase][one.batch] = described
    lines = [
        f"| {gpu.name}: norm, pass, launch | {' | '.join(f'N = {batch}' for batch in batches)} |",
        f"| --- | {' | '.join('---' for _ in batches)} |",
    ]
    lines += [
        f"| {name}, {which_pass}, {phase} | {' | '.join(row.get(batch, '-') for batch in batches)} |"
        for (name, which_pass, phase), row in cells.items()
        if row
    ]
    totals = (sum(one.times * one.site.times for one in launches if one.batch == batch) for batch in batches)
    return "\n".join([*lines, f"| launches of all norms | {' | '.join(map(str, totals))} |"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.waves", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--sm", type=int, nargs="+", default=ARCHITECTURES, choices=sorted(GPUS), help="architectures")
    parser.add_argument("--dtype", default="bfloat16", choices=_DTYPES, help="default: bfloat16")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, metavar="N", help="images at once")
    parser.add_argument(
        "--promised", action="store_true", help="compile nothing: places by the registers that variants have at most"
    )
    parser.add_argument("--processes", type=int, help="compilers at a time; default: one for each core")
    options = parser.parse_args(arguments)
    if reason := triton_language.reason_against_compiling():
        print(f"kernels.checking.waves {reason}", file=sys.stderr)
        return 2
    gaps = ends = 0
    for gpu in (GPUS[capability] for capability in options.sm):
        launches = list(site_launches(gpu, options.batches, _DTYPES[options.dtype]))
        places = promised_places(launches) if options.promised else compiled_places(launches, options.processes)
        print(f"{waves_markdown(gpu, launches, places)}\n", flush=True)
        gaps += sum(one.leaves_a_gap(gpu.multiprocessors * places[one.variant]) for one in launches)
        ends += sum(one.ends_nearly_empty(gpu.multiprocessors * places[one.variant]) for one in launches)
    print("Programs of a launch / places for them, how full its waves are together, and how full the last of several;")
    print("*: planes on chip, less than one wave.")
    print(f"{gaps} launches leave their waves less than {WHOLE:.0%} full")
    print(f"{ends} launches have a last wave less than {WHOLE:.0%} full behind others")
    return 1 if gaps else 0


if __name__ == "__main__":
    sys.exit(main())
