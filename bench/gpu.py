"""`python -m bench.gpu`: everything that a new GPU needs, in one command under nine minutes.

The GPU tests, the tuner, the benchmarks in order of importance, a training run beside plain PyTorch's, and a profile.
Each phase is a process of its own, so that one that crashes costs the others nothing; each has a share of the time, and
what one leaves over goes to the next. Everything is written as it is found, into one folder.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench import limits as machine_limits, networks, operators, scaling, step, step_profile, training, translation
from bench.agreement import Disagreement
from bench.contest import Case, described, measure
from bench.machine import ROOT, device_name, stamp
from bench.records import Recorder, path_for
from bench.summary import summary
from cyclegan_fast.files import write_atomically
from kernels.sites import all_sites, discriminator_sites, generator_sites

SIDE = 256
MOST_ROUNDS = 25
PROBE = training.Setting(side=128, steps=30)
MOST_STEPS = 2000
SHORTEST_S = 5.0
"""What a phase gets though those before it have left nothing"""
KILL_AFTER_S = 8.0
"""of its time being over, a phase is ended"""
TESTS, LOG, TUNED, TRAINING, PROFILE, SUMMARY = (
    "tests.txt",
    "log.txt",
    "tuned.json",
    "training.json",
    "profile.txt",
    "summary.txt",
)


@dataclass(frozen=True)
class Phase:
    """A part of the whole.

    `run` does it in a process of its own until `time.monotonic()` is its second argument, and gives the exit status.
    """

    name: str
    share_s: float
    quick_s: float
    """with --quick"""
    run: Callable[["Task"], int]


@dataclass(frozen=True)
class Task:
    """What a phase is to do."""

    device: torch.device
    out: Path
    until_s: float
    """of `time.monotonic()`; nothing new begins afterwards"""
    quick: bool

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.until_s


def test(task: Task) -> int:
    """The GPU tests, then all tests of the kernels, which run on the GPU where there is one."""
    first = ["-m", "gpu", "tests/kernels/test_gpu.py", "tests/test_gpu_step.py", "tests/test_gpu.py"]
    if task.quick:
        first += ["-k", "not sanitizer and not 2_to_the_31 and not thousand"]
    second = ["tests/kernels/test_operators.py", "tests/kernels/test_accuracy.py", "tests/kernels/test_determinism.py"]
    status = 0
    with open(task.out / TESTS, "w") as file:
        for arguments in (first, second):
            command = [sys.executable, "-m", "pytest", "-rfE", "--tb=short", "-p", "no:cacheprovider", *arguments]
            left_s = task.until_s - time.monotonic()
            if left_s < 5:
                file.write(f"not run, no time was left: {' '.join(arguments)}\n")
                break
            try:
                ended = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=left_s)
                status = status or ended.returncode
            except subprocess.TimeoutExpired:
                file.write("\ncut short: its time was over\n")
    print((task.out / TESTS).read_text()[-1500:])
    return int(bool(status))


def tune(task: Task) -> int:
    """Tries plans at every site; writes kernels/tuned/<gpu>.json, and a copy of it beside the results."""
    from bench import tune as tuner
    from kernels import launch

    sites = [*generator_sites(side=SIDE), *discriminator_sites(side=SIDE)]
    dtypes = [torch.bfloat16] if task.quick else [torch.bfloat16, torch.float16, torch.float32]
    batches = [1] if task.quick else [1, 16]
    found = tuner.tune(task.device, sites, dtypes, batches, task.until_s, launch.TUNED, _tell)
    print(tuner.table(found))
    table = launch.tuned_path(device_name(task.device))
    if table.exists():
        shutil.copyfile(table, task.out / TUNED)
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def step_cases(task: Task) -> Iterator[Case]:
    """First what needs no compiler; then once more with it, since a mode may take longer than there is."""
    is_compiled = {
        "none": lambda name: "compile" not in name and "checkpoint" not in name,
        "quick to start": lambda name: "max-autotune" not in name and "--compile" not in name,
        "all": lambda name: True,
    }
    batches = (1,) if task.quick else (1, 16)
    for wants in list(is_compiled.values())[: 1 if task.quick else 3]:
        for batch in batches:
            yield from sorted(step.cases(SIDE, batch, task.device, wants), key=lambda case: case.dtype == "float32")


def operator_cases(task: Task) -> Iterator[Case]:
    dtypes = [torch.bfloat16] if task.quick else [torch.bfloat16, torch.float32, torch.float16]
    for batch in (1, 16):
        for dtype in dtypes[:1] if batch == 1 or task.quick else dtypes:
            yield from operators.cases(list(all_sites(SIDE)), [dtype], [batch], task.device, SIDE)
    if not task.quick:
        yield from operators.cases(list(all_sites(SIDE)), dtypes[1:], [1], task.device, SIDE)


def network_cases(task: Task) -> Iterator[Case]:
    for with_compile in (False, True):
        for dtype in (torch.bfloat16, torch.float32):
            yield from networks.cases(
                ["generator", "discriminator"],
                ["forward and backward", "forward"],
                [dtype],
                [1] if task.quick else [1, 16],
                SIDE,
                task.device,
                with_compile=with_compile,
            )


def measuring(cases: Callable[[Task], Iterable[Case]]) -> Callable[[Task], int]:
    """A phase that measures cases, in their order, until its time is over."""

    def run(task: Task) -> int:
        return measure_all(cases(task), task)

    return run


def measure_all(cases: Iterable[Case], task: Task) -> int:
    """Each comparison is on the disk before the next one begins; 1 where results of ours were wrong."""
    made = stamp(task.device)
    recorder = Recorder(path_for(made.device, task.out), made, machine_limits.measure(task.device))
    status = 0
    for case in cases:
        if task.is_over:
            print(f"no time was left for {case.title} and what follows")
            break
        try:
            comparison = measure(
                case, task.device, recorder.run.limits, lambda race: race.run(MOST_ROUNDS, task.until_s)
            )
        except Disagreement as error:
            print(f"{case.title}: {error}", flush=True)
            status = 1
            continue
        except torch.OutOfMemoryError as error:
            print(f"{case.title}: does not fit the memory: {str(error).splitlines()[0]}", flush=True)
            continue
        recorder.add(comparison)
        print(described(comparison), flush=True)
    return status


def train(task: Task, setting: training.Setting = PROBE) -> int:
    """As many steps as fit, of three runs; `setting` says of what, and how many tell how long they take."""
    outcome = training.compare(setting, task.device)
    per_step = sum(curve.seconds for curve in outcome.curves.values()) / setting.steps
    steps = min(MOST_STEPS, int((task.until_s - time.monotonic()) / per_step))
    if steps > 2 * setting.steps:
        outcome = training.compare(replace(setting, steps=steps), task.device)
    write_atomically(task.out / TRAINING, json.dumps(outcome.as_json()).encode())
    print(outcome.described())
    return 0


def profile(task: Task) -> int:
    text = step_profile.profile(task.device).described()
    write_atomically(task.out / PROFILE, f"{text}\n".encode())
    print(text)
    return 0


PHASES = (
    Phase("tests", 140, 45, test),
    Phase("tune", 80, 20, tune),
    Phase("step", 75, 30, measuring(step_cases)),
    Phase("operators", 75, 25, measuring(operator_cases)),
    Phase("training", 40, 20, train),
    Phase("networks", 45, 12, measuring(network_cases)),
    Phase("profile", 15, 10, profile),
    Phase("scaling", 25, 5, measuring(lambda task: scaling.cases(torch.bfloat16, task.device))),
    Phase("translation", 15, 3, measuring(lambda task: translation.cases(torch.bfloat16, SIDE, task.device))),
)


def run_phases(
    phases: Sequence[Phase], out: Path, quick: bool, command: Callable[[Phase, float], list[str]] | None = None
) -> dict[str, int]:
    """Run each in a process of its own; returns exit statuses, -1 for one that was ended because its time was over.

    Args:
        command: from a phase and its seconds to what is executed; by default this module with --phase.
    """
    started, planned = time.monotonic(), 0.0
    statuses: dict[str, int] = {}
    with open(out / LOG, "a") as log:
        for number, phase in enumerate(phases, 1):
            planned += phase.quick_s if quick else phase.share_s
            seconds = max(SHORTEST_S, started + planned - time.monotonic())
            print(f"[{number}/{len(phases)}] {phase.name}, up to {seconds:.0f} s", flush=True)
            log.write(f"\n=== {phase.name}\n")
            log.flush()
            arguments = (command or _command(out, quick))(phase, seconds)
            began = time.monotonic()
            # In a session of its own, so that what it has started ends with it.
            process = subprocess.Popen(
                arguments, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                statuses[phase.name] = process.wait(seconds + KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                _end(process)
                log.write(f"\nended: {phase.name} did not stop when its time was over\n")
                statuses[phase.name] = -1
            except BaseException:
                _end(process)
                raise
            print(f"      {_in_words(statuses[phase.name])} after {time.monotonic() - began:.0f} s", flush=True)
    return statuses


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command(out: Path, quick: bool) -> Callable[[Phase, float], list[str]]:
    def command(phase: Phase, seconds: float) -> list[str]:
        arguments = [sys.executable, "-m", "bench.gpu", "--phase", phase.name, "--seconds", f"{seconds:.0f}"]
        return [*arguments, "--out", str(out), *(["--quick"] if quick else [])]

    return command


def _in_words(status: int) -> str:
    return {0: "done", -1: "ended, its time was over"}.get(status, f"failed with status {status}, see {LOG}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Do all that a new GPU needs. " + " ".join((__doc__ or "").partition("\n\n")[2].split()),
        epilog="Needs an NVIDIA GPU, PyTorch, Triton, NumPy and pytest, in a checkout of this repository. The status "
        "is 1 where a test or a phase failed, 2 where there is no GPU.",
    )
    made.add_argument(
        "--out", type=Path, default=Path("gpu-results"), help="folder that is written to (default: %(default)s)"
    )
    made.add_argument("--quick", action="store_true", help="three minutes: what matters most")
    made.add_argument("--phase", choices=[phase.name for phase in PHASES], help="only this one, in this process")
    made.add_argument("--seconds", type=float, default=60, help="that --phase may take (default: %(default)s)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options: Any = parser().parse_args(arguments)
    if not torch.cuda.is_available():
        print(f"error: bench.gpu needs an NVIDIA GPU, and PyTorch {torch.__version__} sees none here", file=sys.stderr)
        return 2
    device = torch.device("cuda", 0)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.phase:
        phase = next(phase for phase in PHASES if phase.name == options.phase)
        return phase.run(Task(device, options.out.resolve(), time.monotonic() + options.seconds, options.quick))
    out: Path = options.out.resolve()
    statuses = run_phases(PHASES, out, options.quick)
    text = summary(out, statuses, device_name(device))
    write_atomically(out / SUMMARY, f"{text}\n".encode())
    print(f"\n{text}")
    return int(any(statuses.values()))


if __name__ == "__main__":
    sys.exit(main())
