"""Crosses every fault point of a training with every kind of fault; afterwards the same command continues.

A scenario is a training that passes some of the points. It is trained once without a fault; then each point that it is
for is hit, once with each kind, at a crossing drawn from those that the undisturbed training made. A killed training,
and one that an error ended, is given again: it must end with the bits of the undisturbed one. `outcome_table` has what
came of each.
"""

import functools
import json
import os
import random
import shutil
import signal
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from cyclegan_fast.methods.feature_loss import rotation
from cyclegan_fast.system import fault_points
from cyclegan_fast.system.fault_points import FAULT_POINTS, AskedFault, FaultKind
from cyclegan_fast.training import records
from cyclegan_fast.training.callbacks.callback import TrainingStart
from cyclegan_fast.training.health import rule
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.trackers import choice, on_tensorboard
from cyclegan_fast.training.trackers.tracker import Tracker
from tests.faults.harness import Campaign, Ended, Tally, begin, end_of, photos_in, run
from tests.faults.harness_runs import differences, outcome_of, untrue_claim

TRAIN = "cyclegan_fast.train"
FLAGS = """--preset demo --generator resnet_6 --ngf 2 --ndf 2 --load-size 36 --crop-size 32 --epochs 3 --decay-epochs 3
--max-steps 8 --report-every 2 --sample-every 4 --checkpoint-every 3 --evaluate-every 4 --evaluate-images 1
--metrics reconstruction --workers 1 --cache-gib 0.1 --pool-size 3""".split()
NAME = "run"


class Counting:
    """Stands in for an asked fault: strikes nowhere, and writes down each point that is reached."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def meet(self, point: str, half: object) -> None:
        with open(self.file, "a") as lines:
            lines.write(f"{point}\n")


def asking(fault: AskedFault | Counting, *others: Callable[[], None]) -> Callable[[], None]:
    """Return what prepares a process that a fault is asked of, and does what else its scenario needs."""

    def prepare() -> None:
        fault_points.ASKED_FAULT = fault
        for other in others:
            other()

    return prepare


# --- scenarios ------------------------------------------------------------------------------------------------------


class FakeTracker(Tracker):
    """Takes pictures, and has something to continue by."""

    package = "json"

    def start(self, start: TrainingStart, identity: str | None) -> str | None:
        return "run 1"

    def scalars(self, *_: object) -> None:
        pass

    def images(self, *_: object) -> None:
        pass

    def finish(self, finished: bool) -> None:
        pass


def track_with_a_fake() -> None:
    """Let `--track tensorboard` mean the fake."""
    on_tensorboard.OnTensorboard = FakeTracker
    choice._PLACES["tensorboard"] = ("on_tensorboard", "OnTensorboard")


def explode_once() -> None:
    """Multiply a discriminator's scores by a thousand before step 13 of the first attempt; the rule looks back shortly."""
    rule.WINDOWS = rule.Windows(skipped_steps=4, block_steps=2, blocks=2, short_steps=4, long_steps=8)
    update = TrainingStep.__call__

    def sabotaged(self: TrainingStep, *images: torch.Tensor) -> object:
        if self.steps_taken == 12 and self.config.run.seed == 0:
            with torch.no_grad():
                self.model.D_A.layers[-1].weight.mul_(1000)
        return update(self, *images)

    TrainingStep.__call__ = sabotaged


def train_features_briefly() -> None:
    """Let the network of the feature loss take 4 steps in place of 500."""
    brief = functools.partial(rotation.RotationTraining, stages=(1, 1, 1, 1), widths=(4, 4, 4, 4), steps=4)
    mock.patch("cyclegan_fast.methods.feature_loss.network.RotationTraining", brief).start()


def draw_nothing() -> None:
    """Let the first samples fail, before anything is saved."""

    def fail(*_: object) -> None:
        raise OSError(5, "no picture can be drawn")

    records.write_samples = fail


@dataclass(frozen=True)
class Scenario:
    """Describes a training, the points that it is for, and how it begins.

    flags: those beside FLAGS, the later one of two counts; "{work}" is a folder of this start's own.
    prepare: what every start needs, done in its process.
    stopped_by: a fault that ends an earlier start: the training that is hit continues from there.
    harmed_by: what only the start that is hit needs.
    ranks: the number of processes.
    """

    points: tuple[str, ...]
    flags: tuple[str, ...] = ()
    prepare: Callable[[], None] = lambda: None
    stopped_by: str | None = None
    harmed_by: Callable[[], None] = lambda: None
    ranks: int = 1


def _of(*groups: str, but: Sequence[str] = ()) -> tuple[str, ...]:
    return tuple(name for name in FAULT_POINTS if name.split(".")[0] in groups and name not in but)


