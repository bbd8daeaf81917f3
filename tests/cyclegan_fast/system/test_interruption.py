"""Ctrl-C and SIGTERM in real processes: what is said, what is saved, how soon a command ends, and its exit status."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyclegan_fast import sample_photos, train
from cyclegan_fast.checkpoint.files import load
from tests.cyclegan_fast.training.test_train import command

ROOT = Path(__file__).parents[3]
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
STOPPING = "stopping after this step; Ctrl-C again stops now"

COMMANDS = """
import hashlib, sys, time
from cyclegan_fast.system.errors import run_command
from cyclegan_fast.system.interruption import Interruption

def in_steps():
    with Interruption(after="this step") as interruption:
        print("begun")
        while not interruption.requested:
            # One call of a library that takes its time: Python's handlers of signals do not run in it.
            hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[2]))
    print("ended the step")
    return interruption.request.status

def at_once():
    print("begun")
    time.sleep(600)
    return 0

sys.exit(run_command({"steps": in_steps, "at once": at_once}[sys.argv[1]]))
"""

SLOW_ANSWER = """
import sys, time
from cyclegan_fast.system.interruption import Interruption

class Busy:
    def find_spec(self, name, path=None, target=None):
        if name == "tqdm":  # which prints the answer
            time.sleep(1)

sys.meta_path.insert(0, Busy())
with Interruption(after="this step") as interruption:
    print("begun", flush=True)
    time.sleep(3)
print("ended the step", flush=True)
sys.exit(interruption.request.status)
"""

SLOW_TRAINING = """
import sys, time
from cyclegan_fast.training import validation as evaluator
from cyclegan_fast import train
from cyclegan_fast.data.image_folder import ImageFolder

def slowly(owner, name, seconds):
    function = getattr(owner, name)

    def slow(*arguments, **options):
        print(f"in {name}")
        time.sleep(seconds)
        return function(*arguments, **options)

    setattr(owner, name, slow)

if sys.argv[1] == "reading":
    slowly(ImageFolder, "_decode", 1.0)
if sys.argv[1] == "scoring":
    slowly(evaluator, "evaluate", 600)
