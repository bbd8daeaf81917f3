"""Measures the training command's images a second, on two ranks with two cores against one rank with one core."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import SkipUnless

STEPS = 60
ROUNDS = 3


def images_per_s(runs: Path, name: str, ranks: int, cores: str) -> float:
    """Train with so many ranks; return the images a second of the run's later half, as it reports them."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    flags = [f"--max-steps={STEPS}", "--report-every=10", f"--runs={runs}", f"--name={name}", "--workers=0"]
    subprocess.run(
        ["taskset", "-c", cores, sys.executable, *launcher, "cyclegan_fast.train", *flags],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    lines = (runs / name / "metrics.jsonl").read_text().splitlines()
    return statistics.median(float(json.loads(line)["images_per_s"]) for line in lines[len(lines) // 2 :])


@pytest.mark.benchmark(group="two ranks, 64x64")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_ranks_against_one(benchmark: BenchmarkFixture, tmp_path: Path, skip_unless: SkipUnless) -> None:
    skip_unless(False)
    alone: list[float] = []
    both: list[float] = []

    def one() -> None:
        alone.append(images_per_s(tmp_path, f"one-{len(alone)}", 1, "0"))

    def two() -> None:
        both.append(images_per_s(tmp_path, f"two-{len(both)}", 2, "0,1"))

    benchmark.pedantic(two, setup=one, rounds=ROUNDS)  # type: ignore[no-untyped-call]  # pytest-benchmark's own lack
    ratio = statistics.median(two / one for two, one in zip(both, alone, strict=True))
    benchmark.extra_info["ratio"] = ratio
    print(f"\none rank on one core: {statistics.median(alone):.2f} images/s of each domain")
    print(f"two ranks on two cores: {statistics.median(both):.2f} images/s, {ratio:.2f}x")
    assert ratio >= 1.6
