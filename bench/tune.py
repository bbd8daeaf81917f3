"""`python -m bench.tune`: measure plans of the fused operators on a GPU and write `kernels/tuned/<gpu>.json`.

A key of this table is one shape, direction, pad and dtype, and is tuned for all sites that share it, each as often as
it runs in a network. A plan that does not compile or launch, or whose results are less exact than the built-in plan's,
is left out. The others race against the built-in plan one by one, the best of them once more and longer. A plan goes
into the table where it is at least 2% faster in the median round. For the residual blocks' convolution the opponent is
the library's, with the norm behind it on both sides.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench import limits
from bench.agreement import Disagreement, relative_error
from bench.candidates import described
from bench.contest import in_words, reason_of
from bench.timing import Contender, Race, Spread
from bench.trials import DTYPES, ConvTask, Plan, Task, Trial, tasks
from cyclegan_fast.device import has_bfloat16, name_of, set_determinism
from cyclegan_fast.errors import UserError, run_command
from cyclegan_fast.files import write_atomically
from kernels import launch
from kernels.gpus import GPUS, gpu_of, planning_for
from kernels.launch import ConvPlan, NormPlan
from kernels.sites import NormSite, all_sites, discriminator_sites, generator_sites
from kernels.triton_language import INSTALLED, INTERPRETED, run_in_interpreter

FLOORS = {torch.float32: 1e-6, torch.float16: 6e-4, torch.bfloat16: 5e-3}
MARGIN = 1.25
"""A result may be off by so many times the larger of the built-in plan's error and its dtype's floor, as in
tests/kernels/accuracy.py"""
PAYS = 1.02
"""The least ratio of the built-in plan's time to another's that has it named in the table"""
FINALISTS = 3
FIRST_ROUNDS = {"cuda": 5, "cpu": 1}
LAST_ROUNDS = {"cuda": 25, "cpu": 3}
BUILT_IN = "built in"
SIDE = 256
INTERPRETED_SIZE = {"width": 16, "side": 32}
INTERPRETED_GPU = dataclasses.replace(GPUS[90], name=f"{GPUS[90].name} in the interpreter")

Tell = Callable[[str], None]
now = time.monotonic


class DeviceLost(UserError):
    """An error left the GPU unusable for this process."""


@dataclass(frozen=True)
class Tuned:
    """What was found for one key. Times are of one site: the mean over the key's, each as often as it runs."""

    key: str
    dtype: str
    is_convolution: bool
    """with the norm behind it"""
    built_in_us: float
    """for a convolution, the library's"""
    best: NormPlan | ConvPlan | None
    """the fastest correct plan beside the built-in one; None where no other is correct"""
    best_us: float | None
    ratio: Spread | None
    """the built-in plan's time over the best one's, round by round"""
    moved_bytes: int
    operations: int
    complete: bool
    """whether there was time to try every candidate"""
    refused: dict[str, str] = field(default_factory=dict)
    """candidates that do not run or are wrong, and why"""

    @property
    def won(self) -> bool:
        return self.ratio is not None and self.ratio.median >= PAYS

    def floor_us(self, known: limits.Limits) -> float:
        """Nothing that moves these bytes and computes these operations is faster."""
        return 1e6 * known.seconds(self.moved_bytes, self.operations, self.dtype)


# --- measuring one key -----------------------------------------------------------------------------------------------


def failures() -> tuple[type[Exception], ...]:
    """What a plan raises that this compiler or this GPU cannot run.

    Triton's own errors, and RuntimeError: of its passes, of a refused launch, and for want of memory.
    """
    from triton.errors import TritonError

    return TritonError, RuntimeError


