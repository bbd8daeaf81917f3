"""`python -m bench.gpu` without a GPU: it says so; what its phases do, in which order, and what they keep."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu
from bench.cases import training
from bench.gpu import measure_all
from bench.measure.contest import Case, Contest
from bench.measure.limits import Limits, dtypes
from bench.measure.machine import DRY_RUN, ROOT, device_name
from bench.measure.records import RESULTS_FOLDER, path_for, read
from bench.measure.timing import Contender
from bench.new_gpu import gpu_cases, parallel_tests, phases
from bench.new_gpu.extent import PAPER_EXTENT
from bench.new_gpu.later_launches import trials_in_order
from bench.new_gpu.phases import PhaseTask
from bench.new_gpu.summary import CUT_SHORT, summary
from bench.reporting.device_results import devices
from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.checking.specialisations import Specialisation
from cyclegan_fast.kernels.gpus import GPUS
from cyclegan_fast.kernels.triton_language import INTERPRETED
from cyclegan_fast.system.device import name_of
from cyclegan_fast.system.errors import UserError
from tests.as_command import run_as_command

CPU = torch.device("cpu")
ASSUMED_SECONDS_OF_A_KEY, ASSUMED_SECONDS_OF_A_CANDIDATE = 0.8, 0.25
SOON = 3600.0
NOT_DISTRIBUTIONS = ("PIL", "yaml", "skimage", "onnx", "onnxruntime", "openvino", "xdist")


NO_GPU = f"error: bench.gpu needs an NVIDIA GPU, and PyTorch {torch.__version__} sees none here\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("arguments", [[], ["--quick"], ["--only", "step"]], ids=["all", "quick", "one phase"])
def test_without_a_gpu_it_says_so_in_a_line_and_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_as_command(gpu.__file__, "--out", str(tmp_path / "out"), *arguments) == 2
    assert capsys.readouterr() == ("", NO_GPU)
    assert not (tmp_path / "out").exists()


def test_a_phase_s_process_needs_little_and_ends_where_it_is_told_nothing(tmp_path: Path) -> None:
    """It needs PyTorch, Triton, NumPy and pytest, as on a rented GPU, and not the compiler, which takes seconds."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    others = [*declared["dependencies"], *declared["optional-dependencies"]["dev"], *NOT_DISTRIBUTIONS]
    modules = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in others} | {"torch._dynamo"}
    modules -= {"torch", "triton", "numpy", "pytest", "cyclegan_fast"}
    program = (
        f"import runpy, sys; sys.modules |= dict.fromkeys({sorted(modules)!r}); "
        "import bench.gpu, bench.new_gpu.tests_worker; "
        "runpy.run_module('bench.phase_process', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", program, "limits", "--out", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, input="", capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_what_is_launched_later_is_compiled_until_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variant = Specialisation(
        90,
        "cyclegan_fast.kernels.conv2d:conv2d_3x3",
        (("x_ptr", "*bf16"),),
        (("BLOCK_CHANNELS", 64),),
        (),
        (("num_warps", 8),),
    )

    through = [1, 2]

    def compile_ahead(
        wanted: list[Specialisation], processes: int, done: Callable[[int, int], None], until_s: float
    ) -> dict[Specialisation, str]:
        assert processes == parallel_tests.cores()
        assert until_s < time.monotonic() + SOON
        for number in through:
            done(number, len(wanted))
        return {variant: "PTXASError: too many registers"}

    monkeypatch.setattr(gpu, "INTERPRETED", False)
    monkeypatch.setattr(gpu, "later_launches", lambda *_: [variant, variant])
    monkeypatch.setattr(gpu, "compile_ahead", compile_ahead)
    refused = f"conv2d_3x3 bf16 {variant.flags}: PTXASError: too many registers"
    assert gpu.compile_phase(task(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines() == ["2 of 2 variants are compiled", refused]
    through.pop()
    assert gpu.compile_phase(task(tmp_path)) == CUT_SHORT
    assert capsys.readouterr().out.splitlines() == [refused, "cut short at 1 of 2 variants"]


def case(name: str, ours: float = 2.0) -> Case:
    x = torch.ones(10)
    operator_contest = Contest(
        {"plain PyTorch": Contender([lambda: x * 2]), "ours": Contender([lambda: x * ours])},
        "ours",
        "plain PyTorch",
        [torch.full((10,), 2.0, dtype=torch.float64)],
        1e-6,
    )
    return Case("operators", name, "10", "float32", 1, 256, 80, 10, lambda: operator_contest)


def task(out: Path, seconds: float = SOON) -> PhaseTask:
    return PhaseTask(CPU, out, time.monotonic() + seconds, quick=True)


@pytest.fixture
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases.machine_limits, "measure_limits", lambda device, tiny: Limits(10.0, {"float32": 1.0}))
    monkeypatch.setattr(phases, "PAPER_EXTENT", replace(PAPER_EXTENT, rounds=3))


@pytest.mark.usefixtures("_limits")
def test_what_is_wrong_is_told_and_the_rest_is_measured_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure_all([case("one"), case("wrong", ours=2.5), case("two")], task(tmp_path)) == 1
    (run,) = read(path_for(device_name(CPU), tmp_path))
    assert [each.case for each in run.comparisons] == ["one", "two"]
    assert "operators: wrong, 10, float32: ours is off by 0.25" in capsys.readouterr().out
    assert measure_all([case("three")], task(tmp_path)) == 0
    runs = read(path_for(device_name(CPU), tmp_path))
    assert [[each.case for each in run.comparisons] for run in runs] == [["one", "two"], ["three"]]


@pytest.mark.usefixtures("_limits")
def test_when_the_time_is_over_nothing_new_begins_and_what_was_found_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = task(tmp_path, 0.3)

    def slow() -> Contest:
        time.sleep(0.4)
        return case("slow").make()

    slow_case = Case("operators", "slow", "10", "float32", 1, 256, 80, 10, slow)
    assert measure_all([slow_case, case("never")], ending) == 0
    (run,) = read(path_for(device_name(CPU), tmp_path))
    assert [each.case for each in run.comparisons] == ["slow"]
    assert "no time was left for operators: never" in capsys.readouterr().out


def test_what_matters_most_is_measured_first() -> None:
    full = PhaseTask(CPU, Path(), 0.0, quick=False)
    *others, lowest = map(name_of, dtypes(CPU))
    steps = list(gpu_cases.gpu_step_cases(full))
    assert [(each.dtype, each.batch) for each in steps[:3]] == [(lowest, 1), (lowest, 16), (lowest, 1)]
    assert {each.dtype for each in steps} == {lowest, *others}
    sites = list(gpu_cases.gpu_operator_cases(full))
    assert {(each.dtype, each.batch) for each in sites[:22]} == {(lowest, 1)}
    assert {(each.dtype, each.batch) for each in sites[22:44]} == {(lowest, 16)}
    every_site = {(each.case, each.shape, each.dtype) for each in sites}
    # Also twice the batches, which a step launches as well.
    assert {each.batch for each in sites if each.dtype == lowest} == {1, 2, 16, 32}
    assert len(every_site) == 11 * 2 * 4 * (1 + len(others))
    passes = list(gpu_cases.gpu_network_cases(full))
    assert (passes[0].case, passes[0].dtype, passes[0].batch) == ("generator, forward and backward", lowest, 1)


def test_the_training_comparison_is_written_and_says_how_far_ours_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = training.Setting(side=32, steps=6, width=4, blocks=6)
    assert gpu.training_phase(task(tmp_path, 0), setting) == 0
    found = json.loads((tmp_path / gpu.TRAINING_FILE).read_text())
    assert found["setting"]["steps"] == 6
    curves = found["curves"]
    assert all(len(values) == 6 for curve in curves.values() for values in curve["losses"].values())
    plain, ours, other = (
        curves[name]["losses"]["cycle_A"] for name in (training.PLAIN_RUN, training.OUR_RUN, training.OTHER_SEED_RUN)
    )
    # The same weights and images: the first losses are those of plain PyTorch, to bfloat16's precision.
    assert ours[0] == pytest.approx(plain[0], rel=0.02)
    assert abs(other[0] / plain[0] - 1) > 1e-3
    assert f"losses at the end {found['of_ours']:.1%} from plain PyTorch's" in capsys.readouterr().out


@pytest.mark.usefixtures("_limits")
def test_a_case_that_raises_costs_the_others_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> Contest:
        raise torch.OutOfMemoryError("tried to allocate 90 GiB")

    failing = Case("operators", "large", "10", "float32", 1, 256, 80, 10, fails)
    assert measure_all([failing, case("small")], task(tmp_path)) == 1
    (run,) = read(path_for(device_name(CPU), tmp_path))
    assert [each.case for each in run.comparisons] == ["small"]
    assert "operators: large, 10, float32: does not run: OutOfMemoryError: tried" in capsys.readouterr().out


def test_limits_are_measured_by_who_comes_first_and_read_by_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[bool] = []

    def measure_limits(device: torch.device, *, tiny: bool) -> Limits:
        measured.append(tiny)
        return Limits(12.5, {"float32": 0.5})

    monkeypatch.setattr(phases.machine_limits, "measure_limits", measure_limits)
    assert gpu.limits_phase(task(tmp_path)) == 0
    assert task(tmp_path).limits == task(tmp_path).limits == Limits(12.5, {"float32": 0.5})
    assert measured == [False]


def test_what_a_rehearsal_measures_says_so_and_is_refused_among_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases.machine_limits, "measure_limits", lambda device, tiny: Limits(10.0, {"float32": 1.0}))
    rehearsal = replace(task(tmp_path), tiny=True)
    assert measure_all([case("one")], rehearsal) == 0
    name = f"{device_name(CPU)}, {DRY_RUN}"
    (run,) = read(path_for(name, tmp_path))
    assert run.stamp.device == name
    assert summary(tmp_path, {"operators": 0}, name).startswith(name)
    with pytest.raises(UserError, match=f"is of a {DRY_RUN} and measures nothing: remove it"):
        devices(tmp_path)


def test_a_rehearsal_writes_neither_tuned_tables_nor_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables: list[Path] = []
    visited: list[int] = []

    def tuning(device: torch.device, sites: object, dtypes: object, batches: list[object], *rest: Any, **_: Any) -> Any:
        tables.append(rest[1])
        visited.append(len(batches))
        return iter([])

    monkeypatch.setattr(gpu, "tuning", tuning)
    for tiny in (True, False):
        gpu.tune_phase(replace(task(tmp_path), tiny=tiny, quick=False))
    assert tables == [tmp_path / "tuned", launch.TUNED]
    assert visited == [2, 2]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu.main(["--tiny", "--out", str(RESULTS_FOLDER / "rehearsal")]) == 2
    assert "--tiny measures nothing that belongs into" in capsys.readouterr().err
    if INTERPRETED:
        assert gpu.main(["--out", str(tmp_path)]) == 2
        assert "unset it to measure the GPU" in capsys.readouterr().err


def test_a_rehearsal_measures_every_subject_on_tiny_networks() -> None:
    tiny = PhaseTask(CPU, Path(), 0.0, tiny=True)
    for cases in (
        gpu_cases.gpu_step_cases,
        gpu_cases.gpu_operator_cases,
        gpu_cases.gpu_network_cases,
        gpu_cases.gpu_scaling_cases,
    ):
        found = list(cases(tiny))
        assert found
        assert all(each.side <= 40 for each in found)
        assert sum(each.operations for each in found) < 1e9
    (translated,) = gpu_cases.gpu_translation_cases(tiny)
    assert translated.shape == "1x32x32x3"


@pytest.mark.slow
def test_all_that_the_tuner_tries_is_compiled_ahead_and_steps_come_first() -> None:
    """Runs in a process of its own, since Triton's interpreter does not know what a compiler would specialise."""
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.bench.record_later_launches"]
    ended = subprocess.run(command, cwd=ROOT, env=compiling, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_tuner_goes_through_all_keys_of_a_small_step_in_its_time() -> None:
    """Takes assumed seconds for a candidate and a key, which nobody has measured yet."""
    trials = list(trials_in_order(PAPER_EXTENT, torch.bfloat16, PAPER_EXTENT.visits[:1], GPUS[90]))
    of_a_small_step = [task_.key for task_, plan in trials if task_.batch in (1, 2)]
    keys = len(set(of_a_small_step))
    assert keys == 40
    seconds = keys * ASSUMED_SECONDS_OF_A_KEY + (len(of_a_small_step) - keys) * ASSUMED_SECONDS_OF_A_CANDIDATE
    (share_s,) = (each.share_s for each in gpu.PHASES if each.name == "tune")
    assert seconds <= share_s
