"""Tries plans of the fused operators on a GPU: which are right, and which of these beat the built-in ones.

`bench.tuning.trials` says what plans are tried on, `bench.tuning.candidates` which ones; `bench.tuning.tuned_table`
writes the table.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.measure import limits
from bench.measure.agreement import Disagreement
from bench.measure.contest import error_line, why_not_run
from bench.measure.timing import Contender, Race, Spread
from bench.tuning.candidates import most_promising, plan_text, tile_of
from bench.tuning.trials import NormTask, Plan, Trial, TuningTask
from cyclegan_fast.kernels.checking.accuracy import allowed_error, relative_error, unwritten_is_nan
from cyclegan_fast.kernels.gpus import gpu_of
from cyclegan_fast.kernels.plans import ConvPlan, NormPlan, ThinPlan
from cyclegan_fast.system.device import name_of
from cyclegan_fast.system.errors import UserError

PAYS = 1.02
"""The least ratio of the built-in plan's time to another's that has the other named in the table."""
FINALISTS = 3
BUILT_IN = "built in"

Tell = Callable[[str], None]
now = time.monotonic


class DeviceLost(UserError):
    """Says that an error left the GPU unusable for this process."""


@dataclass(frozen=True)
class Tuned:
    """Holds what was found for a key. Times are means over its sites, each of which counts as often as it runs."""

    key: str
    dtype: str
    is_convolution: bool
    """whether it is a convolution, in residual blocks with the norm behind it"""
    built_in_us: float
    """the built-in plan's time; for a convolution, the library's"""
    best: NormPlan | ConvPlan | ThinPlan | None
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
        """Return the microseconds that nothing which moves these bytes and computes these operations can beat."""
        return 1e6 * known.seconds(self.moved_bytes, self.operations, self.dtype)


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of a plan that this compiler or this GPU cannot run.

    They are Triton's own errors, and RuntimeError: from its passes, from a refused launch, and for want of memory.
    """
    from triton.errors import TritonError

    return TritonError, RuntimeError


@dataclass(frozen=True)
class Visit:
    """Says how many candidates are tried when all keys are gone through: few at first, so that each key has its turn.

    Of keys that differ in the batch by a factor of two, as those of one step do, the first one tells the other which
    tiles are fast.
    """

    first: int
    """the most candidates of a key of which nothing is known"""
    again: int
    """the most candidates of a key that is told"""
    rounds_each: int
    """the rounds in which a candidate races against the built-in plan"""
    rounds: int
    """the rounds in which the fastest race once more"""


EVERYTHING = Visit(first=1000, again=1000, rounds_each=5, rounds=25)