class Tuner:
    """Tries the plans of one key after the other.

    When `now()` is past `until_s`, it tries no further candidate. It tells why a plan was left out.
    """

    def __init__(self, device: torch.device, until_s: float, tell: Tell) -> None:
        self.device = device
        self.gpu = gpu_of(torch.empty(0, device=device))
        self.until_s = until_s
        self.tell = tell

    def tuned(self, task: Task, entries: Mapping[str, Any]) -> Tuned | None:
        """None where not even the built-in plan runs and is right. Raises DeviceLost.

        `entries` are those of the table so far.
        """
        expected: tuple[type[Exception], ...] = (*failures(), Disagreement)
        torch.manual_seed(0)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            return self._tuned(task, task.trial(self.device, entries, self.gpu))
        except expected as error:
            self._raise_if_lost(error, task.key)
            self.tell(f"{task.key}: left out: {reason_of(error)}")
            return None

    def _tuned(self, task: Task, trial: Trial) -> Tuned:
        built_in, *others = task.plans(self.gpu)
        plans = {described(plan): plan for plan in others if plan is not None}
        with unwritten_is_nan():
            errors = _errors(trial.results(built_in), trial.exact)
        if not max(errors) <= task.plausible_error:
            raise Disagreement(f"the built-in plan is off by {max(errors):.2g} of its size")
        allowed = [MARGIN * max(error, FLOORS[task.dtype]) for error in errors]
        ratios: dict[str, float] = {}
        refused: dict[str, str] = {}
        for name, plan in plans.items():
            tried = len(ratios) + len(refused)
            if tried and now() >= self.until_s:
                break
            _status(f"{task.key}: {tried + 1} of {len(plans)}, {name}")
            try:
                if wrong := _wrong(trial, plan, allowed):
                    refused[name] = wrong
                else:
                    race = self._race(trial, {BUILT_IN: built_in, name: plan}, FIRST_ROUNDS)
                    ratios[name] = median(_ratios(race, name))
            except failures() as error:
                self._raise_if_lost(error, f"{task.key}, {name}")
                refused[name] = in_words(error)
            if name in refused:
                self.tell(f"  {task.key}: {name}: {refused[name]}")
        finalists = sorted(ratios, key=lambda name: -ratios[name])[:FINALISTS]
        race = self._race(trial, {BUILT_IN: built_in} | {name: plans[name] for name in finalists}, LAST_ROUNDS)
        best = max(finalists, key=lambda name: median(_ratios(race, name)), default=None)
        return Tuned(
            key=task.key,
            dtype=name_of(task.dtype),
            is_convolution=isinstance(task, ConvTask),
            built_in_us=1e6 * median(race.seconds[BUILT_IN]),
            best=None if best is None else plans[best],
            best_us=None if best is None else 1e6 * median(race.seconds[best]),
            ratio=None if best is None else Spread.of(_ratios(race, best)),
            moved_bytes=task.moved_bytes // task.times,
            operations=task.operations // task.times,
            complete=len(ratios) + len(refused) == len(plans),
            refused=refused,
        )

    def _race(self, trial: Trial, plans: Mapping[str, Plan], rounds: Mapping[str, int]) -> Race:
        contenders = {name: Contender(trial.calls(plan), graph=True) for name, plan in plans.items()}
        race = Race(self.device, contenders, BUILT_IN)
        race.run(rounds[self.device.type])
        return race

    def _raise_if_lost(self, error: Exception, what: str) -> None:
        """Raise DeviceLost where the GPU takes no more work: a refused launch leaves it as it was, a wild address not.

        What a kernel did wrong may show only when the GPU is waited for.
        """
        if isinstance(error, torch.OutOfMemoryError):
            return
        lost = isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
        if not lost and self.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.device)
            except RuntimeError:
                lost = True
        if lost:
            raise DeviceLost(f"{what}: {reason_of(error)}; this process cannot use the GPU any more") from error


def _ratios(race: Race, name: str) -> list[float]:
    """Round by round: the built-in plan's time over that one's."""
    return [own / theirs for own, theirs in zip(race.seconds[BUILT_IN], race.seconds[name], strict=True)]


def _wrong(trial: Trial, plan: Plan, allowed: Sequence[float]) -> str | None:
    """Why a plan's results do not count, if they do not: too far from the exact ones, or not the same bits twice."""
    with unwritten_is_nan():
        found, again = (trial.results(plan) for _ in range(2))
    for error, bound in zip(_errors(found, trial.exact), allowed, strict=True):
        if not error <= bound:
            return f"wrong: off by {error:.2g} of its size, {bound:.2g} is allowed"
    if not all(torch.equal(one, other) for one, other in zip(found, again, strict=True)):
        return "wrong: its results differ between two launches"
    return None


