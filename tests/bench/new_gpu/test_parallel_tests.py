"""Tests in several processes: each runs once, and what one takes down with it costs the others nothing."""

import time
from pathlib import Path

import pytest

from bench.measure.machine import ROOT
from bench.new_gpu import parallel_tests
from bench.new_gpu.parallel_tests import FAILURES, Results, read_results, run_tests

SOON = 120.0
TESTS = r"""
import os, signal, time
from pathlib import Path
import pytest

BEGUN = Path(__file__).parent / "begun"

def note(name):
    with open(BEGUN, "a") as file:
        file.write(name + "\n")

def test_first(): note("first")
def test_wrong(): note("wrong"); assert 1 == 2, "one is not two"
def test_dies(): note("dies"); os.kill(os.getpid(), signal.SIGKILL)
@pytest.mark.skipif(True, reason="there is nothing to do")
def test_skipped(): pass
@pytest.fixture
def broken(): yield; raise ValueError("cannot clean up")
def test_unclean(broken): note("unclean")
@pytest.mark.parametrize("number", range(6))
def test_many(number): note(f"many {number}")
"""


def results_of(
    folder: Path, content: str, workers: int, seconds: float = SOON, *, without: tuple[str, ...] = ()
) -> Results:
    path = folder / "test_made_up.py"
    path.write_text(content)
    run_tests([str(path)], folder, time.monotonic() + seconds, workers)
    results = read_results(folder)
    short = {name.rpartition("::")[2]: outcome for name, outcome in results.outcomes.items()}
    return Results(short, {name.rpartition("::")[2]: r for name, r in results.remarks.items()}, results.total)


@pytest.mark.slow
def test_every_test_runs_once_and_one_that_kills_its_process_costs_itself_only(tmp_path: Path) -> None:
    results = results_of(tmp_path, TESTS, workers=2)
    assert results.total == 11
    many = {f"test_many[{number}]": "passed" for number in range(6)}
    assert results.outcomes == many | {
        "test_first": "passed",
        "test_wrong": "failed",
        "test_dies": "begun",
        "test_skipped": "skipped",
        "test_unclean": "failed",
    }
    assert results.left == 0
    assert not results.is_complete
    assert results.described() == "7 passed, 2 failed, 1 skipped, 1 without an end"
    assert results.remarks["test_skipped"].endswith("there is nothing to do")
    assert sorted(results.failures()) == [
        "test_unclean: ValueError: cannot clean up",
        "test_wrong: AssertionError: one is not two",
    ]
    assert 'note("wrong"); assert 1 == 2' in (tmp_path / FAILURES).read_text()
    begun = (tmp_path / "begun").read_text().split("\n")[:-1]
    assert len(begun) == len(set(begun)) == 10
    assert set(begun[:2]) <= {"first", "wrong", "dies"}


@pytest.mark.slow
def test_when_the_time_is_over_no_test_begins_and_one_under_way_is_ended(tmp_path: Path) -> None:
    content = "import time\ndef test_slow(): time.sleep(60)\ndef test_never(): pass\n"
    began = time.monotonic()
    results = results_of(tmp_path, content, workers=1, seconds=12)
    assert time.monotonic() - began < 20
    assert results.outcomes == {"test_slow": "begun"}
    assert (results.total, results.left) == (2, 1)
    assert results.described() == "0 passed, 1 without an end, 1 not begun"


@pytest.mark.slow
def test_a_file_that_cannot_be_imported_costs_the_others_nothing(tmp_path: Path) -> None:
    """It is an error, or left out where a package is not installed."""
    (tmp_path / "test_broken.py").write_text("from bench.measure.machine import no_such_name\n")
    (tmp_path / "test_bare.py").write_text("import no_such_package.part\n")
    good = tmp_path / "test_good.py"
    good.write_text("def test_good(): pass\ndef test_long_sanitizer(): pass\n")
    paths = [str(tmp_path / "test_broken.py"), str(tmp_path / "test_bare.py"), str(good)]
    run_tests(paths, tmp_path, time.monotonic() + SOON, 2, without=("sanitizer",))
    results = read_results(tmp_path)
    outcomes = {name.rpartition("/")[2]: outcome for name, outcome in results.outcomes.items()}
    assert outcomes == {"test_broken.py": "error", "test_bare.py": "left out", "test_good.py::test_good": "passed"}
    assert results.total == 1
    assert results.is_complete
    assert results.described() == "1 passed, 1 error, 1 files left out"
    assert "cannot import name 'no_such_name'" in results.failures()[0]
    assert results.remarks[results.of("left out")[0]] == "imports no_such_package, which is not installed"


@pytest.mark.slow
def test_of_some_files_only_what_needs_a_gpu_runs(tmp_path: Path) -> None:
    run_tests(parallel_tests.TIMED_ALONE, tmp_path, time.monotonic() + SOON, 1)
    results = read_results(tmp_path)
    assert {name.rpartition("::")[2].partition("[")[0] for name in results.outcomes} == {
        "test_a_pause_of_so_many_cycles_takes_so_long_on_the_device",
        "test_a_recorded_copy_moves_what_a_launched_one_does",
    }
    assert results.total == 3


def test_every_file_with_tests_that_need_a_gpu_is_run() -> None:
    listed = {*parallel_tests.TIMED_ALONE, *parallel_tests.TOGETHER}
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.gpu" in path.read_text() and path != Path(__file__)
    }
    assert marked - listed == {"tests/export/test_gpu_engine.py"}  # needs TensorRT
    assert all((ROOT / path).is_file() for path in (*listed, *parallel_tests.REHEARSED))
