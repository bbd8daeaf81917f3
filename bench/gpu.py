"""`python -m bench.gpu`: everything that a new GPU needs, in one command under nine minutes.

The GPU tests, the tuner, the benchmarks in order of importance, a training run beside plain PyTorch's, and a profile.
Each phase is a process of its own, so that one that crashes costs the others nothing; each has a share of the time, and
what one leaves over goes to the next. Everything is written as it is found, into one folder.
"""

import argparse
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import limits as machine_limits, networks, operators, scaling, step, step_profile, training, translation
from bench.agreement import Disagreement
from bench.contest import Case, described, in_words, measure
from bench.machine import ROOT, device_name, stamp, utc_now
from bench.records import Recorder, path_for
from bench.summary import CUT_SHORT, LOG, PROFILE, SUMMARY, TESTS, TRAINING, TUNED, summary
from bench.timing import Race
from bench.tune import table as tuned_table, tuning
from cyclegan_fast.device import set_determinism
from cyclegan_fast.files import write_atomically
from kernels import launch
from kernels.sites import all_sites

SIDE = 256
MOST_ROUNDS = 25
PROBE = training.Setting(side=128, steps=30)
MOST_STEPS = 2000
SECONDS_OF_A_RACE = 8.0
SECONDS_OF_A_KEY = 6.0
"""of the tuner's table"""
SHORTEST_S = 5.0
"""What a phase gets though those before it have left nothing"""
KILL_AFTER_S = 8.0
"""of its time being over, a phase is ended"""


@dataclass(frozen=True)
class Phase:
    """A part of the whole; `run` does it, in a process of its own, and gives the exit status."""

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
            if left_s < SHORTEST_S:
                file.write(f"not run, no time was left: {' '.join(arguments)}\n")
                return status or CUT_SHORT
            try:
                ended = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=left_s)
                status = status or int(bool(ended.returncode))
            except subprocess.TimeoutExpired:
                file.write("\ncut short: its time was over\n")
                status = status or CUT_SHORT
    print((task.out / TESTS).read_text()[-1500:])
    return status


def tune(task: Task) -> int:
    """Tries some plans at the sites that matter most; `python -m bench.tune` alone takes its time for all of them."""
    sites = list(all_sites(SIDE))
    dtypes = list(machine_limits.dtypes(task.device))[::-1][: 1 if task.quick else None]
    batches = [1] if task.quick else [1, 16]
    tell = partial(print, flush=True)
    found = tuning(task.device, sites, dtypes, batches, task.until_s, launch.TUNED, tell, key_s=SECONDS_OF_A_KEY)
    print(tuned_table(list(found)))
    return 0


def step_cases(task: Task) -> Iterator[Case]:
    """First what needs no compiler; then once more with it, since a mode may take longer than there is."""

    def without_compiler(name: str) -> bool:
        return "compile" not in name and "checkpoint" not in name

    def quick_to_start(name: str) -> bool:
        return "max-autotune" not in name and "--compile" not in name

    def everybody(name: str) -> bool:
        return True

    def in_precisions(batch: int, wants: step.Wants) -> list[Case]:
        """The lowest first."""
        return list(step.cases(SIDE, batch, task.device, wants))[::-1]

    yield from in_precisions(1, without_compiler)[:1]
    if task.quick:
        return
    yield from in_precisions(16, without_compiler)[:1]
    yield from in_precisions(1, quick_to_start)[:1]
    yield from in_precisions(1, without_compiler)[1:]
    yield from in_precisions(1, everybody)[:1]
    yield from in_precisions(16, without_compiler)[1:]
    yield from in_precisions(16, quick_to_start)[:1]


def operator_cases(task: Task) -> Iterator[Case]:
    """First against eager PyTorch at every site, then with compilers, which take seconds a site."""
    *others, lowest = machine_limits.dtypes(task.device)
    low = [lowest]
    sites = list(all_sites(SIDE))
    yield from operators.cases(sites, low, [1, 16], task.device, SIDE, with_compile=False)
    if task.quick:
        return
    by_importance = sorted(sites, key=lambda site: -site.times)
    yield from operators.cases(by_importance, low, [1, 16], task.device, SIDE)
    yield from operators.cases(sites, others, [1, 16], task.device, SIDE)


