"""Records runs as CUDA graphs and times them, so that a launch's time on the host is not measured."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

_COPIED_BYTES = 1 << 30
_SHORTEST_S = 3e-4
"""the least time, in seconds, that is measured at once"""
_TURNS = 7
_PAUSE_CYCLES = 1_000_000
"""cycles of the GPU's clock, half a millisecond, within which the launch of a graph has ended"""


def recorded_graph(run: Callable[[], list[Tensor]], repeats: int) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """Record a CUDA graph of `repeats` runs; return it and the results of the last run."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries set themselves up for a stream at its first use
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(repeats):
            results = run()
    return graph, results


def seconds_of(run: Callable[[], list[Tensor]]) -> float:
    """Return the median time of one run in seconds, launched by a CUDA graph that holds several."""
    graph, _ = recorded_graph(run, 1)
    graph.replay()
    repeats = max(1, min(50, int(_SHORTEST_S / max(_replayed(graph), 1e-6))))
    graph, _ = recorded_graph(run, repeats)
    graph.replay()
    return statistics.median(_replayed(graph) for _ in range(_TURNS)) / repeats


def _replayed(graph: torch.cuda.CUDAGraph) -> float:
    """Replay a graph and return the seconds that the device takes; a pause covers those of the launch."""
    torch.cuda.synchronize()
    torch.cuda._sleep(_PAUSE_CYCLES)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    began.record()
    graph.replay()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3


def copy_gbps(device: torch.device) -> float:
    """Return what the device's own copy moves, 10^9 bytes read and written a second, of a tensor beyond any cache."""
    source = torch.empty(_COPIED_BYTES // 4, device=device).normal_()
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / seconds_of(lambda: [target.copy_(source)]) / 1e9
