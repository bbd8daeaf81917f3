"""Crosses every fault point of a training with every kind of fault; afterwards the same command continues.

A scenario is a training that passes some of the points. It is trained once without a fault; then each point that it is
for is hit, once with each kind, at a crossing drawn from those that the undisturbed training made. A killed training,
and one that an error ended, is given again: it must end with the bits of the undisturbed one. `outcome_table` has what
came of each.
"""

import json
import random
import shutil
import signal
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from cyclegan_fast.system.fault_points import FAULT_POINTS, AskedFault, FaultKind
from tests.faults.harness import Campaign, Tally, photos_in
from tests.faults.harness_runs import differences, outcome_of, untrue_claim
from tests.faults.harness_scenarios import SCENARIOS, Counting, Marking, Starter, crossing_of


@dataclass(frozen=True)
class Hit:
    """Names a fault to make: the scenario, the point, the kind, and the crossing of the point at which it strikes."""

    scenario: str
    point: str
    kind: FaultKind
    crossing: int
    rank: int | None = None

    def __str__(self) -> str:
        of_rank = "" if self.rank is None else f" rank {self.rank}"
        return f"{self.point} {self.kind} {self.crossing}{of_rank}"


def strike(starter: Starter, hit: Hit, expected: dict[str, object]) -> tuple[str, str | None]:
    """Make one fault in the starter's folder and continue; returns what came of it, and what is wrong with that."""
    starter.continued()
    mark = starter.work / "struck"
    ends = starter.start(Marking(AskedFault.of(str(hit)), mark), harm=True)
    hit_end = ends[hit.rank or 0]
    said = "".join(end.out + end.err for end in ends)
    if hit.kind is FaultKind.KILL:
        if hit_end.status != -signal.SIGKILL:
            return "not struck", f"{hit_end.kind}: {hit_end.last_line}"
    elif not mark.exists():
        return "not struck", f"{hit_end.kind}: {hit_end.last_line}"
    for place, end in enumerate(ends):
        is_killed = hit.kind is FaultKind.KILL and place == (hit.rank or 0)
        # Whoever waits for one that never came does not hear of its death, and is ended by torchrun.
        waits = [-signal.SIGKILL] if hit.point == "ranks.before_joining" else []
        is_told_to_stop = len(ends) > 1 and end.status in (-signal.SIGTERM, 128 + signal.SIGTERM, *waits)
        if end.hung or not (is_killed or is_told_to_stop or end.acceptable):
            return "ended badly", f"{end.kind}: {end.last_line}"
    if untrue := untrue_claim(said, starter.run):
        return "said what is not", untrue
    came_of_it = "the run goes on by itself"
    if any(end.status for end in ends):
        came_of_it = "the same command continues"
        again = starter.start()
        if bad := [end for end in again if end.status]:
            return "does not continue", f"{bad[0].kind}: {bad[0].last_line}"
    try:
        found = differences(expected, outcome_of(starter.run))
    except Exception as error:  # whatever is missing or damaged
        return "nothing whole is left", repr(error)
    return (came_of_it, None) if not found else ("other bits", ", ".join(found[:4]))


def hits_of(name: str, crossings: Counter[str], chance: random.Random) -> list[Hit]:
    """Return every fault of a scenario's points, each at a crossing that the undisturbed training makes."""
    scenario = SCENARIOS[name]
    ranks: list[int | None] = [None] if scenario.ranks == 1 else [*range(scenario.ranks)]
    return [
        Hit(name, point, kind, chance.randint(1, max(1, crossings[crossing_of(point, rank)])), rank)
        for point in scenario.points
        for kind in FAULT_POINTS[point].kinds
        for rank in ranks
    ]


def make(tally: Tally, work: Path, count: int, chance: random.Random) -> None:
    """Make `count` faults of the cross, or all of them; fewer than all are of the quickest scenario."""
    data = photos_in(work)
    names = list(SCENARIOS) if count >= CAMPAIGN.full else [next(iter(SCENARIOS))]
    outcomes: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        undisturbed = Starter(SCENARIOS[name], work / name.replace(" ", "_") / "undisturbed", data)
        undisturbed.work.mkdir(parents=True)
        undisturbed.continued()
        counted = undisturbed.work / "crossings"
        for end in undisturbed.start(Counting(counted)):
            if end.status:
                raise RuntimeError(f"the undisturbed training of {name} failed: {end.err[-2000:]}")
        crossings = Counter(counted.read_text().split())
        expected = outcome_of(undisturbed.run)
        hits = hits_of(name, crossings, chance)
        if count < len(hits):
            hits = chance.sample(hits, count)
        for number, hit in enumerate(hits):
            starter = Starter(SCENARIOS[name], undisturbed.work.with_name(str(number)), data)
            starter.work.mkdir()
            came_of_it, wrong = strike(starter, hit, expected)
            tally.add(f"{name}: {hit}", f"{came_of_it}: {wrong}" if wrong else came_of_it, failed=wrong is not None)
            outcomes[hit.point][hit.kind] = came_of_it
            if wrong is None:
                shutil.rmtree(starter.work)
    (work / "outcomes.json").write_text(json.dumps(outcomes, indent=1))
    print(outcome_table(outcomes), flush=True)


def outcome_table(outcomes: dict[str, dict[str, str]]) -> str:
    """Return the table of points and kinds of fault, as Markdown."""
    lines = ["| point | it lies before | " + " | ".join(FaultKind) + " |", "| --- | --- |" + " --- |" * len(FaultKind)]
    for point, (before, _) in FAULT_POINTS.items():
        if point in outcomes:
            cells = " | ".join(outcomes[point].get(kind, "–") for kind in FaultKind)
            lines.append(f"| `{point}` | {before} | {cells} |")
    return "\n".join(lines)


_FULL = sum(len(FAULT_POINTS[point].kinds) * one.ranks for one in SCENARIOS.values() for point in one.points)
CAMPAIGN = Campaign(make, full=_FULL, few=3)
