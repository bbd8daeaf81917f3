"""--profile prints a table and writes a trace."""

import json
import re
import threading
import time
from pathlib import Path

import pytest
import torch

from cyclegan_fast import train
from cyclegan_fast.training.step_profile import TRACE, UNMEASURED, StepProfile
from tests.cyclegan_fast.conftest import TINY

CPU = torch.device("cpu")


def table(text: str) -> dict[str, float]:
    """Milliseconds a step by phase."""
    return {name.strip(): float(ms) for name, ms in re.findall(r"^  (.+?)\s+([\d.]+) ms", text, re.MULTILINE)}


def test_phases_are_timed_after_the_first_steps_and_what_is_between_them_is_the_rest(tmp_path: Path) -> None:
    told: list[str] = []
    profile = StepProfile(3, CPU, tmp_path, 1, told.append)
    for number in range(UNMEASURED + 5):
        profile.begin_step()
        with profile.phase("short"):
            time.sleep(0.02 if UNMEASURED <= number < UNMEASURED + 3 else 0.3)
        time.sleep(0.01)
        profile.end_step()
    (text,) = told
    assert text.startswith("3 steps took ")
    found = table(text)
    assert list(found) == ["short", "between phases"]
    assert 20 <= found["short"] < 60  # a shared machine may sleep longer, but not by the 300 ms of the other steps
    assert 10 <= found["between phases"] < 60
    names = {event.get("name") for event in json.loads((tmp_path / TRACE).read_text())["traceEvents"]}
    assert "short" in names


def test_phases_that_threads_enter_at_once_count_by_their_share(tmp_path: Path) -> None:
    told: list[str] = []
    profile = StepProfile(1, CPU, tmp_path, 2, told.append)

    def work() -> None:
        with profile.phase("both"):
            time.sleep(0.05)

    for _ in range(UNMEASURED + 2):
        profile.begin_step()
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        profile.end_step()
    assert 50 <= table(told[0])["both"] < 90


def test_a_run_that_ends_before_all_steps_were_measured_tells_of_those_that_were(tmp_path: Path) -> None:
    told: list[str] = []
    profile = StepProfile(100, CPU, tmp_path, 1, told.append)
    for _ in range(UNMEASURED + 3):
        profile.begin_step()
        profile.begin_step()  # as where an epoch ends
        profile.end_step()
    profile.begin_step()
    profile.finish()
    profile.finish()
    (text,) = told
    assert text.startswith("3 steps took ")


def test_a_run_that_ends_before_the_first_measured_step_tells_nothing(tmp_path: Path) -> None:
    profile = StepProfile(3, CPU, tmp_path, 1, pytest.fail)
    for _ in range(UNMEASURED):
        profile.begin_step()
        profile.end_step()
    profile.begin_step()
    profile.finish()
    assert list(tmp_path.iterdir()) == []


def test_without_steps_to_measure_there_is_no_trace(tmp_path: Path) -> None:
    profile = StepProfile(0, CPU, tmp_path, 1, pytest.fail)
    for _ in range(UNMEASURED + 3):
        profile.begin_step()
        with profile.phase("x"):
            pass
        profile.end_step()
    profile.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_prints_every_phase_of_a_step(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [*TINY, "--max-steps", "12", "--profile", "4", "--runs", str(tmp_path), "--name", "x"]
    assert train.main(arguments) == 0
    output = capfd.readouterr().out
    assert "4 steps took " in output
    phases = ["data", "G forward", "G backward", "pool", "D", "G update", "D update", "report", "between phases"]
    assert set(table(output)) == set(phases)
    assert (tmp_path / "x" / TRACE).exists()
