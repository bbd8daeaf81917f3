"""Run in a process of its own, without the interpreter: what `bench.new_gpu.later_launches` leaves out."""

import sys
from collections.abc import Iterator
from functools import partial

import torch

from bench.new_gpu.extent import PAPER_EXTENT
from bench.new_gpu.later_launches import META, later_launches, trials_in_order
from bench.tuning.trials import batches_of_a_step
from cyclegan_fast.kernels.checking.sites import run_backward, run_forward
from cyclegan_fast.kernels.checking.specialisations import recorded_launches, specialisations
from cyclegan_fast.kernels.gpus import GPUS, planning_for

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GPU = GPUS[90]


def faults() -> Iterator[str]:
    """Sentences about what is not as it should be."""
    listed = later_launches(PAPER_EXTENT, DTYPES, PAPER_EXTENT.visits, GPU)
    place = {variant: number for number, variant in enumerate(listed)}
    if len(place) != len(listed):
        yield "a variant is listed twice"
    # Every norm of a step, at all batches that a network sees in it.
    last = 0
    with planning_for(GPU):
        for site in PAPER_EXTENT.sites:
            for batch in (images for step in PAPER_EXTENT.batches for images in batches_of_a_step(step)):
                operands = site.operands(batch, torch.bfloat16, "meta")
                statistics = torch.empty((batch, 3, site.channels), device="meta")
                for run in (partial(run_forward, site, operands), partial(run_backward, site, operands, statistics)):
                    for variant in recorded_launches(run, GPU):
                        if variant not in place:
                            yield f"a step launches {variant}, which is not listed"
                        else:
                            last = max(last, place[variant])
    if last > 100:
        yield f"the steps' own launches end at place {last}"
    tried = 0
    for task, plan in trials_in_order(PAPER_EXTENT, torch.bfloat16, PAPER_EXTENT.visits, GPU):
        for variant in recorded_launches(partial(task.run_once, plan, META, GPU), GPU):
            tried += 1
            if variant not in place:
                yield f"{task.key} tries {variant}, which is not listed"
    if tried < 1000:
        yield f"the tuner launches {tried} variants only"
    missing = set(specialisations(90, DTYPES, (1, 16))) - set(listed)
    print(f"{len(listed)} variants are listed; kernels.aot compiles {len(missing)} others")


def main() -> int:
    found = list(faults())
    print("\n".join(found[:20]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
