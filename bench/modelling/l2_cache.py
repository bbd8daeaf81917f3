"""Tells which of a step's reads find their data in the L2 cache."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from bench.modelling.nodes import StepNode


def memory_bytes(nodes: Iterable[StepNode], cache_bytes: float) -> Iterator[int]:
    """Yield, for each node in the order of launches, the bytes that it moves between memory and the chip.

    A read costs none where the storage was touched last and less than `cache_bytes` were touched since, itself
    included; a write always costs. Within a node each operand moves once.
    """
    recent: OrderedDict[int, int] = OrderedDict()  # storages by last touch, with the bytes that they take in the cache
    for node in nodes:
        moved = 0
        for region in node.reads:
            if not _is_cached(recent, region.storage, cache_bytes):
                moved += region.moved_bytes
            _touch(recent, region.storage, region.moved_bytes)
        for region in node.writes:
            moved += region.moved_bytes
            _touch(recent, region.storage, region.moved_bytes)
        yield moved


def _touch(recent: OrderedDict[int, int], storage: int, size: int) -> None:
    recent[storage] = max(size, recent.pop(storage, 0))


def _is_cached(recent: OrderedDict[int, int], storage: int, cache_bytes: float) -> bool:
    if storage not in recent:
        return False
    taken = 0
    for other in reversed(recent):
        taken += recent[other]
        if taken > cache_bytes:
            return False
        if other == storage:
            return True
    return False
