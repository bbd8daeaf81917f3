"""Splits a step into parts that need nothing of each other: its two directions, and its two discriminators.

Here they are computed one after the other; `direction_threads.py` computes them at the same time on the cores of a CPU,
and `direction_streams.py` on two streams of a GPU. `training/update/choice.py` chooses.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class StepParts:
    """Computes independent parts of a step one after the other, which holds the activations of one of them only."""

    count = 1
    """how many parts are computed at once"""

    def map(self, compute: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
        """Yield the results of `compute` in the order of `items`; each is taken before the next item is computed."""
        return map(compute, items)
