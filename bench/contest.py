"""One task and who competes at it: results are compared first, then times, and both become a `Comparison`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.agreement import errors, refused
from bench.compiled import FAILURES
from bench.limits import Limits
from bench.records import Comparison, Timing
from bench.timing import OURS_AGAIN, SHORTEST_TURN_S, Contender, Race, Spread
from bench.views import figure

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
        allowed: how far a result may be off, relative to its size; see `bench.agreement`.
        check: a further check, when times have been taken; raises Disagreement.
        peak_gib: tensor memory of a contender at its highest, by name, where it was followed.
        shortest_turn_s: calls are repeated within a turn until it takes so long.
    """

    contenders: Mapping[str, Contender]
    ours: str
    plain: str
    exact: Sequence[Tensor]
    allowed: float
    check: Callable[[], None] | None = None
    peak_gib: Mapping[str, float] = field(default_factory=dict)
    shortest_turn_s: float = SHORTEST_TURN_S


@dataclass(frozen=True)
class Case:
    """A task that is measured, and how to make its contest when its turn has come; see `Comparison` for the fields."""

    subject: str
    case: str
    shape: str
    dtype: str
    batch: int
    side: int
    moved_bytes: int
    operations: int
    make: Callable[[], Contest]
    is_bounded: bool = True
    """whether moving its bytes and computing its operations takes time on the device that the limits are of"""

    @property
    def title(self) -> str:
        return f"{self.subject}: {self.case}, {self.shape}, {self.dtype}"


def measure(case: Case, device: torch.device, limits: Limits, drive: Drive) -> Comparison:
    """Compare results, then times.

    A contender whose result is wrong is named in the comparison without a time. Raises Disagreement where ours or the
    plain computation is.
    """
    contest = case.make()
    contenders = dict(contest.contenders)
    found: dict[str, float] = {}
    wrong: dict[str, str] = {}
    if contest.exact:
        results, wrong = _results(contest)
        found = errors(results, contest.exact)
        wrong |= refused(found, contest.allowed, (contest.ours, contest.plain))
        del results
    for name in wrong:
        del contenders[name]
    race = Race(device, contenders, contest.ours, shortest_turn_s=contest.shortest_turn_s)
    drive(race)
    if contest.check:
        contest.check()
    limit_ms = limits.seconds(case.moved_bytes, case.operations, case.dtype) * 1e3 if case.is_bounded else None
    return Comparison(
        subject=case.subject,
        case=case.case,
        shape=case.shape,
        dtype=case.dtype,
        batch=case.batch,
        side=case.side,
        moved_bytes=case.moved_bytes,
        operations=case.operations,
        limit_ms=limit_ms,
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
            for name, contender in contenders.items()
        },
        refused=wrong,
    )


def _results(contest: Contest) -> tuple[dict[str, Any], dict[str, str]]:
    """Of everybody's first call, and why an opponent does not run here."""
    results: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for name, contender in contest.contenders.items():
        try:
            results[name] = contender.calls[0]()
        except FAILURES as error:
            if name in (contest.ours, contest.plain):
                raise
            broken[name] = f"does not run: {type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
    return results, broken


def described(comparison: Comparison) -> str:
    """A few lines for a terminal: every contender's time, quartiles, ratio to ours and share of the limit."""
    lines = [f"{comparison.subject}: {comparison.case}, {comparison.shape}, {comparison.dtype}"]
    for name, timing in comparison.contenders.items():
        of_limit = comparison.of_limit(name)
        cells = [
            f"  {name:<48}",
            f"{figure(timing.ms.median):>7} ms ({figure(timing.ms.lower)} to {figure(timing.ms.upper)})",
            f"{timing.ratio.median:6.2f}x ours" if name != comparison.ours else " " * 11,
            "" if of_limit is None else f"{of_limit:5.0%} of the limit",
            "" if timing.peak_gib is None else f"{timing.peak_gib:.2f} GiB",
            "" if timing.error is None else f"error {timing.error:.1e}",
        ]
        lines.append("  ".join(cell for cell in cells if cell).rstrip())
    lines += [f"  {name:<48} refused: {reason}" for name, reason in comparison.refused.items()]
    again = comparison.again
    lines.append(f"  ours over itself: {again.lower:.3f} to {again.upper:.3f}, {comparison.rounds} rounds")
    return "\n".join(lines)
