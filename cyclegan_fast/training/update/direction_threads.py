"""Computes the two directions of a step one after the other, or at the same time on the cores of a CPU."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from cyclegan_fast.config.options import CROPPING, Config

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

LARGEST_SIDE_IN_THREADS = 128
"""Pixels. On a CPU both directions at once measured faster in float32 at 64 and no faster at 256 (bench/results/LOG.md,
2026-11-25); where in between it turns was not measured. In bfloat16, channels last, it is slower (2026-11-26)."""
DIRECTION_COUNT = 2


class DirectionThreads:
    """Gives each direction a thread with half of the cores, where that is faster than one after the other.

    Args:
        dtype: the precision that the networks compute in.
        scaled: whether losses are scaled.
    """

    def __init__(self, config: Config, device: torch.device, dtype: torch.dtype, *, scaled: bool) -> None:
        cores = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        if (
            device.type == "cpu"
            and dtype != torch.bfloat16
            and cores >= DIRECTION_COUNT
            and config.data.preprocess in CROPPING
            and config.data.crop_size <= LARGEST_SIDE_IN_THREADS
            and not config.run.compile
            and not config.networks.dropout  # its draws would depend on which thread comes first
            and "batch"
            not in (config.networks.norm, config.networks.norm_of_discriminators)  # so would running statistics
            and not scaled  # so would the scale, which is made at first use
        ):
            self._pool = ThreadPoolExecutor(
                DIRECTION_COUNT, "direction", initializer=lambda: torch.set_num_threads(cores // DIRECTION_COUNT)
            )

    @property
    def count(self) -> int:
        """Return how many directions are computed at once."""
        return DIRECTION_COUNT if self._pool else 1

    def map(self, compute: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterable[_Result]:
        """Yield the results of `compute` in the order of `items`; one item alone has all cores."""
        if self._pool is None or len(items) == 1:
            return map(compute, items)
        return self._pool.map(compute, items)