def _errors(found: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    return [relative_error(one, other) for one, other in zip(found, exact, strict=True)]


@contextmanager
def unwritten_is_nan() -> Iterator[None]:
    """Fills what torch.empty returns with NaN, so that an element nobody wrote is seen."""
    memory: Any = torch.utils.deterministic
    was_filled = memory.fill_uninitialized_memory
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = was_filled


def _status(text: str) -> None:
    """What is being tried, for a person who waits; the next line takes its place."""
    if sys.stderr.isatty():
        print(f"\r{text[:110]:<110}\r", end="", file=sys.stderr, flush=True)


# --- all keys, and the table -----------------------------------------------------------------------------------------


def tuning(
    device: torch.device,
    sites: Sequence[NormSite],
    dtypes: Sequence[torch.dtype],
    batches: Sequence[int],
    until_s: float,
    out: Path,
    tell: Tell,
    *,
    key_s: float = math.inf,
) -> Iterator[Tuned]:
    """Tune key after key, the most important first; each is in the file when it is yielded.

    Args:
        device: the GPU, or the CPU in Triton's interpreter.
        sites: from `kernels.sites`.
        dtypes, batches: that plans are made for.
        until_s: by `time.monotonic()`; no key begins after it, and no further candidate of a key is tried.
        out: folder of the table. Plans that the file has for other keys are kept, as are those of keys that time did
            not suffice for. Where it is `launch.TUNED`, this process runs by what was written.
        key_s: seconds after which no further candidate of a key is tried, so that others have their turn.
        tell: is given a line for each key, and one for each candidate that was left out.

    Raises ValueError where the file is no table, UserError where it cannot be written, DeviceLost when an error leaves
    the GPU unusable.
    """
    tuner = Tuner(device, until_s, tell)
    path = launch.tuned_path(tuner.gpu.name, out)
    entries = launch.read_tuned(path)
    for task in tasks(sites, dtypes, batches):
        if now() >= until_s:
            tell("time is up: keys that remain keep the plans that they have")
            return
        tuner.until_s = min(until_s, now() + key_s)
        tuned = tuner.tuned(task, entries)
        if tuned is not None:
            _update(entries, tuned)
            _write(path, entries)
            tell(_line(tuned))
            yield tuned


def _update(entries: dict[str, dict[str, Any]], tuned: Tuned) -> None:
    """An entry where it pays: a norm without one runs by rule. A convolution's says whether it is used at all."""
    if tuned.best is not None and tuned.is_convolution:
        entries[tuned.key] = dataclasses.asdict(tuned.best) | {"beats_library": tuned.won}
    elif tuned.best is not None and tuned.won:
        entries[tuned.key] = dataclasses.asdict(tuned.best)
    elif tuned.complete:
        entries.pop(tuned.key, None)


def _write(path: Path, entries: Mapping[str, Any]) -> None:
    """A line for each key, so that a difference between versions can be read."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{{\n{lines}\n}}\n".encode())
    launch.forget_tuned()


def _line(tuned: Tuned) -> str:
    """One key for a terminal."""
    text = f"{tuned.key}: {'library' if tuned.is_convolution else BUILT_IN} {tuned.built_in_us:.2f} us"
    if tuned.best is None or tuned.ratio is None:
        return f"{text}; no other plan is correct"
    verdict = "taken" if tuned.won else f"less than {PAYS - 1:.0%} better, not taken"
    return f"{text}; {tuned.best_us:.2f} us, {tuned.ratio.median:.3f}x by {described(tuned.best)}: {verdict}"


def table(found: Sequence[Tuned], known: limits.Limits | None = None) -> str:
    """A Markdown table. The floor, bytes over copy bandwidth or operations over matrix throughput, is by `known`."""
    lines = ["| key | built-in us | tuned us | won | plan | floor us |", "| --- | --- | --- | --- | --- | --- |"]
    for tuned in found:
        kept = "the library's" if tuned.is_convolution else BUILT_IN
        cells = [
            tuned.key + (" + norm" if tuned.is_convolution else ""),
            f"{tuned.built_in_us:.2f}",
            "-" if tuned.best_us is None else f"{tuned.best_us:.2f}",
            f"{tuned.ratio.median:.3f}x" if tuned.ratio and tuned.won else "no",
            described(tuned.best) if tuned.best and tuned.won else kept,
            "-" if known is None else f"{tuned.floor_us(known):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    smallest = INTERPRETED_SIZE["side"]
    if options.side is not None and (options.side < smallest or options.side % 8):
        parser.error(f"--side must be a multiple of 8 and at least {smallest}, got {options.side}")
    if not options.interpret:
        return run_command(lambda: _tune_on_gpu(options))
    if options.out is None or options.out.resolve() == launch.TUNED.resolve():
        parser.error("--interpret needs an --out of its own: its times mean nothing")
    return run_command(lambda: run_in_interpreter("bench.tune", arguments, lambda: _tune_in_interpreter(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.tune",
        description="Measure plans of the fused operators on this GPU. Those that beat the built-in ones, and whether "
        "our convolution beats the library's, are written into a table that the operators read.",
    )
    parser.add_argument(
        "--dtypes",
        nargs="+",
        default=[],
        choices=[name_of(dtype) for dtype in DTYPES],
        help="default: bfloat16 float16 float32, as far as the GPU has them",
    )
    parser.add_argument("--batches", nargs="+", type=_positive, metavar="N", help="images a step; default: 1 16")
    parser.add_argument("--side", type=int, help=f"of the square images, pixels, a multiple of 8; default: {SIDE}")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="no key begins after so long; the most important are first"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the table; default: kernels/tuned")
    parser.add_argument(
        "--interpret",
        action="store_true",
        help="without a GPU: run all of this in Triton's interpreter, on narrow networks (default: --side "
        f"{INTERPRETED_SIZE['side']} --batches 1 2), and write into --out alone; the times mean nothing",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value


def _tune_on_gpu(options: argparse.Namespace) -> int:
    if not INSTALLED:
        raise UserError("bench.tune needs the triton package, which has Linux wheels only")
    if not torch.cuda.is_available():
        raise UserError(
            f"PyTorch {torch.__version__} sees no NVIDIA GPU here, and plans are measured on one; to try the tuner "
            "itself: --interpret --out FOLDER"
        )
    if INTERPRETED:
        raise UserError("TRITON_INTERPRET=1 is set: unset it to measure plans on the GPU")
    until_s = now() + options.seconds
    device = torch.device("cuda", torch.cuda.current_device())
    set_determinism(False)  # cuDNN times its algorithms, as in training
    known = limits.measure(device)
    dtypes = _dtypes(options) or [dtype for dtype in DTYPES if dtype != torch.bfloat16 or has_bfloat16(device)]
    sites = list(all_sites(options.side or SIDE))
    _tune_and_print(device, sites, dtypes, options.batches or [1, 16], until_s, options.out or launch.TUNED, known)
    return 0


def _tune_in_interpreter(options: argparse.Namespace) -> None:
    until_s = now() + options.seconds
    size = INTERPRETED_SIZE | ({} if options.side is None else {"side": options.side})
    sites = [*generator_sites(blocks=2, **size), *discriminator_sites(**size)]
    dtypes = _dtypes(options) or list(DTYPES)
    print("In Triton's interpreter, where times mean nothing:")
    with planning_for(INTERPRETED_GPU):
        _tune_and_print(torch.device("cpu"), sites, dtypes, options.batches or [1, 2], until_s, options.out, None)


def _dtypes(options: argparse.Namespace) -> list[torch.dtype]:
    return [dtype for dtype in DTYPES if name_of(dtype) in options.dtypes]


def _tune_and_print(
    device: torch.device,
    sites: Sequence[NormSite],
    dtypes: Sequence[torch.dtype],
    batches: Sequence[int],
    until_s: float,
    out: Path,
    known: limits.Limits | None,
) -> None:
    """What was found is printed however it ends."""
    gpu = gpu_of(torch.empty(0, device=device))
    path = launch.tuned_path(gpu.name, out)
    try:
        launch.read_tuned(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    found: list[Tuned] = []
    try:
        for tuned in tuning(device, sites, dtypes, batches, until_s, out, _print):
            found.append(tuned)
    except DeviceLost as error:
        raise DeviceLost(f"{error}; {len(found)} keys were tuned before and are in {path}") from error
    finally:
        if found:
            _print(f"\n{gpu.name}, times of a site\n\n{table(found, known)}\n\n{path}")


def _print(text: str) -> None:
    _status("")
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
