"""Computes the two directions of a step at the same time on the cores of a CPU."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.training.update.step_parts import Item, Result, StepParts

LARGEST_SIDE_IN_THREADS = 128
"""Pixels. On a CPU both directions at once measured faster in float32 at 64 and no faster at 256 (bench/results/LOG.md,
2026-11-25); where in between it turns was not measured. In bfloat16, channels last, it is slower (2026-11-26)."""
DIRECTION_COUNT = 2


class DirectionThreads(StepParts):
    """Gives each direction a thread with half of the cores."""

    count = DIRECTION_COUNT

    def __init__(self) -> None:
        cores = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            DIRECTION_COUNT, "direction", initializer=lambda: torch.set_num_threads(cores // DIRECTION_COUNT)
        )

    def map(self, compute: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
        """Yield the results of `compute` in the order of `items`; one item alone has all cores."""
        return map(compute, items) if len(items) == 1 else self._pool.map(compute, items)


def gains_from_threads(config: Config, device: torch.device, dtype: torch.dtype, *, scaled: bool) -> bool:
    """Tell whether two threads compute a step faster than one, and with the same result.

    Args:
        dtype: the precision that the networks compute in.
        scaled: whether losses are scaled.
    """
    return (
        device.type == "cpu"
        and dtype != torch.bfloat16
        and torch.get_num_threads() >= DIRECTION_COUNT
        and config.data.preprocess in CROPPING
        and config.data.crop_size <= LARGEST_SIDE_IN_THREADS
        and not config.run.compile
        and not config.networks.dropout  # its draws would depend on which thread comes first
        and not config.networks.has_batch_norm  # so would running statistics
        and not scaled  # float16, which a CPU is too slow for
    )
