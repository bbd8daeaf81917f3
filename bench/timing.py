"""Timing of opponents side by side: machines are shared and drift, so a ratio is taken round by round."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


def interleaved(
    benchmark: BenchmarkFixture, ours: Callable[[], Any], opponents: Mapping[str, Callable[[], Any]], *, rounds: int
) -> dict[str, float]:
    """Median of (opponent's time / our time), the two measured in turn in each round, after one round of warm-up.

    pytest-benchmark does not interleave: here every opponent runs inside the untimed setup of each of its rounds and is
    timed by hand. The medians, in seconds, and the ratios are stored as the benchmark's extra information.
    """
    seconds: dict[str, list[float]] = {name: [] for name in opponents}

    def run_opponents() -> None:
        for name, function in opponents.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)

    benchmark.pedantic(  # type: ignore[no-untyped-call]  # pytest-benchmark leaves it untyped
        ours, setup=run_opponents, rounds=rounds, warmup_rounds=1
    )
    if benchmark.stats is None:
        pytest.skip("ran once, nothing was timed: pytest-benchmark is disabled (by an option, or by pytest-xdist's -n)")
    our_seconds = benchmark.stats.stats.data
    counted = {name: values[-rounds:] for name, values in seconds.items()}
    ratios = {
        name: statistics.median(theirs / own for theirs, own in zip(values, our_seconds, strict=True))
        for name, values in counted.items()
    }
    for name, values in counted.items():
        benchmark.extra_info[name] = {"median_s": statistics.median(values), "ratio": ratios[name]}
        print(f"\n{name}: median {statistics.median(values):.3f} s, {ratios[name]:.2f}x ours", end="")
    print(f"\nours: median {statistics.median(our_seconds):.3f} s ({rounds} rounds)")
    return ratios
