"""Measures a case: its contenders' results are compared first, then their times, and both become a `Comparison`."""

import gc
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from bench.measure.agreement import errors, refused, tensors_of
from bench.measure.compiled import opponent_failures
from bench.measure.kernel_times import NO_KERNELS
from bench.measure.limits import Limits, Workload
from bench.measure.records import Comparison, Setup, Timing
from bench.measure.timing import OURS_AGAIN, SHORTEST_TURN_S, Contender, Race, Spread, on_recording_stream
from cyclegan_fast.system.device import name_of

Drive = Callable[[Race], None]
"""Has a race take its rounds."""


@dataclass(frozen=True)
class Contest:
    """Holds the contenders of a case and the result that all of them should find.

    Args:
        contenders: The contenders by name. The first call of each returns its result: tensors in the order of `exact`.
        ours: The name of the contender that the others' times are divided by.
        plain: The name of the plain computation; it is trusted, as ours is, to be right.
        exact: The tensors that all should find; empty where there is nothing to compare.
        allowed: The largest error of a result, relative to its size; see `bench.measure.agreement`.
        check: A further check when times have been taken; raises Disagreement.
        peak_gib: A contender's tensor memory at its highest, by name, where it was followed.
        shortest_turn_s: Calls are repeated until a turn takes so many seconds.
        allowed_for: The largest error of some contenders, by name, in place of `allowed`.
        wrong: The reasons why some were found wrong while the contest was made; they are not among the contenders.
        ends_on_host: Whether a call's result is on the host, whose clock then counts.
        absent: The reasons why further opponents cannot take part here, by name: they are not installed, say.
        in_one_thread: Whether on a CPU the process's CPU time counts, for calls in one thread.
    """

    contenders: Mapping[str, Contender]
    ours: str
    plain: str
    exact: Sequence[Tensor] = ()
    allowed: float = 0.0
    check: Callable[[], None] | None = None
    peak_gib: Mapping[str, float] = field(default_factory=dict)
    shortest_turn_s: float = SHORTEST_TURN_S
    allowed_for: Mapping[str, float] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)
    ends_on_host: bool = False
    absent: Mapping[str, str] = field(default_factory=dict)
    in_one_thread: bool = False

    @property
    def trusted(self) -> tuple[str, str]:
        return self.ours, self.plain


@dataclass(frozen=True)
class Case(Setup):
    """Says what is to be measured; `make` makes its contest when its turn has come."""

    make: Callable[[], Contest]

    @classmethod
    def of_images(
        cls,
        subject: str,
        case: str,
        batch: int,
        side: int,
        dtype: torch.dtype,
        work: Workload,
        make: Callable[[], Contest],
    ) -> "Case":
        """Return a case that begins with a batch of square images."""
        shape = f"{batch}x3x{side}x{side}"
        return cls(subject, case, shape, name_of(dtype), batch, side, work.moved_bytes, work.operations, make)


def measure_case(case: Case, device: torch.device, limits: Limits, drive: Drive) -> Comparison:
    """Compare the results of a case's contenders, then their times; return both.

    A contender whose result is wrong is named in the comparison without a time.

    Raises:
        Disagreement: The result of ours or of the plain computation is wrong.
    """
    contest = case.make()
    entrants = dict(contest.contenders)
    wrong = dict(contest.wrong)
    found: dict[str, float] = {}
    if contest.exact:
        with on_recording_stream(device):
            results = _results(contest, entrants, wrong)
        found = errors(results, contest.exact)
        _refuse(contest, found, entrants, wrong)
        del results
    race = Race(
        device,
        entrants,
        contest.ours,
        shortest_turn_s=contest.shortest_turn_s,
        ends_on_host=contest.ends_on_host,
        in_one_thread=contest.in_one_thread,
        may_fail=opponent_failures(),
        required=contest.trusted,
    )
    for name, error in race.broken.items():
        wrong[name] = why_not_run(error)
        del entrants[name]
    if contest.exact:
        # The graph's results are checked too, because the graph is timed and not the first call.
        for name in _refuse(contest, errors(race.recorded, contest.exact), entrants, wrong):
            race.leave(name)
    drive(race)
    if contest.check:
        contest.check()
    kernel_seconds = {name: race.kernel_seconds(name) for name in entrants}
    if device.type == "cuda" and None in kernel_seconds.values():
        warnings.warn(f"{NO_KERNELS}; results have no times of kernels", stacklevel=2)
    limit_ms = limits.seconds(case.moved_bytes, case.operations, case.dtype) * 1e3
    return Comparison(
        **{each.name: getattr(case, each.name) for each in fields(Setup)},
        limit_ms=limit_ms or None,
        ours=contest.ours,
        plain=contest.plain,
        rounds=race.rounds,
        again=Spread.of(race.ratios(OURS_AGAIN)),
        contenders={
            name: Timing(
                ms=Spread.of([1e3 * seconds for seconds in race.seconds[name]]),
                ratio=Spread.of(race.ratios(name)),
                error=found.get(name),
                peak_gib=contest.peak_gib.get(name),
                graph=contender.graph and device.type == "cuda",
                kernels_ms=None if (seconds := kernel_seconds[name]) is None else 1e3 * seconds,
            )
            for name, contender in entrants.items()
        },
        refused=wrong,
        absent=dict(contest.absent),
    )


def _results(contest: Contest, entrants: dict[str, Contender], wrong: dict[str, str]) -> dict[str, list[Tensor]]:
    """Return copies of the results of everybody's first call, since the next call may overwrite them.

    Opponents that do not run leave `entrants` and are named in `wrong`.
    """
    results: dict[str, list[Tensor]] = {}
    for name in list(entrants):
        try:
            results[name] = [tensor.detach().clone() for tensor in tensors_of(entrants[name].calls[0]())]
        except opponent_failures() as error:
            if name in contest.trusted:
                raise
            wrong[name] = why_not_run(error)
            del entrants[name]
            gc.collect()
    return results


def _refuse(
    contest: Contest, found: Mapping[str, float], entrants: dict[str, Contender], wrong: dict[str, str]
) -> list[str]:
    """Move contenders that are off by too much from `entrants` to `wrong`; return their names.

    Raises Disagreement where that would be ours or the plain computation.
    """
    refusals = refused(found, lambda name: contest.allowed_for.get(name, contest.allowed), contest.trusted)
    wrong |= refusals
    for name in refusals:
        del entrants[name]
    return list(refusals)


def error_line(error: Exception) -> str:
    """Return an exception's type and the beginning of what it says, in a line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def why_not_run(error: Exception) -> str:
    """Return the reason that is recorded for a contender that raised this."""
    return f"does not run: {error_line(error)}"