def network_cases(task: Task) -> Iterator[Case]:
    kinds: tuple[networks.Kind, ...] = ("generator", "discriminator")
    passes: tuple[networks.Pass, ...] = ("forward and backward", "forward")
    *others, lowest = machine_limits.dtypes(task.device)
    low = [lowest]
    yield from networks.cases(kinds, passes, low, [1], SIDE, task.device, with_compile=False)
    if task.quick:
        return
    yield from networks.cases(kinds[:1], passes, low, [1], SIDE, task.device)
    yield from networks.cases(kinds, passes, low, [16], SIDE, task.device, with_compile=False)
    yield from networks.cases(kinds, passes, others[:1], [1, 16], SIDE, task.device, with_compile=False)


def _lowest(task: Task) -> torch.dtype:
    return machine_limits.dtypes(task.device)[-1]


def measuring(cases: Callable[[Task], Iterable[Case]]) -> Callable[[Task], int]:
    """A phase that measures cases, in their order, until its time is over."""

    def run(task: Task) -> int:
        return measure_all(cases(task), task)

    return run


def measure_all(cases: Iterable[Case], task: Task) -> int:
    """Each comparison is on the disk before the next one begins; 1 where ours was wrong or a case did not run."""
    made = stamp(task.device)
    recorder = Recorder(path_for(made.device, task.out), made, machine_limits.measure(task.device))
    status = 0
    for case in cases:
        if task.is_over:
            print(f"no time was left for {case.title} and what follows")
            break
        try:
            comparison = measure(case, task.device, recorder.run.limits, partial(_some_rounds, task))
        except (Disagreement, RuntimeError) as error:
            print(f"{case.title}: {error if isinstance(error, Disagreement) else in_words(error)}", flush=True)
            status = 1
            if task.device.type == "cuda":
                torch.cuda.synchronize(task.device)  # raises where the GPU takes no more work: the phase is over
            continue
        finally:
            gc.collect()  # graphs and what they record hold each other
        recorder.add(comparison)
        print(described(comparison), flush=True)
    return status


def _some_rounds(task: Task, race: Race) -> None:
    race.run(MOST_ROUNDS, min(task.until_s, time.monotonic() + SECONDS_OF_A_RACE))


def train(task: Task, setting: training.Setting = PROBE) -> int:
    """As many steps as fit, of three runs; `setting` says of what, and how many tell how long they take."""
    outcome = training.compare(setting, task.device)
    write_atomically(task.out / TRAINING, json.dumps(outcome.as_json()).encode())
    per_step = sum(curve.seconds for curve in outcome.curves.values()) / setting.steps
    # Networks are made and graphs recorded in it, too.
    steps = min(MOST_STEPS, int(0.75 * (task.until_s - time.monotonic()) / per_step))
    if steps > 2 * setting.steps:
        outcome = training.compare(replace(setting, steps=steps), task.device)
        write_atomically(task.out / TRAINING, json.dumps(outcome.as_json()).encode())
    print(outcome.described())
    return int(not outcome.is_finite)


def profile(task: Task) -> int:
    text = step_profile.profile(task.device).described()
    write_atomically(task.out / PROFILE, f"{text}\n".encode())
    print(text)
    return 0


PHASES = (
    Phase("tests", 120, 45, test),
    Phase("tune", 90, 20, tune),
    Phase("step", 100, 30, measuring(step_cases)),
    Phase("operators", 75, 25, measuring(operator_cases)),
    Phase("training", 40, 20, train),
    Phase("networks", 40, 12, measuring(network_cases)),
    Phase("profile", 15, 10, profile),
    Phase("scaling", 25, 5, measuring(lambda task: scaling.cases(_lowest(task), task.device))),
    Phase("translation", 15, 3, measuring(lambda task: translation.cases(_lowest(task), SIDE, task.device))),
)


