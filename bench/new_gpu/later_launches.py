"""Lists what the later phases of `bench.gpu` launch, in their order, so that it can be compiled ahead of them."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from bench.new_gpu.extent import RunExtent
from bench.tuning.trials import Plan, TuningTask, batches_of_a_step, tasks
from bench.tuning.tuner import Known, Tuner, Visit
from cyclegan_fast.kernels.checking.sites import NormSite, run_backward, run_forward
from cyclegan_fast.kernels.checking.specialisations import Specialisation, recorded_launches
from cyclegan_fast.kernels.gpus import Gpu, planning_for
from cyclegan_fast.kernels.reflection_pad import pad_backward, pad_forward

META = torch.device("meta")
IMAGE_PAD = 3  # in front of a generator's first convolution


def later_launches(
    extent: RunExtent, dtypes: Sequence[torch.dtype], visits: Sequence[Visit], gpu: Gpu
) -> list[Specialisation]:
    """Return each variant once: of a step by built-in plans, of the tuner's candidates, of other precisions and sizes.

    Args:
        extent: How large images, batches and networks are.
        dtypes: The precisions; the last one is the most important, and is tuned.
        visits: Says what the tuner tries.
        gpu: The GPU at hand; nothing is launched on it.
    """
    *others, lowest = dtypes
    runs = [partial(_run_step, extent.sites, batch, lowest) for batch in extent.batches]
    runs += [partial(task.run_once, plan, META, gpu) for task, plan in trials_in_order(extent, lowest, visits, gpu)]
    runs += [partial(_run_step, extent.sites, batch, dtype) for dtype in reversed(others) for batch in extent.batches]
    runs += [partial(_run_step, extent.sites, batch, lowest) for batch in extent.scaling_batches]
    runs += [partial(_run_step, extent.sites_at(side), 1, lowest) for side in extent.scaling_sides]
    return list(dict.fromkeys(variant for run in runs for variant in recorded_launches(run, gpu)))


def trials_in_order(
    extent: RunExtent, dtype: torch.dtype, visits: Sequence[Visit], gpu: Gpu
) -> Iterator[tuple[TuningTask, Plan]]:
    """Yield each key with its built-in plan, then with its candidates, as the tuner goes through them.

    Which tiles win is not known yet: those that come first are taken for the fastest. What the tuner tries instead has
    the tile of one that it tried before.
    """
    with planning_for(gpu):
        tuner = Tuner(META, 0.0, print)
    for visit in visits:
        for task in tasks(extent.sites, [dtype], [batches_of_a_step(n) for n in extent.batches]):
            plans = tuner.candidates(task, visit)
            if plans or task.key not in tuner.known:
                yield task, task.plans(gpu)[0]
            known = tuner.known.setdefault(task.key, Known())
            for plan in plans:
                known.ratios[plan] = -float(len(known.ratios))
                yield task, plan


def _run_step(sites: Sequence[NormSite], batch: int, dtype: torch.dtype) -> None:
    """Run every norm of a step and the pad of its images, forward and backward, on tensors without storage."""
    side = max(site.side for site in sites)
    for images in batches_of_a_step(batch):
        image = torch.empty((images, 3, side, side), dtype=dtype, device=META)
        for layout in (torch.contiguous_format, torch.channels_last):
            pad_backward(pad_forward(image.contiguous(memory_format=layout), IMAGE_PAD), IMAGE_PAD)
        for site in sites:
            operands = site.operands(images, dtype, str(META))
            _, statistics = run_forward(site, operands)
            run_backward(site, operands, statistics)
