"""`pytest bench/ --benchmark-only`: options, and the fixture that a benchmark compares contenders with."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

# Without a GPU, operators asked for as Triton run in its interpreter, which decides when a kernel is decorated.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from bench.measure import limits as machine_limits
from bench.measure.contest import Case, measure_case
from bench.measure.machine import device_name, stamp
from bench.measure.records import RESULTS_FOLDER, Comparison, ResultRecorder, path_for
from bench.measure.timing import Race
from bench.reporting.terminal import comparison_text
from cyclegan_fast.system.device import set_determinism

set_determinism(False)  # cuDNN times its algorithms, as in training
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Compare = Callable[[Case, int], Comparison]
SkipUnless = Callable[[bool], None]
_described: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cyclegan-fast")
    group.addoption("--bench-full", action="store_true", help="on a CPU too, run all; a GPU always does")
    group.addoption("--bench-record", action="store_true", help="add what is measured to bench/results/<device>.json")
    group.addoption(
        "--bench-results", type=Path, default=RESULTS_FOLDER, metavar="FOLDER", help="where --bench-record keeps it"
    )


@cache
def limits() -> machine_limits.Limits:
    return machine_limits.measure_limits(DEVICE)


@pytest.fixture(scope="session", autouse=True)
def _limits_come_first() -> None:
    """Measure the limits before a benchmark changes how many threads there are."""
    limits()


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Return whether everything is measured, also what takes long on a CPU."""
    return bool(request.config.getoption("--bench-full")) or DEVICE.type == "cuda"


@pytest.fixture
def skip_unless(full: bool) -> SkipUnless:
    """Return a function that skips a benchmark unless everything is measured, or it is told that a CPU measures it."""

    def check(is_default: bool) -> None:
        if not (full or is_default):
            pytest.skip("takes long on a CPU: --bench-full")

    return check


@pytest.fixture(scope="session")
def recorder(request: pytest.FixtureRequest) -> ResultRecorder | None:
    if not request.config.getoption("--bench-record"):
        return None
    made = stamp(DEVICE)
    return ResultRecorder(path_for(made.device, request.config.getoption("--bench-results")), made, limits())


@pytest.fixture
def compare(benchmark: BenchmarkFixture, recorder: ResultRecorder | None) -> Compare:
    """Measures a case over some rounds, prints it, and records it where that was asked for."""

    def run(case: Case, rounds: int) -> Comparison:
        def drive(race: Race) -> None:
            benchmark.pedantic(  # type: ignore[no-untyped-call]  # pytest-benchmark leaves it untyped
                race.our_turn, setup=race.opponents_turns, rounds=rounds
            )
            if benchmark.stats is None:
                pytest.skip("ran once, nothing was timed: pytest-benchmark is off (by an option, or by pytest-xdist)")

        comparison = measure_case(case, DEVICE, limits(), drive)
        benchmark.group = comparison.subject
        benchmark.extra_info |= {name: timing.ms.median for name, timing in comparison.contenders.items()}
        _described.append(comparison_text(comparison))
        if recorder:
            recorder.add(comparison)
        return comparison

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _described:
        return
    terminalreporter.section("contenders in turn: medians and quartiles of a call")
    terminalreporter.write_line(f"{device_name(DEVICE)}: {limits()}")
    for text in _described:
        terminalreporter.write_line(text)
