"""`python -m bench.gpu`: everything that a new GPU needs, in one command under nine minutes.

`kernels.check`, the GPU tests, the tuner, the benchmarks in order of importance, a training run beside plain PyTorch's,
and a profile. What is launched later is compiled ahead in all cores, and the machine's limits are measured once. Each
phase is a process of its own, so that one that crashes costs the others nothing; each has a share of the time, and what
one leaves over goes to the next. Everything is written as it is found, into one folder.
"""

import argparse
import gc
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.cases import step_profile, training
from bench.measure.agreement import Disagreement
from bench.measure.contest import Case, measure_case, why_not_run
from bench.measure.machine import utc_now
from bench.measure.records import RESULTS_FOLDER, ResultRecorder, path_for
from bench.measure.timing import Race
from bench.new_gpu import gpu_cases, parallel_tests
from bench.new_gpu.later_launches import later_launches
from bench.new_gpu.parallel_tests import read_results, run_tests
from bench.new_gpu.phases import Phase, PhaseTask, planned, results_name, run_phases, told_until
from bench.new_gpu.summary import CUT_SHORT, PROFILE_FILE, RUN_FILES, SUMMARY_FILE, TRAINING_FILE, TUNED_FILE, summary
from bench.reporting.terminal import comparison_text
from bench.tuning.trials import batches_of_a_step
from bench.tuning.tuned_table import tuned_markdown, tuning
from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.checking.ahead import compile_ahead
from cyclegan_fast.kernels.gpus import gpu_of
from cyclegan_fast.kernels.triton_language import INTERPRETED
from cyclegan_fast.system.device import set_determinism
from cyclegan_fast.system.errors import print_whole_lines
from cyclegan_fast.system.files import write_atomically

SECONDS_OF_A_RACE = 8.0
SECONDS_OF_A_KEY = 4.0
"""Seconds for a key of the tuner's table."""
RESERVE_S = 3.0
"""Seconds for ending a phase in good order."""


def check_command(out: Path, seconds: float) -> list[str]:
    """Return the command that checks every operator against float64 and PyTorch, and compiles what networks launch."""
    return [sys.executable, "-m", "kernels.check", "--out", str(out), "--seconds", f"{seconds - RESERVE_S:.0f}"]


def limits_phase(task: PhaseTask) -> int:
    print(task.limits)
    return 0


def tests_phase(task: PhaseTask) -> int:
    """Run tests that time the GPU alone, then all others that need it in as many processes as there are cores."""
    without = parallel_tests.LONG if task.quick else ()
    alone_until_s = min(time.monotonic() + parallel_tests.SECONDS_ALONE, task.until_s)
    run_tests(parallel_tests.TIMED_ALONE, task.out, alone_until_s, 1)
    together = parallel_tests.REHEARSED if task.tiny else parallel_tests.TOGETHER
    workers = min(parallel_tests.MOST_WORKERS, parallel_tests.cores())
    run_tests(together, task.out, task.until_s - RESERVE_S, workers, without=without)
    results = read_results(task.out)
    print("\n".join([results.described(), *results.failures()]))
    if results.failures() or not results.total:
        return 1
    return 0 if results.is_complete else CUT_SHORT


def compile_phase(task: PhaseTask) -> int:
    """Compile in all cores what the phases behind this one launch, in their order."""
    if INTERPRETED:
        print("Triton's interpreter compiles nothing")
        return 0
    visits = task.extent.visits[: 1 if task.quick else None]
    wanted = later_launches(task.extent, task.dtypes, visits, gpu_of(torch.empty(0, device=task.device)))

    through = 0

    def done(number: int, total: int) -> None:
        nonlocal through
        through = number
        if number % 50 == 0 or number == total:
            print(f"{number} of {total} variants are compiled", flush=True)

    failures = compile_ahead(wanted, parallel_tests.cores(), done, task.until_s - RESERVE_S)
    for variant, reason in failures.items():
        print(f"{variant.name} {variant.dtype} {variant.flags}: {reason}")
    # A candidate that does not compile is no failure here: the tuner finds out.
    if through == len(wanted):
        return 0
    print(f"cut short at {through} of {len(wanted)} variants")
    return CUT_SHORT


def tune_phase(task: PhaseTask) -> int:
    """Try plans at the sites of a step, the most important first; `python -m bench.tune` has time for all of them."""
    batches = [batches_of_a_step(batch) for batch in task.extent.batches[: 1 if task.quick else None]]
    folder = task.out / "tuned" if task.tiny else launch.TUNED
    found = tuning(
        task.device,
        task.extent.sites,
        [task.lowest],
        batches,
        min(task.until_s - RESERVE_S, time.monotonic() + task.extent.most_tuning_s),
        folder,
        partial(print, flush=True),
        visits=task.extent.visits,
        key_s=SECONDS_OF_A_KEY,
    )
    print(tuned_markdown(list(found)))
    return 0


def measuring(cases: Callable[[PhaseTask], Iterable[Case]]) -> Callable[[PhaseTask], int]:
    """Return a phase that measures cases, in their order, until its time is over."""

    def run(task: PhaseTask) -> int:
        return measure_all(cases(task), task)

    return run


def measure_all(cases: Iterable[Case], task: PhaseTask) -> int:
    """Measure the cases until the task's time is over; each comparison is on the disk before the next one begins.

    Returns 1 where ours was wrong or a case did not run.
    """
    made = task.stamp()
    recorder = ResultRecorder(path_for(made.device, task.out), made, task.limits)
    status = 0
    for case in cases:
        if task.is_over:
            print(f"no time was left for {case.title} and what follows")
            break
        try:
            comparison = measure_case(case, task.device, recorder.run.limits, partial(_some_rounds, task))
        except (Disagreement, RuntimeError) as error:
            print(f"{case.title}: {error if isinstance(error, Disagreement) else why_not_run(error)}", flush=True)
            status = 1
            if task.device.type == "cuda":
                torch.cuda.synchronize(task.device)  # raises where the GPU takes no more work: the phase is over
            continue
        finally:
            gc.collect()  # graphs and what they record hold each other
        recorder.add(comparison)
        print(comparison_text(comparison), flush=True)
    return status