def run_phases(
    phases: Sequence[Phase], out: Path, quick: bool, command: Callable[[Phase, float], list[str]] | None = None
) -> dict[str, int]:
    """Run each in a process of its own; returns exit statuses, CUT_SHORT where the time did not suffice.

    Args:
        command: from a phase and when, by `time.monotonic()`, it should be done to what is executed; by default this
            module with --phase.
    """
    started, shares_s = time.monotonic(), 0.0
    statuses: dict[str, int] = {}
    with open(out / LOG, "a") as log:
        for number, phase in enumerate(phases, 1):
            shares_s += phase.quick_s if quick else phase.share_s
            seconds = max(SHORTEST_S, started + shares_s - time.monotonic())
            print(f"[{number}/{len(phases)}] {phase.name}, up to {seconds:.0f} s", flush=True)
            log.write(f"\n=== {phase.name}\n")
            log.flush()
            arguments = (command or _command(out, quick))(phase, time.monotonic() + seconds)
            began = time.monotonic()
            # In a session of its own, so that what it has started ends with it.
            process = subprocess.Popen(
                arguments, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                statuses[phase.name] = process.wait(seconds + KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                log.write(f"\nended: {phase.name} did not stop when its time was over\n")
                statuses[phase.name] = CUT_SHORT
            finally:
                _end(process)
            print(f"      {_in_words(statuses[phase.name])} after {time.monotonic() - began:.0f} s", flush=True)
    return statuses


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process, and what it has started: it would compute beside the next phase."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command(out: Path, quick: bool) -> Callable[[Phase, float], list[str]]:
    def command(phase: Phase, until_s: float) -> list[str]:
        # By the clock, which all processes share: what a process takes to start is its own.
        arguments = [sys.executable, "-m", "bench.gpu", "--phase", phase.name, "--until", str(until_s)]
        return [*arguments, "--out", str(out), *(["--quick"] if quick else [])]

    return command


def _in_words(status: int) -> str:
    words = {0: "done", CUT_SHORT: "cut short, its time was over"}
    return words.get(status, f"failed with status {status}, see {LOG}")


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
    names = [phase.name for phase in PHASES]
    made.add_argument("--quick", action="store_true", help="three minutes: what matters most")
    made.add_argument(
        "--only", nargs="+", choices=names, metavar="PHASE", help="only these, in their order: " + ", ".join(names)
    )
    made.add_argument(
        "--seconds", type=float, help="for all phases together (default: what they are planned for, under 540)"
    )
    made.add_argument("--phase", choices=names, help=argparse.SUPPRESS)  # what each process is started with
    made.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options: Any = parser().parse_args(arguments)
    if not torch.cuda.is_available():
        print(f"error: bench.gpu needs an NVIDIA GPU, and PyTorch {torch.__version__} sees none here", file=sys.stderr)
        return 2
    device, out = torch.device("cuda", 0), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.phase:
        set_determinism(False)  # cuDNN times its algorithms, as in training
        phase = next(phase for phase in PHASES if phase.name == options.phase)
        return phase.run(Task(device, out, options.until, options.quick))
    phases = planned([phase for phase in PHASES if not options.only or phase.name in options.only], options)
    began = utc_now()
    for name in (TESTS, LOG, TUNED, TRAINING, PROFILE, SUMMARY):
        (out / name).unlink(missing_ok=True)
    statuses = run_phases(phases, out, options.quick)
    table = launch.tuned_path(device_name(device))
    if table.exists():
        shutil.copyfile(table, out / TUNED)
    text = summary(out, statuses, device_name(device), since=began)
    write_atomically(out / SUMMARY, f"{text}\n".encode())
    print(f"\n{text}")
    return int(any(status not in (0, CUT_SHORT) for status in statuses.values()))


def planned(phases: Sequence[Phase], options: Any) -> list[Phase]:
    """With --seconds, shares of that time."""
    if options.seconds is None:
        return list(phases)
    factor = options.seconds / sum(phase.quick_s if options.quick else phase.share_s for phase in phases)
    return [replace(phase, share_s=factor * phase.share_s, quick_s=factor * phase.quick_s) for phase in phases]


if __name__ == "__main__":
    sys.exit(main())