sys.exit(train.main(sys.argv[2:]))
"""


class Process:
    """Runs a process and knows on which line it is, as soon as it has written it."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a process group of its own, as a terminal gives it
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            assert time.monotonic() < deadline, f"no {text!r} in: {self.output}"
            assert self.process.poll() is None or self.reader.is_alive(), self.output
            time.sleep(0.01)

    def send(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self, timeout_s: float = 120.0) -> int:
        """Wait for the end, and return the exit status; where there is no end, show what every thread is at."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # the fault handler then writes the threads' tracebacks
            self.reader.join(10)
            pytest.fail(f"no end within {timeout_s:g} s: {self.output}")
        self.reader.join(10)
        return status

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start() -> Iterator[type[Process]]:
    started: list[Process] = []

    class Started(Process):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            started.append(self)

    yield Started
    for process in started:
        process.stop()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interruption") / "data"
    sample_photos.main([str(folder), "--side", "36", "--count", "7"])
    return folder


# --- any command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_the_first_signal_is_answered_at_once_and_the_second_ends_within_a_second(
    number: int, status: int, start: type[Process]
) -> None:
    process = start("-c", COMMANDS, "steps", 10**9)  # hours
    process.wait_for("begun")
    process.send(number)
    process.wait_for(STOPPING, 1.0)
    time.sleep(0.3)
    assert process.process.poll() is None
    process.send(number)
    assert process.end(1.0) == status
    assert process.lines == ["begun", STOPPING]


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_two_signals_of_one_moment_are_one_request(number: int, status: int, start: type[Process]) -> None:
    """`timeout` sends each signal to its child, and then to the group that both are in."""
    process = start("-c", COMMANDS, "steps", 1_000_000)
    process.wait_for("begun")
    for _ in range(2):
        process.send(number)
    assert process.end() == status
    assert process.lines == ["begun", STOPPING, "ended the step"]


def test_on_a_busy_machine_too_they_are_one_request(start: type[Process]) -> None:
    process = start("-c", SLOW_ANSWER)
    process.wait_for("begun")
    process.send(signal.SIGINT)
    time.sleep(0.3)
    process.send(signal.SIGINT)
    assert process.end() == 130
    assert process.lines == ["begun", STOPPING, "ended the step"]


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_command_without_steps_stops_at_once_and_says_so_once(number: int, status: int, start: type[Process]) -> None:
    process = start("-c", COMMANDS, "at once")
    process.wait_for("begun")
    process.send(number)
    assert process.end(1.0) == status
    assert process.lines == ["begun", "stopped; the same command continues"]


# --- a training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [SIGNALS[0], pytest.param(*SIGNALS[1], marks=pytest.mark.slow)])
def test_a_training_saves_and_does_not_score(
    number: int, status: int, data: Path, tmp_path: Path, start: type[Process]
) -> None:
    arguments = command(data, tmp_path, "x", "--max-steps", "100000", "--epochs", "100000")
    process = start("-m", "cyclegan_fast.train", *arguments)
    process.wait_for("steps 0 to 100000")  # through a pipe, long before the end
    while not (tmp_path / "x" / "metrics.jsonl").exists() or not (tmp_path / "x" / "metrics.jsonl").stat().st_size:
        assert process.process.poll() is None, process.output
        time.sleep(0.01)
    process.send(number)
    assert process.end() == status
    step = load(tmp_path / "x" / "checkpoints" / "last.pt")["log"]["step"]
    assert process.output.count(STOPPING) == 1
    assert process.output.count(f"interrupted after step {step}; the same command continues") == 1
    assert "reconstructed" not in process.output
    assert "Traceback" not in process.output
    assert not (tmp_path / "x" / "results.json").exists()


def test_a_signal_while_images_are_read_stops_at_once(data: Path, tmp_path: Path, start: type[Process]) -> None:
    process = start("-c", SLOW_TRAINING, "reading", *command(data, tmp_path, "x"))
    process.wait_for("in _decode")
    process.send(signal.SIGTERM)
    assert process.end(60.0) == 143
    assert process.lines[-1] == "stopped; the same command continues"
    assert process.output.count("stopped") == 1


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 3])
def test_a_signal_during_an_evaluation_leaves_that_to_the_next_start(
    every: int, data: Path, tmp_path: Path, start: type[Process]
) -> None:
    """Interrupts at the end of the run, and with --evaluate-every after a step: nothing of the result differs."""
    arguments = [*command(data, tmp_path, "x", "--max-steps", "6"), "--evaluate-every", str(every)]
    process = start("-c", SLOW_TRAINING, "scoring", *arguments)
    process.wait_for("in evaluate")
    process.send(signal.SIGINT)
    assert process.end(60.0) == 130
    step = every or 6
    what = "continues" if every else "scores the run, whose steps are all done"
    assert process.output.count(f"interrupted after step {step}; the same command {what}") == 1
    assert not (tmp_path / "x" / "results.json").exists()
    assert load(tmp_path / "x" / "checkpoints" / "last.pt")["log"]["step"] == step
    assert train.main(arguments) == 0
    assert train.main([*command(data, tmp_path, "whole", "--max-steps", "6"), "--evaluate-every", str(every)]) == 0
    found, expected = (results(tmp_path / name) for name in ("x", "whole"))
    assert found == expected
    assert len(expected[1]) == (2 if every else 0)


def results(run: Path) -> tuple[object, list[str]]:
    """Return the rows of the final table, and the lines of evaluations.jsonl."""
    rows = json.loads((run / "results.json").read_text())["rows"]
    evaluations = run / "evaluations.jsonl"
    return rows, evaluations.read_text().splitlines() if evaluations.exists() else []


@pytest.mark.slow
def test_ctrl_c_on_torchrun_saves_on_all_ranks_and_is_said_once(
    data: Path, tmp_path: Path, start: type[Process]
) -> None:
    """Signals launcher and ranks as a terminal does; the launcher sends the signal to the ranks once more."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = command(data, tmp_path, "x", "--max-steps", "100000", "--epochs", "100000", "--device", "cpu")
    process = start(*launcher, "-m", "cyclegan_fast.train", *arguments)
    metrics = tmp_path / "x" / "metrics.jsonl"
    while not metrics.exists() or not metrics.stat().st_size:
        assert process.process.poll() is None, process.output
        time.sleep(0.01)
    process.send(signal.SIGINT)
    process.end()
    saved = load(tmp_path / "x" / "checkpoints" / "last.pt")
    assert process.output.count(STOPPING) == 1
    assert process.output.count(f"interrupted after step {saved['log']['step']}; the same command continues") == 1
    assert len(saved["ranks"]) == 2
    assert not saved["finished"]
    assert "SIGKILL" not in process.output
