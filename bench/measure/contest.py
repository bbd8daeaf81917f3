"""One task and who competes at it: results are compared first, then times, and both become a `Comparison`."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from bench.measure.agreement import errors, refused, tensors_of
from bench.measure.compiled import OPPONENT_FAILURES
from bench.measure.limits import Limits, Workload
from bench.measure.records import Comparison, Setup, Timing
from bench.measure.timing import OURS_AGAIN, SHORTEST_TURN_S, Contender, Race, Spread, on_recording_stream
from cyclegan_fast.system.device import name_of

Drive = Callable[[Race], None]
"""What has a race take its rounds."""


@dataclass(frozen=True)
class Contest:
    """Who competes, and what all of them should find.

    Args:
        contenders: by name. The first call of each returns its result: tensors in the order of `exact`.
        ours: the name of the one that others are divided by.
        plain: the name of the plain computation; it is trusted, as ours is, to be right.
        exact: what all should find; empty where there is nothing to compare.
        allowed: how far a result may be off, relative to its size; see `bench.measure.agreement`.
        check: a further check, when times have been taken; raises Disagreement.
        peak_gib: tensor memory of a contender at its highest, by name, where it was followed.
        shortest_turn_s: calls are repeated within a turn until it takes so long.
        allowed_for: what is allowed instead to some contenders, by name.
        wrong: why some were found wrong while the contest was made; their names are among no contenders.
        ends_on_host: whether a call's result is on the host, whose clock then counts.
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

    @property
    def trusted(self) -> tuple[str, str]:
        return self.ours, self.plain


@dataclass(frozen=True)
class Case(Setup):
    """What is to be measured, and how to make its contest when its turn has come."""

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
        """One that begins with a batch of square images."""
        shape = f"{batch}x3x{side}x{side}"
        return cls(subject, case, shape, name_of(dtype), batch, side, work.moved_bytes, work.operations, make)


def measure_case(case: Case, device: torch.device, limits: Limits, drive: Drive) -> Comparison:
    """Compare results, then times.

    A contender whose result is wrong is named in the comparison without a time. Raises Disagreement where ours or the
    plain computation is.
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
        may_fail=OPPONENT_FAILURES,
        required=contest.trusted,
    )
    for name, error in race.broken.items():
        wrong[name] = why_not_run(error)
        del entrants[name]
    if contest.exact:
        # What is timed is what the graph computes, not what the first call did.
        for name in _refuse(contest, errors(race.recorded, contest.exact), entrants, wrong):
            race.leave(name)
    drive(race)
    if contest.check:
        contest.check()
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
            )
            for name, contender in entrants.items()
        },
        refused=wrong,
    )


def _results(contest: Contest, entrants: dict[str, Contender], wrong: dict[str, str]) -> dict[str, list[Tensor]]:
    """Of everybody's first call, copied: the next one may overwrite it. Opponents that do not run leave."""
    results: dict[str, list[Tensor]] = {}
    for name in list(entrants):
        try:
            results[name] = [tensor.detach().clone() for tensor in tensors_of(entrants[name].calls[0]())]
        except OPPONENT_FAILURES as error:
            if name in contest.trusted:
                raise
            wrong[name] = why_not_run(error)
            del entrants[name]
            gc.collect()
    return results


def _refuse(
    contest: Contest, found: Mapping[str, float], entrants: dict[str, Contender], wrong: dict[str, str]
) -> list[str]:
    """Those that are off by too much leave and are named; raises Disagreement for ours and the plain computation."""
    refusals = refused(found, lambda name: contest.allowed_for.get(name, contest.allowed), contest.trusted)
    wrong |= refusals
    for name in refusals:
        del entrants[name]
    return list(refusals)


def error_line(error: Exception) -> str:
    """An exception's type and the beginning of what it says, in a line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def why_not_run(error: Exception) -> str:
    return f"does not run: {error_line(error)}"
