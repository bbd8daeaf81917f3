"""Phases of `bench.gpu` are told what they need, leave the rest over, and one that fails costs the others nothing."""

import re
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.new_gpu import phases
from bench.new_gpu.phases import Phase, PhaseTask, planned, run_phases
from bench.new_gpu.summary import CUT_SHORT, LOG_FILE


def phase(name: str, seconds: float) -> Phase:
    return Phase(name, seconds, seconds, lambda task: 0)


def test_a_phase_that_fails_or_hangs_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phases, "KILL_AFTER_S", 0.0)
    monkeypatch.setattr(phases, "_SHORTEST_S", 0.5)
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
    log = (tmp_path / LOG_FILE).read_text()
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
    lines = [line.split() for line in (tmp_path / LOG_FILE).read_text().splitlines() if line[:3] in ("one", "two")]
    (_, _, one_ended), (_, two_started, two_ended) = ((name, float(a), float(b)) for name, a, b in lines)
    assert two_started < one_ended
    assert two_ended >= one_ended + 1


def test_a_phase_without_time_does_not_begin_and_its_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "KILL_AFTER_S", 0.2)
    monkeypatch.setattr(phases, "_SHORTEST_S", 1.0)
    programs = {
        "slow": "import time; time.sleep(9)",
        "never": f"import sys, pathlib; sys.stdin.readline() and pathlib.Path({str(tmp_path / 'begun')!r}).touch()",
        "last": "import sys; sys.stdin.readline(); sys.exit(7)",
    }
    statuses = run_phases(
        [phase("slow", 2), phase("never", 1), phase("last", 20)],
        tmp_path,
        quick=False,
        command=lambda each: [sys.executable, "-c", programs[each.name]],
    )
    assert statuses == {"slow": CUT_SHORT, "never": CUT_SHORT, "last": 7}
    assert not (tmp_path / "begun").exists()


def test_a_phase_may_be_a_command_of_its_own_that_is_told_its_seconds(tmp_path: Path) -> None:
    def command(out: Path, seconds: float) -> list[str]:
        return [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(2)", str(out), f"{seconds:.0f}"]

    other = [sys.executable, "-c", "print('other')"]
    statuses = run_phases(
        [Phase("check", 7, 7, command=command), phase("other", 3)], tmp_path, quick=False, command=lambda _: other
    )
    assert statuses == {"check": 2, "other": 0}
    assert f"['{tmp_path}', '7']" in (tmp_path / LOG_FILE).read_text()
    name, *arguments = gpu.check_command(tmp_path, 63)[1:]
    assert (name, *arguments) == ("-m", "kernels.check", "--out", str(tmp_path), "--seconds", "60")


def test_phases_share_what_seconds_are_given() -> None:
    chosen = [each for each in gpu.PHASES if each.name in ("step", "operators")]
    scaled = planned(chosen, 350, quick=False)
    assert [each.name for each in scaled] == ["step", "operators"]
    assert sum(each.share_s for each in scaled) == pytest.approx(350)
    assert scaled[0].share_s / scaled[1].share_s == pytest.approx(chosen[0].share_s / chosen[1].share_s)
    assert sum(each.quick_s for each in planned(chosen, 35, quick=True)) == pytest.approx(35)
    assert planned(chosen, None, quick=False) == chosen


def test_each_phase_is_run_with_the_options_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, PhaseTask]] = []

    def run(name: str, task_: PhaseTask) -> int:
        given.append((name, task_))
        return len(given)

    monkeypatch.setattr(gpu, "PHASES", [replace(each, run=each.run and partial(run, each.name)) for each in gpu.PHASES])
    monkeypatch.setattr(gpu, "told_until", lambda: 12.5)
    monkeypatch.setattr(gpu.gc, "freeze", lambda: None)
    options = gpu.argument_parser().parse_args(["--tiny", "--quick"])
    processes = [each for each in gpu.PHASES if each.command is None]
    for number, each in enumerate(processes, 1):
        _, _, module, *arguments = gpu._command(tmp_path, options)(each)
        assert module == "bench.phase_process"
        assert gpu.run_phase(arguments) == number
    expected = PhaseTask(torch.device("cuda", 0), tmp_path, 12.5, quick=True, tiny=True)
    assert given == [(each.name, expected) for each in processes]
    assert [each.name for each in gpu.PHASES if each.command] == ["check"]


def test_all_phases_fit_into_the_time_that_is_promised() -> None:
    assert sum(phase.share_s for phase in gpu.PHASES) + phases.KILL_AFTER_S < 9 * 60
    assert sum(phase.quick_s for phase in gpu.PHASES) + phases.KILL_AFTER_S <= 3 * 60
