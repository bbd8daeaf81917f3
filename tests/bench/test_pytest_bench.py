"""`pytest bench/ --benchmark-only`, of which a little is run: what it prints and what it records."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.measure.machine import ROOT, device_name
from bench.measure.records import path_for, read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the default is the full set"),
]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    # Under pytest-xdist, pytest-benchmark would be off in it too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_benchmark_compares_prints_and_records(tmp_path: Path) -> None:
    host_time = "bench/benchmarks/test_overhead.py::test_host_time_of_a_norm[1-inference]"
    ended = bench(host_time, "--benchmark-only", "--bench-record", "--bench-results", str(tmp_path))
    assert ended.returncode == 0, ended.stdout
    (run,) = read(path_for(device_name(torch.device("cpu")), tmp_path))
    (found,) = run.comparisons
    assert (found.subject, found.ours, found.plain, found.rounds) == (
        "host time",
        "ours",
        "plain PyTorch, tiny tensor",
        15,
    )
    assert set(found.contenders) == {found.ours, found.plain}
    assert found.contenders[found.ours].ratio.median == 1
    assert found.limit_ms is None
    assert "host time: fused norm, inference, launches 1, 1x16x4x4, float32" in ended.stdout
    assert "ours over itself" in ended.stdout


def test_without_timing_it_says_why_it_measures_nothing() -> None:
    ended = bench("bench/benchmarks/test_overhead.py", "--benchmark-disable", "-rs")
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.startswith("ssss ")
    assert "ran once, nothing was timed" in ended.stdout


def test_what_takes_long_is_left_out_and_named() -> None:
    ended = bench("bench/benchmarks/test_ranks.py", "--benchmark-only", "-rs")
    assert ended.returncode == 0, ended.stdout
    assert "takes long on a CPU: --bench-full" in ended.stdout
