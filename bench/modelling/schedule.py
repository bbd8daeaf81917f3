"""Predicts how long a step takes from the times of its nodes, in one stream and in two."""

import heapq
from collections.abc import Sequence

from bench.modelling.assumptions import NODE_GAP_US


def one_stream_us(durations_us: Sequence[float]) -> float:
    """Return the time of nodes that run one after the other, each behind a gap."""
    return sum(durations_us) + NODE_GAP_US * len(durations_us)


def critical_path_us(durations_us: Sequence[float], depends_on: Sequence[Sequence[int]]) -> float:
    """Return the time of the longest chain of nodes that wait for one another, with a gap in front of each.

    No number of streams can be faster. `depends_on` holds for each node the indices of earlier ones.
    """
    ended: list[float] = []
    for duration, earlier in zip(durations_us, depends_on, strict=True):
        ended.append(max((ended[index] for index in earlier), default=0.0) + NODE_GAP_US + duration)
    return max(ended, default=0.0)


def streams_us(
    durations_us: Sequence[float],
    depends_on: Sequence[Sequence[int]],
    shares: Sequence[Sequence[float]],
    streams: int,
) -> float:
    """Return the time in which nodes run on so many streams, of those that can run the one with most behind it first.

    Nodes that run together slow each other down where they ask for more than all of a resource: `shares` holds for each
    node its shares of the GPU's resources, in one order. This is what an ideal assignment to streams comes near.
    """
    behind = _longest_behind(durations_us, depends_on)
    waiting_for = [len(set(earlier)) for earlier in depends_on]
    followers: list[list[int]] = [[] for _ in durations_us]
    for index, earlier in enumerate(depends_on):
        for one in set(earlier):
            followers[one].append(index)
    ready = [(-behind[index], index) for index, count in enumerate(waiting_for) if not count]
    heapq.heapify(ready)
    running: dict[int, list[float]] = {}  # for each node, its gap and its work that are left, microseconds
    now_us = 0.0
    while ready or running:
        while ready and len(running) < streams:
            _, index = heapq.heappop(ready)
            running[index] = [NODE_GAP_US, durations_us[index]]
        speed = _speed([shares[index] for index, (gap, _) in running.items() if not gap])
        step_us = min(gap or work / speed for gap, work in running.values())
        now_us += step_us
        for index, left in list(running.items()):
            if left[0]:
                left[0] = max(0.0, left[0] - step_us)
                left[0] = 0.0 if left[0] < 1e-9 else left[0]
                continue
            left[1] -= step_us * speed
            if left[1] < 1e-9:
                del running[index]
                for follower in followers[index]:
                    waiting_for[follower] -= 1
                    if not waiting_for[follower]:
                        heapq.heappush(ready, (-behind[follower], follower))
    return now_us


def _speed(shares: Sequence[Sequence[float]]) -> float:
    """Return how fast nodes run together, compared with each alone."""
    asked_for: list[float] = [sum(of_resource) for of_resource in zip(*shares, strict=True)]
    return 1.0 / max([1.0, *asked_for])


def _longest_behind(durations_us: Sequence[float], depends_on: Sequence[Sequence[int]]) -> list[float]:
    """Return for each node the time from its begin to the end of the longest chain that waits for it."""
    behind = [0.0] * len(durations_us)
    for index in reversed(range(len(durations_us))):
        behind[index] += durations_us[index] + NODE_GAP_US
        for earlier in depends_on[index]:
            behind[earlier] = max(behind[earlier], behind[index])
    return behind
