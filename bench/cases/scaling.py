"""Measures how time and memory grow with the batch and with the side of the images."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest

import torch

from bench.cases import counts, networks, training_step
from bench.cases.plain_cyclegan import PAPER_SIZE, PLAIN_PYTORCH, PlainGenerator, PlainNetworkSize
from bench.cases.whole_step_graph import IN_A_GRAPH
from bench.measure.contest import Case, Contest
from bench.measure.peak_memory import followed
from bench.measure.timing import Contender, on_recording_stream
from cyclegan_fast.system.device import name_of

SCALING_BATCHES = (1, 2, 4, 8, 16)
SCALING_SIDES = (128, 256, 512, 1024)
MOST_IN_FLOAT64 = 256  # side in pixels
SIDE_OF_BATCHES = {"cpu": 128, "cuda": 256}


def scaling_cases(
    dtype: torch.dtype,
    device: torch.device,
    *,
    batches: Sequence[int] = SCALING_BATCHES,
    sides: Sequence[int] = SCALING_SIDES,
    side_of_batches: int | None = None,
    size: PlainNetworkSize = PAPER_SIZE,
    agreement: float = training_step.AGREEMENT,
) -> Iterator[Case]:
    """Yield cases of batches at one side and of sides at batch 1.

    On a GPU each is a training step, on a CPU the generator forward and backward.
    """
    side_of_batches = side_of_batches or SIDE_OF_BATCHES[device.type]
    by_batch = [(batch, side_of_batches) for batch in batches]
    by_side = [(1, side) for side in sides if side != side_of_batches]
    # Batches and sides take turns, so that neither is missing where time is short.
    sizes = [size for pair in zip_longest(by_batch, by_side) for size in pair if size is not None]
    for batch, side in sizes:
        if device.type == "cuda":
            precisions = training_step.training_step_cases(
                side, batch, device, _is_stock_autocast, subject="scaling", size=size, agreement=agreement
            )
            yield from (case for case in precisions if case.dtype == name_of(dtype))
        else:
            yield _generator(batch, side, dtype, device, size)


def _is_stock_autocast(name: str) -> bool:
    return name.startswith("stock autocast") and "compile" not in name and IN_A_GRAPH not in name


def _generator(batch: int, side: int, dtype: torch.dtype, device: torch.device, size: PlainNetworkSize) -> Case:
    work = counts.network_workload(PlainGenerator, batch, side, dtype, backward=True, size=size)
    make = partial(_contest, batch, side, dtype, device, size)
    return Case.of_images("scaling", "generator, forward and backward", batch, side, dtype, work, make)


def _contest(batch: int, side: int, dtype: torch.dtype, device: torch.device, size: PlainNetworkSize) -> Contest:
    contenders: dict[str, Contender] = {}
    peak_gib: dict[str, float] = {}
    entrants = networks.Entrants("generator", "forward and backward", dtype, batch, side, device, size=size)
    with on_recording_stream(device):
        for name, make in ((PLAIN_PYTORCH, partial(entrants.plain, dtype)), ("ours", entrants.ours)):
            call, peak_gib[name] = followed(device, make, lambda call: call())
            contenders[name] = Contender([call], graph=name == "ours")
        # A convolution of 1024x1024 in float64 takes 26 GB on a CPU.
        exact = entrants.exact(torch.float64 if side <= MOST_IN_FLOAT64 else torch.float32)
    allowed = networks.allowed("forward and backward", dtype, device)
    return Contest(contenders, "ours", PLAIN_PYTORCH, exact, allowed, peak_gib=peak_gib)
