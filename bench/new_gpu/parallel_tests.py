"""Runs the tests of `bench.gpu` on all cores; those that can fail on a GPU only come first.

Each process has the GPU for itself in turn. Tests that time the GPU come before, alone. pytest is all they need.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure.machine import ROOT

TESTS, FAILURES, WORKERS_LOG, NEXT = "tests.txt", "test-failures.txt", "test-workers.txt", "next-test.txt"
"""The files of what became of each test, of what failed in full, of what pytest printed, of the next test's number."""
LOST = 9
"""The exit status of a process that cannot use the GPU any more."""

TIMED_ALONE = ("tests/bench/measure/test_timing.py",)
TOGETHER = (
    "tests/kernels/test_gpu.py",
    "tests/test_gpu_step.py",
    "tests/cyclegan_fast/training/update/test_flat_gradients.py",
    "tests/cyclegan_fast/translation/test_gpu_translation.py",
    "tests/test_gpu.py",
    "tests/bench/cases/test_whole_step_graph.py",
    "tests/cyclegan_fast/translation/test_strips_on_a_gpu.py",
    "tests/kernels/test_pending_sum.py",
    "tests/kernels/test_compile.py",
    "tests/kernels/test_networks_on_triton.py",
    "tests/kernels/test_between_convolutions.py",
    "tests/kernels/test_registration.py",
    "tests/kernels/test_offsets.py",
    "tests/kernels/test_operators.py",
    "tests/kernels/test_determinism.py",
    "tests/kernels/test_bad_input.py",
    "tests/kernels/test_dispatch.py",
    "tests/kernels/test_accuracy.py",  # takes longer than all the others together
)
LONG = ("sanitizer", "2_to_the_31", "thousand")
"""Words in the names of tests that --quick leaves out."""
REHEARSED = ("tests/kernels/test_dispatch.py", "tests/kernels/test_bad_input.py")
"""The tests with --tiny, in place of TOGETHER."""
SECONDS_ALONE = 20.0
MOST_WORKERS = 16
MOST_RESTARTS = 16
OPTIONS = (
    *("-p", "bench.new_gpu.tests_worker", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"),
    *("--tb=short", "--continue-on-collection-errors"),
    *("-m", ""),  # the slow ones too, which the project's own options leave out
)
ENVIRONMENT = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # by itself each process starts as many as there are cores


@dataclass(frozen=True)
class Results:
    """Holds what became of each test, by its name: passed, failed, skipped, or begun where it did not come to its end.

    A file is an error where it cannot be collected, and left out where it imports what is not installed. `total` counts
    the tests that were collected.
    """

    outcomes: dict[str, str]
    remarks: dict[str, str]
    total: int

    @property
    def left(self) -> int:
        """Return how many tests did not begin."""
        return self.total - len(self.of("passed", "failed", "skipped", "begun"))

    @property
    def is_complete(self) -> bool:
        """Return whether each test came to its end."""
        return not self.left and not self.of("begun")

    def of(self, *outcomes: str) -> list[str]:
        return [name for name, outcome in self.outcomes.items() if outcome in outcomes]

    def described(self) -> str:
        """Return how many tests came to which end, in a line."""
        counts = {outcome: len(self.of(outcome)) for outcome in ("passed", "failed", "error", "skipped")}
        counts |= {"without an end": len(self.of("begun")), "not begun": self.left}
        counts |= {"files left out": len(self.of("left out"))}
        shown = [f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "passed"]
        return ", ".join(shown)

    def failures(self) -> list[str]:
        """Return a line for each failed test, with its reason."""
        return [f"{name}: {self.remarks[name]}" for name in self.of("failed", "error")]


def read_results(folder: Path) -> Results:
    """Return the results from the lines that the processes wrote."""
    outcomes: dict[str, str] = {}
    remarks: dict[str, str] = {}
    totals: dict[str, int] = {}
    path = folder / TESTS
    for line in path.read_text().splitlines() if path.exists() else []:
        outcome, what, remark = [*line.split("\t"), "", ""][:3]
        if outcome == "collected":
            totals[remark] = int(what)
        elif outcomes.get(what) not in ("failed", "error"):  # a test that failed may fail to clean up as well
            outcomes[what], remarks[what] = outcome, remark
    return Results(outcomes, remarks, sum(totals.values()))


def run_tests(paths: Sequence[str], folder: Path, until_s: float, workers: int, *, without: Sequence[str] = ()) -> None:
    """Run the tests of these files in so many processes; what became of them is in the folder's files.

    Args:
        paths: The files of the tests, in the order in which they run.
        folder: The folder of the processes' files.
        until_s: The end by `time.monotonic()`; no test begins afterwards, and those under way are ended.
        workers: The number of processes.
        without: Words in the names of tests that are left out.
    """
    (folder / NEXT).write_text("0")
    selection = ["-k", " and ".join(f"not {word}" for word in without)] if without else []
    command = [sys.executable, "-m", "pytest", *OPTIONS, "--queue", str(folder), "--until", str(until_s)]
    command += [*selection, *paths]
    restarts = MOST_RESTARTS
    with open(folder / WORKERS_LOG, "ab") as log:

        def start() -> subprocess.Popen[bytes]:
            environment = os.environ | ENVIRONMENT
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

        running = [start() for _ in range(workers)]
        while running and time.monotonic() < until_s:
            time.sleep(0.1)
            ended = [process for process in running if process.poll() is not None]
            running = [process for process in running if process.poll() is None]
            for process in ended:
                # A test that takes its process down must not cost the tests behind it.
                if (process.returncode == LOST or process.returncode < 0) and restarts:
                    restarts -= 1
                    running.append(start())
        for process in running:
            process.kill()
            process.wait()


def cores() -> int:
    """Return how many this process may use."""
    return len(os.sched_getaffinity(0))