@dataclass
class Known:
    """Holds what is known of a key: the built-in plan's time over each candidate's, and why others were left out."""

    ratios: dict[NormPlan | ConvPlan | ThinPlan, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def is_tried(self, plan: NormPlan | ConvPlan | ThinPlan) -> bool:
        return plan in self.ratios or plan_text(plan) in self.refused

    @property
    def fastest(self) -> list[NormPlan | ConvPlan | ThinPlan]:
        return sorted(self.ratios, key=lambda plan: -self.ratios[plan])


class Tuner:
    """Tries the plans of one key after the other.

    When `now()` is past `until_s`, it tries no further candidate. It tells why a plan was left out.
    """

    def __init__(self, device: torch.device, until_s: float, tell: Tell) -> None:
        self.device = device
        self.gpu = gpu_of(torch.empty(0, device=device))
        self.until_s = until_s
        self.tell = tell
        self.known: dict[str, Known] = {}

    def candidates(self, task: TuningTask, visit: Visit) -> list[NormPlan | ConvPlan | ThinPlan]:
        """Return the plans that are tried now: none that was tried before, nor the built-in one."""
        known = self.known.get(task.key, Known())
        _, *others = task.plans(self.gpu)
        untried = [plan for plan in others if plan is not None and not known.is_tried(plan)]
        siblings = (self.known.get(task.at_batch(batch)) for batch in (2 * task.batch, task.batch // 2) if batch)
        sibling = next((each for each in siblings if each), None)
        if sibling is None or known.ratios:
            return most_promising(untried, visit.first, [])
        # It tries the sibling's tiles first; where it may try more plans, others follow.
        return most_promising(untried, visit.again, list(dict.fromkeys(map(tile_of, sibling.fastest))))

    def tuned(self, task: TuningTask, entries: Mapping[str, Any], visit: Visit = EVERYTHING) -> Tuned | None:
        """Try the plans of a key; return what was found.

        It is None where not even the built-in plan runs and is right, or nothing is left to try. `entries` are those of
        the table so far. Raises DeviceLost.
        """
        expected: tuple[type[Exception], ...] = (*failures(), Disagreement)
        plans = self.candidates(task, visit)
        if not plans and task.key in self.known:
            return None
        torch.manual_seed(0)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            return self._tuned(task, task.trial(self.device, entries, self.gpu), plans, visit)
        except expected as error:
            self._raise_if_lost(error, task.key)
            self.tell(f"{task.key}: left out: {error_line(error)}")
            return None

    def _tuned(
        self, task: TuningTask, trial: Trial, plans: Sequence[NormPlan | ConvPlan | ThinPlan], visit: Visit
    ) -> Tuned:
        built_in = task.plans(self.gpu)[0]
        with unwritten_is_nan():
            errors = _errors(trial.results(built_in), trial.exact)
        if not max(errors) <= task.plausible_error:
            raise Disagreement(f"the built-in plan is off by {max(errors):.2g} of its size")
        allowed = [allowed_error(error, task.dtype) for error in errors]
        race = Race(self.device, {BUILT_IN: _contender(trial, built_in)}, BUILT_IN)
        known = self.known.setdefault(task.key, Known())
        for number, plan in enumerate(plans):
            if number and now() >= self.until_s:
                break
            show_status(f"{task.key}: {number + 1} of {len(plans)}, {plan_text(plan)}")
            self._try(task.key, plan, trial, race, allowed, known, visit.rounds_each)
        finalists = known.fastest[:FINALISTS]
        for plan in finalists:
            race.enter(plan_text(plan), _contender(trial, plan))
        race.run(visit.rounds)
        best = max(finalists, key=lambda plan: median(_ratios(race, plan_text(plan))), default=None)
        return Tuned(
            key=task.key,
            dtype=name_of(task.dtype),
            is_convolution=not isinstance(task, NormTask),
            built_in_us=1e6 * median(race.seconds[BUILT_IN]),
            best=best,
            best_us=None if best is None else 1e6 * median(race.seconds[plan_text(best)]),
            ratio=None if best is None else Spread.of(_ratios(race, plan_text(best))),
            moved_bytes=task.moved_bytes // task.times,
            operations=task.operations // task.times,
            complete=all(plan is None or known.is_tried(plan) for plan in task.plans(self.gpu)[1:]),
            refused=known.refused,
        )

    def _try(
        self,
        key: str,
        plan: NormPlan | ConvPlan | ThinPlan,
        trial: Trial,
        race: Race,
        allowed: Sequence[float],
        known: Known,
        rounds: int,
    ) -> None:
        """Try one candidate against the built-in plan."""
        name = plan_text(plan)
        try:
            if wrong := _wrong(trial, plan, allowed):
                known.refused[name] = wrong
            else:
                race.enter(name, _contender(trial, plan))
                race.run(rounds)
                known.ratios[plan] = median(_ratios(race, name))
                race.leave(name)
        except failures() as error:
            self._raise_if_lost(error, f"{key}, {name}")
            known.refused[name] = why_not_run(error)
        if name in known.refused:
            self.tell(f"  {key}: {name}: {known.refused[name]}")

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
            raise DeviceLost(f"{what}: {error_line(error)}; this process cannot use the GPU any more") from error


def _contender(trial: Trial, plan: Plan) -> Contender:
    return Contender(trial.calls(plan), graph=True)


def _ratios(race: Race, name: str) -> list[float]:
    """Return the built-in plan's time over that one's, round by round."""
    return [own / theirs for own, theirs in zip(race.seconds[BUILT_IN], race.seconds[name], strict=True)]


def _wrong(trial: Trial, plan: Plan, allowed: Sequence[float]) -> str | None:
    """Return why a plan's results do not count: too far from the exact ones, or not the same bits twice; else None."""
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


def show_status(text: str) -> None:
    """Show a person who waits what is being tried; the next line takes its place."""
    if sys.stderr.isatty():
        print(f"\r{text[:110]:<110}\r", end="", file=sys.stderr, flush=True)
