"""`python -m bench.gpu` without a GPU: it says so; how it runs its phases, and what it keeps of those cut short."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import gpu, gpu_cases, phases, training
from bench.contest import Case, Contest
from bench.device_results import devices
from bench.extent import PAPER_EXTENT
from bench.gpu import measure_all
from bench.later_launches import trials_in_order
from bench.limits import Limits, dtypes
from bench.machine import DRY_RUN, ROOT, device_name
from bench.phases import Phase, Task, planned, run_phases
from bench.records import RESULTS, path_for, read
from bench.step_profile import KernelTime, kind_of, summed
from bench.summary import CUT_SHORT, LOG, MOST_LINES, operators_lines, summary
from bench.timing import Contender
from cyclegan_fast.device import name_of
from cyclegan_fast.errors import UserError
from kernels import launch
from kernels.gpus import GPUS
from kernels.triton_language import INTERPRETED
from tests.bench.result_samples import comparison

CPU = torch.device("cpu")
ASSUMED_SECONDS_OF_A_KEY, ASSUMED_SECONDS_OF_A_CANDIDATE = 0.8, 0.25
SOON = 3600.0
NOT_DISTRIBUTIONS = ("PIL", "yaml", "skimage", "onnx", "onnxruntime", "openvino", "xdist")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("arguments", [[], ["--quick"], ["--only", "step"]], ids=["all", "quick", "one phase"])
def test_without_a_gpu_it_says_so_in_a_line_and_writes_nothing(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--out", str(tmp_path / "out"), *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (f"error: bench.gpu needs an NVIDIA GPU, and PyTorch {torch.__version__} sees none here\n")
    assert not (tmp_path / "out").exists()


def test_it_needs_nothing_but_pytorch_triton_numpy_and_pytest() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    others = [*declared["dependencies"], *declared["optional-dependencies"]["dev"], *NOT_DISTRIBUTIONS]
    modules = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in others} - {
        "torch",
        "triton",
        "numpy",
        "pytest",
    }
    program = (
        f"import sys; sys.modules |= dict.fromkeys({sorted(modules - {'cyclegan_fast'})!r}); "
        "import bench.gpu, bench.phase_process, bench.tests_worker"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_all_phases_fit_into_the_time_that_is_promised() -> None:
    assert sum(phase.share_s for phase in gpu.PHASES) + phases.KILL_AFTER_S < 9 * 60
    assert sum(phase.quick_s for phase in gpu.PHASES) + phases.KILL_AFTER_S <= 3 * 60


def phase(name: str, seconds: float) -> Phase:
    return Phase(name, seconds, seconds, lambda task: 0)


def test_a_phase_that_fails_or_hangs_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phases, "KILL_AFTER_S", 0.0)
    monkeypatch.setattr(phases, "SHORTEST_S", 0.5)
    child, script = tmp_path / "child", tmp_path / "child.py"
    script.write_text(f"import time, pathlib; time.sleep(4); pathlib.Path({str(child)!r}).touch()")
    programs = {
        "first": "print('hello from first')",
        "breaks": "raise SystemExit(7)",
        # A child that outlives its parent would go on computing beside the next phase.
        "hangs": f"import subprocess; subprocess.run([sys.executable, {str(script)!r}])",
        "last": "print('hello from last')",
    }
    given = "import sys, time; print(f'given {float(sys.stdin.readline()) - time.monotonic():.2f} s', flush=True); "

    def command(each: Phase) -> list[str]:
        return [sys.executable, "-c", given + programs[each.name]]

    statuses = run_phases([phase(name, 1) for name in programs], tmp_path, quick=False, command=command)
    assert statuses == {"first": 0, "breaks": 7, "hangs": CUT_SHORT, "last": 0}
    log = (tmp_path / LOG).read_text()
    assert log.index("hello from first") < log.index("ended: hangs did not stop") < log.index("hello from last")
    # What the first ones left over goes to those that follow.
    first_s, breaks_s, hangs_s, last_s = map(float, re.findall(r"given ([\d.]+) s", log))
    assert first_s <= 1
    assert 1 < breaks_s <= 2
    assert 2 < hangs_s <= 3
    assert last_s <= 1
    time.sleep(1.5)
    assert not child.exists()
    assert "failed with status 7, see log.txt" in capsys.readouterr().out


def test_the_next_phase_starts_while_one_runs_and_begins_when_it_is_told(tmp_path: Path) -> None:
    """It imports meanwhile, which takes seconds."""
    began = time.monotonic()
    program = (
        "import sys, time; started = time.monotonic(); until_s = sys.stdin.readline(); time.sleep(1); "
        f"print(sys.argv[1], started - {began}, time.monotonic() - {began}, flush=True)"
    )
    planned_phases = [phase(name, 30) for name in ("one", "two")]
    statuses = run_phases(
        planned_phases, tmp_path, quick=False, command=lambda each: [sys.executable, "-c", program, each.name]
    )
    assert statuses == {"one": 0, "two": 0}
    lines = [line.split() for line in (tmp_path / LOG).read_text().splitlines() if line[:3] in ("one", "two")]
    (_, _, one_ended), (_, two_started, two_ended) = ((name, float(a), float(b)) for name, a, b in lines)
    assert two_started < one_ended
    assert two_ended >= one_ended + 1


def test_a_phase_without_time_does_not_begin_and_its_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "KILL_AFTER_S", 0.2)
    monkeypatch.setattr(phases, "SHORTEST_S", 1.0)
    programs = {
        "slow": "import time; time.sleep(9)",
        "never": f"import sys, pathlib; sys.stdin.readline() and pathlib.Path({str(tmp_path / 'begun')!r}).touch()",
    }
    statuses = run_phases(
        [phase("slow", 2), phase("never", 1)],
        tmp_path,
        quick=False,
        command=lambda each: [sys.executable, "-c", programs[each.name]],
    )
    assert statuses == {"slow": CUT_SHORT, "never": CUT_SHORT}
    assert not (tmp_path / "begun").exists()


def test_a_phase_may_be_a_command_of_its_own_that_is_told_its_seconds(tmp_path: Path) -> None:
    def command(out: Path, seconds: float) -> list[str]:
        return [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(2)", str(out), f"{seconds:.0f}"]

    other = [sys.executable, "-c", "print('other')"]
    statuses = run_phases(
        [Phase("check", 7, 7, command=command), phase("other", 3)], tmp_path, quick=False, command=lambda _: other
    )
    assert statuses == {"check": 2, "other": 0}
    assert f"['{tmp_path}', '7']" in (tmp_path / LOG).read_text()
    name, *arguments = gpu.check(tmp_path, 63)[1:]
    assert (name, *arguments) == ("-m", "kernels.check", "--out", str(tmp_path), "--seconds", "60")


def case(name: str, ours: float = 2.0) -> Case:
    x = torch.ones(10)
    contest = Contest(
        {"plain PyTorch": Contender([lambda: x * 2]), "ours": Contender([lambda: x * ours])},
        "ours",
        "plain PyTorch",
        [torch.full((10,), 2.0, dtype=torch.float64)],
        1e-6,
    )
    return Case("operators", name, "10", "float32", 1, 256, 80, 10, lambda: contest)


def task(out: Path, seconds: float = SOON) -> Task:
    return Task(CPU, out, time.monotonic() + seconds, quick=True)


@pytest.fixture
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases.machine_limits, "measure", lambda device, tiny: Limits(10.0, {"float32": 1.0}))
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
    full = Task(CPU, Path(), 0.0, quick=False)
    *others, lowest = map(name_of, dtypes(CPU))
    steps = list(gpu_cases.step_cases(full))
    assert [(each.dtype, each.batch) for each in steps[:3]] == [(lowest, 1), (lowest, 16), (lowest, 1)]
    assert {each.dtype for each in steps} == {lowest, *others}
    sites = list(gpu_cases.operator_cases(full))
    assert {(each.dtype, each.batch) for each in sites[:22]} == {(lowest, 1)}
    assert {(each.dtype, each.batch) for each in sites[22:44]} == {(lowest, 16)}
    every_site = {(each.case, each.shape, each.dtype) for each in sites}
    # In the lowest precision also twice the batches, which a step launches as well.
    assert {each.batch for each in sites if each.dtype == lowest} == {1, 2, 16, 32}
    assert len(every_site) == 11 * 2 * (4 + 2 * len(others))
    passes = list(gpu_cases.network_cases(full))
    assert (passes[0].case, passes[0].dtype, passes[0].batch) == ("generator, forward and backward", lowest, 1)


def test_the_training_comparison_is_written_and_says_how_far_ours_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = training.Setting(side=32, steps=6, width=4, blocks=6)
    assert gpu.train(task(tmp_path, 0), setting) == 0
    found = json.loads((tmp_path / gpu.TRAINING).read_text())
    assert found["setting"]["steps"] == 6
    curves = found["curves"]
    assert all(len(values) == 6 for curve in curves.values() for values in curve["losses"].values())
    plain, ours, other = (curves[name]["losses"]["cycle_A"] for name in (training.PLAIN, training.OURS, training.AGAIN))
    # The same weights and images: the first losses are those of plain PyTorch, to bfloat16's precision.
    assert ours[0] == pytest.approx(plain[0], rel=0.02)
    assert abs(other[0] / plain[0] - 1) > 1e-3
    assert f"losses at the end {found['of_ours']:.1%} from plain PyTorch's" in capsys.readouterr().out


def test_the_distance_between_curves_by_hand() -> None:
    def curve(first: float, second: float) -> training.Curve:
        return training.Curve(10.0, {"a": [9.0, 9.0, 9.0, first], "b": [9.0, 9.0, 9.0, second]})

    outcome = training.Outcome(
        training.Setting(32, 4),
        {training.PLAIN: curve(2.0, 4.0), training.AGAIN: curve(3.0, 4.0), training.OURS: curve(2.2, 3.6)},
    )
    assert outcome.between_seeds == pytest.approx(0.25)
    assert outcome.of_ours == pytest.approx(0.1)


def test_images_are_drawn_alike_for_a_seed_and_the_domains_differ() -> None:
    photographs, drawings = training.drawn_images(32, 0)
    again, _ = training.drawn_images(32, 0)
    assert photographs.shape == drawings.shape == (training.IMAGES, 32, 32, 3)
    assert (photographs == again).all()
    assert photographs.std() > 20
    # A drawing is ink on paper: one channel tells the others.
    for pixels, alike in ((drawings, True), (photographs, False)):
        red, green, blue = (pixels[..., channel].ravel().astype(float) for channel in range(3))
        assert (np.corrcoef(red, green)[0, 1] > 0.999) == alike
        assert (np.corrcoef(red, blue)[0, 1] > 0.999) == alike


def test_kernels_are_summed_by_their_kind_and_the_rest_of_the_time_is_gaps() -> None:
    kernels = [
        KernelTime("instance_norm_apply", 30.0),
        KernelTime("instance_norm_apply", 10.0),
        KernelTime("sm90_xmma_fprop_implicit_gemm_bf16", 100.0),
        KernelTime("void multi_tensor_apply_kernel<FusedAdam>", 20.0),
        KernelTime("cudnn::ops::nchwToNhwcKernel", 4.0),
        KernelTime("tanh_kernel", 6.0),
    ]
    found = summed(kernels, wall_us=200.0, steps=2)
    assert found.wall_us == 100
    assert found.kinds_us == {
        "fused norms": 20.0,
        "convolutions": 50.0,
        "optimiser": 10.0,
        "copies and layout": 2.0,
        "other": 3.0,
    }
    assert found.gaps_us == 15
    assert [kernel.us for kernel in found.slowest[:2]] == [50, 20]
    assert kind_of("reflection_pad_backward") == "reflection padding"
    assert "convolutions              0.050 ms  50.0%" in found.described()


def test_the_summary_is_short_and_says_what_failed(tmp_path: Path) -> None:
    (tmp_path / "tests.txt").write_text(
        "collected\t5\ttests/a.py\n"
        "begun\ttests/a.py::one\t\npassed\ttests/a.py::one\t0.10 s\n"
        "begun\ttests/a.py::two\t\nfailed\ttests/a.py::two\tassert 1 == 2\n"
        "begun\ttests/a.py::three\t\nskipped\ttests/a.py::three\tno tyro\n"
        "begun\ttests/a.py::four\t\n"
    )
    (tmp_path / "profile.txt").write_text("\n".join(f"profile {line}" for line in range(60)))
    text = summary(tmp_path, {"tests": 1, "tune": 0, "step": CUT_SHORT}, "NVIDIA H200")
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES
    assert lines[:4] == [
        "NVIDIA H200",
        "phases: tests FAILED, tune done, step cut short",
        "tests: 1 passed, 1 failed, 1 skipped, 1 without an end, 1 not begun",
        "  tests/a.py::two: assert 1 == 2",
    ]


def test_the_summary_says_what_the_check_of_the_kernels_found(tmp_path: Path) -> None:
    results = [{"share_of_allowed": share} for share in (0.2, 0.71)]
    failures = ["instance_norm, after the stem, float32, batch 2, is off by 0.5 of its size, 9 times what is allowed"]
    (tmp_path / "check.json").write_text(json.dumps({"failures": failures, "results": results}))
    assert summary(tmp_path, {"check": 1}, "NVIDIA H200").splitlines()[1:] == [
        "phases: check FAILED",
        "check: 2 cases, errors up to 0.71 of what is allowed, 1 failures",
        f"  {failures[0]}",
    ]


def test_of_many_failed_tests_the_first_are_named(tmp_path: Path) -> None:
    lines = "".join(f"failed\ttests/a.py::test_{number}\treason\n" for number in range(20))
    (tmp_path / "tests.txt").write_text(f"collected\t20\ttests/a.py\n{lines}")
    found = summary(tmp_path, {"tests": 1}, "NVIDIA H200").splitlines()
    assert found[2:] == [
        "tests: 0 passed, 20 failed",
        *(f"  tests/a.py::test_{number}: reason" for number in range(8)),
        "  12 more, see test-failures.txt",
    ]


def test_sites_are_summed_up_by_direction() -> None:
    sites = [
        comparison(times, case=f"{site}, forward", limit_ms=1.0)
        for site, times in (
            ("a", {"plain PyTorch": 8.0, "torch.compile default": 4.0, "ours": 2.0}),
            ("b", {"plain PyTorch": 2.0, "torch.compile default": 9.0, "ours": 4.0}),
        )
    ]
    (line,) = operators_lines(sites)
    # 4 / 2 and 2 / 4 cancel; 50% and 25% of the limit.
    assert line == (
        "norms forward, bfloat16, batch 1: 2 sites, 1.00x the best opponent (0.50 to 2.00), 38% of the limit, "
        "least 25% b"
    )


def test_phases_share_what_seconds_are_given() -> None:
    chosen = [each for each in gpu.PHASES if each.name in ("step", "operators")]
    scaled = planned(chosen, 350, quick=False)
    assert [each.name for each in scaled] == ["step", "operators"]
    assert sum(each.share_s for each in scaled) == pytest.approx(350)
    assert scaled[0].share_s / scaled[1].share_s == pytest.approx(chosen[0].share_s / chosen[1].share_s)
    assert sum(each.quick_s for each in planned(chosen, 35, quick=True)) == pytest.approx(35)
    assert planned(chosen, None, quick=False) == chosen


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

    def measure(device: torch.device, *, tiny: bool) -> Limits:
        measured.append(tiny)
        return Limits(12.5, {"float32": 0.5})

    monkeypatch.setattr(phases.machine_limits, "measure", measure)
    assert gpu.measure_limits(task(tmp_path)) == 0
    assert task(tmp_path).limits == task(tmp_path).limits == Limits(12.5, {"float32": 0.5})
    assert measured == [False]


# --- a rehearsal -----------------------------------------------------------------------------------------------------


def test_what_a_rehearsal_measures_says_so_and_is_refused_among_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases.machine_limits, "measure", lambda device, tiny: Limits(10.0, {"float32": 1.0}))
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
        gpu.tune(replace(task(tmp_path), tiny=tiny, quick=False))
    assert tables == [tmp_path / "tuned", launch.TUNED]
    assert visited == [2, 2]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu.main(["--tiny", "--out", str(RESULTS / "rehearsal")]) == 2
    assert "--tiny measures nothing that belongs into" in capsys.readouterr().err
    if INTERPRETED:
        assert gpu.main(["--out", str(tmp_path)]) == 2
        assert "unset it to measure the GPU" in capsys.readouterr().err


def test_a_rehearsal_measures_every_subject_on_tiny_networks() -> None:
    tiny = Task(CPU, Path(), 0.0, tiny=True)
    for cases in (gpu_cases.step_cases, gpu_cases.operator_cases, gpu_cases.network_cases, gpu_cases.scaling_cases):
        found = list(cases(tiny))
        assert found
        assert all(each.side <= 32 for each in found)
        assert sum(each.operations for each in found) < 1e9
    (translated,) = gpu_cases.translation_cases(tiny)
    assert translated.shape == "1x24x24x3"


# --- what is compiled ahead ------------------------------------------------------------------------------------------


def test_all_that_the_tuner_tries_is_compiled_ahead_and_steps_come_first() -> None:
    """In a process of its own: Triton's interpreter does not know what a compiler would specialise."""
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.bench.record_later_launches"]
    ended = subprocess.run(command, cwd=ROOT, env=compiling, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_tuner_goes_through_all_keys_of_a_small_step_in_its_time() -> None:
    """By what a candidate and a key are taken to need: nobody has measured it yet."""
    trials = list(trials_in_order(PAPER_EXTENT, torch.bfloat16, PAPER_EXTENT.visits[:1], GPUS[90]))
    of_a_small_step = [task_.key for task_, plan in trials if task_.batch in (1, 2)]
    keys = len(set(of_a_small_step))
    assert keys == 34
    seconds = keys * ASSUMED_SECONDS_OF_A_KEY + (len(of_a_small_step) - keys) * ASSUMED_SECONDS_OF_A_CANDIDATE
    (share_s,) = (each.share_s for each in gpu.PHASES if each.name == "tune")
    assert seconds <= share_s