def _some_rounds(task: PhaseTask, race: Race) -> None:
    race.run(task.extent.rounds, min(task.until_s, time.monotonic() + SECONDS_OF_A_RACE))


def training_phase(task: PhaseTask, setting: training.Setting | None = None) -> int:
    """Train three runs for as many steps as fit, and compare them.

    `setting` says what is trained, and for how many steps first, which tell how long a step takes.
    """
    setting = setting or task.extent.probe
    outcome = training.compare_trainings(setting, task.device)
    write_atomically(task.out / TRAINING_FILE, json.dumps(outcome.as_json()).encode())
    per_step = sum(curve.seconds for curve in outcome.curves.values()) / setting.steps
    # A quarter is left for making networks and recording graphs.
    steps = min(task.extent.most_steps, int(0.75 * task.left_s / per_step))
    if steps > 2 * setting.steps:
        outcome = training.compare_trainings(replace(setting, steps=steps), task.device)
        write_atomically(task.out / TRAINING_FILE, json.dumps(outcome.as_json()).encode())
    print(outcome.described())
    return int(not outcome.is_finite)


def profile_phase(task: PhaseTask) -> int:
    extent = task.extent
    found = step_profile.profile_step(task.device, extent.side, extent.batches[0], extent.size, extent.profiled_steps)
    text = found.described()
    write_atomically(task.out / PROFILE_FILE, f"{text}\n".encode())
    print(text)
    return 0


PHASES = (
    Phase("check", 60, 40, command=check_command),
    Phase("limits", 6, 5, limits_phase),
    Phase("tests", 100, 30, tests_phase),
    Phase("compile", 40, 12, compile_phase),
    Phase("tune", 85, 20, tune_phase),
    Phase("step", 80, 24, measuring(gpu_cases.gpu_step_cases)),
    Phase("operators", 45, 12, measuring(gpu_cases.gpu_operator_cases)),
    Phase("training", 25, 10, training_phase),
    Phase("networks", 25, 6, measuring(gpu_cases.gpu_network_cases)),
    Phase("profile", 12, 6, profile_phase),
    Phase("scaling", 20, 3, measuring(gpu_cases.gpu_scaling_cases)),
    Phase("translation", 12, 3, measuring(gpu_cases.gpu_translation_cases)),
)


def _command(out: Path, options: Any) -> Callable[[Phase], list[str]]:
    """Return what makes the command of a phase's process."""
    flags = [*(["--quick"] if options.quick else []), *(["--tiny"] if options.tiny else [])]
    return lambda phase: [sys.executable, "-m", "bench.phase_process", phase.name, "--out", str(out), *flags]


def argument_parser() -> argparse.ArgumentParser:
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
    made.add_argument(
        "--tiny",
        action="store_true",
        help="rehearse the command itself on tiny images and networks: results say that they are of a dry run, mean "
        "nothing, and no table of kernels/tuned is written",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options: Any = argument_parser().parse_args(arguments)
    print_whole_lines()
    if not torch.cuda.is_available():
        print(f"error: bench.gpu needs an NVIDIA GPU, and PyTorch {torch.__version__} sees none here", file=sys.stderr)
        return 2
    if INTERPRETED and not options.tiny:
        print("error: TRITON_INTERPRET=1 is set: unset it to measure the GPU", file=sys.stderr)
        return 2
    device, out = torch.device("cuda", 0), options.out.resolve()
    if options.tiny and out.is_relative_to(RESULTS_FOLDER.resolve()):
        print(f"error: --tiny measures nothing that belongs into {RESULTS_FOLDER}: give another --out", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    chosen = [phase for phase in PHASES if not options.only or phase.name in options.only]
    began = utc_now()
    for name in RUN_FILES:
        (out / name).unlink(missing_ok=True)
    statuses = run_phases(planned(chosen, options.seconds, options.quick), out, options.quick, _command(out, options))
    table = launch.tuned_path(torch.cuda.get_device_name(device), out / "tuned" if options.tiny else None)
    if table.exists():
        shutil.copyfile(table, out / TUNED_FILE)
    text = summary(out, statuses, results_name(device, options.tiny), since=began)
    write_atomically(out / SUMMARY_FILE, f"{text}\n".encode())
    print(f"\n{text}")
    return int(any(status not in (0, CUT_SHORT) for status in statuses.values()))


def run_phase(arguments: Sequence[str]) -> int:
    """Run one phase in the process that was started for it; return its exit status.

    What the phase needs is imported before it is told to begin.
    """
    made = argparse.ArgumentParser(prog="python -m bench.phase_process")
    made.add_argument("phase", choices=[phase.name for phase in PHASES if phase.run])
    made.add_argument("--out", type=Path)
    for flag in ("--quick", "--tiny"):
        made.add_argument(flag, action="store_true")
    options: Any = made.parse_args(arguments)
    until_s = told_until()
    if until_s is None:
        return 0
    set_determinism(False)  # cuDNN times its algorithms, as in training
    # Imported modules stay: the many collections between measurements need not look at them.
    gc.freeze()
    run = next(phase.run for phase in PHASES if phase.name == options.phase)
    assert run is not None
    return run(PhaseTask(torch.device("cuda", 0), options.out, until_s, options.quick, options.tiny))


if __name__ == "__main__":
    sys.exit(main())