SCENARIOS = {
    "a new run": Scenario(
        _of(
            *("checkpoint", "kept_checkpoint", "configuration", "results", "gallery", "samples", "metrics"),
            *("evaluations", "images", "run_folder", "tracker"),
            but=(
                *("kept_checkpoint.before_removal", "samples.before_removal", "run_folder.before_removal"),
                "tracker.before_picture",
            ),
        )
        + ("alarms.before_removal",),
        ("--track", "tensorboard"),
    ),
    "a run that continues": Scenario(
        (*_of("cut_lines"), "samples.before_removal"), stopped_by="checkpoint.mid_write kill 3"
    ),
    "a run with a tracker": Scenario(
        (*_of("trackers"), "tracker.before_picture"), ("--track", "tensorboard"), track_with_a_fake
    ),
    "images that do not fit in memory": Scenario(
        _of("decoded_images"), ("--cache-gib", "0", "--cache-dir", "{work}/decoded")
    ),
    "a feature loss": Scenario(_of("feature_network"), ("--method", "feature-loss"), train_features_briefly),
    "a profile": Scenario(_of("profile"), ("--profile", "2")),
    "a run that saves nothing": Scenario(("run_folder.before_removal",), harmed_by=draw_nothing),
    "a run that goes back": Scenario(
        (
            *_of("alarms", "checkpoint_gone_back_to", "going_back", but=("alarms.before_removal",)),
            "kept_checkpoint.before_removal",
        ),
        (
            *("--rollback", "--max-steps", "24", "--report-every", "1", "--checkpoint-every", "2", "--sample-every"),
            *("12", "--evaluate-every", "0"),
        ),
        explode_once,
    ),
    "two processes": Scenario(_of("ranks"), ranks=2),
}


# --- one fault ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Starter:
    """Starts the command of one scenario in a folder of its own."""

    scenario: Scenario
    work: Path
    data: Path

    @property
    def run(self) -> Path:
        """Return the run's folder."""
        return self.work / "runs" / NAME

    @property
    def flags(self) -> list[str]:
        """Return the command line of every start."""
        own = [flag.format(work=self.work) for flag in self.scenario.flags]
        return ["--data", str(self.data), *FLAGS, *own, "--runs", str(self.work / "runs"), "--name", NAME]

    def start(self, fault: AskedFault | Counting | None = None, *, harm: bool = False) -> list[Ended]:
        """Give the command, and return how each of its processes ended."""
        prepare: list[Callable[[], None]] = [self.scenario.prepare]
        if harm:
            prepare.append(self.scenario.harmed_by)
        prepared = asking(fault, *prepare) if fault else lambda: [one() for one in prepare]
        if self.scenario.ranks == 1:
            return [run(TRAIN, self.flags, self.work, prepare=prepared)]
        return self._start_ranks(prepared)

    def _start_ranks(self, prepared: Callable[[], object]) -> list[Ended]:
        """Start the processes as torchrun does, and end the others, as it does, where one ends badly."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        count, processes, folders = self.scenario.ranks, [], []
        for rank in range(count):

            def join(rank: int = rank) -> None:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
                os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
                prepared()

            folders.append(self.work / f"rank{rank}")
            folders[-1].mkdir(exist_ok=True)
            processes.append(begin(TRAIN, self.flags, folders[-1], prepare=join))
        return ended_together(processes, folders)

    def continued(self) -> None:
        """Make the run one that was stopped on its way, where the scenario wants that."""
        if self.scenario.stopped_by:
            (ended,) = self.start(AskedFault.of(self.scenario.stopped_by))
            assert ended.status == -signal.SIGKILL, ended


def ended_together(processes: Sequence[int], folders: Sequence[Path]) -> list[Ended]:
    """Wait for processes that train together; once one has died, SIGTERM goes to those that do not end by themselves."""
    first = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    order = sorted(range(len(processes)), key=lambda place: first is None or processes[place] != first.si_pid)
    ended: dict[int, Ended] = {}
    for place in order:
        patience = 120.0 if not ended or all(one.status == 0 for one in ended.values()) else 15.0
        ended[place] = end_of(processes[place], folders[place], timeout_s=patience)
    return [ended[place] for place in range(len(processes))]


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
    ends = starter.start(AskedFault.of(str(hit)), harm=True)
    hit_end = ends[hit.rank or 0]
    said = "".join(end.out + end.err for end in ends)
    if hit.kind is FaultKind.KILL:
        if hit_end.status != -signal.SIGKILL:
            return "not struck", f"{hit_end.kind}: {hit_end.last_line}"
    elif os.strerror(getattr(__import__("errno"), hit.kind.value)) not in said and hit.point != "run_folder.before_removal":
        return "not struck", f"{hit_end.kind}: {hit_end.last_line}"
    for place, end in enumerate(ends):
        if place != (hit.rank or 0) or hit.kind is not FaultKind.KILL:
            if not end.acceptable:
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
        Hit(name, point, kind, chance.randint(1, max(1, crossings[point])), rank)
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


FULL = sum(len(FAULT_POINTS[point].kinds) * scenario.ranks for scenario in SCENARIOS.values() for point in scenario.points)
CAMPAIGN = Campaign(make, full=FULL, few=3)
