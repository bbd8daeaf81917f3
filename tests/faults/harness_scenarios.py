"""Describes trainings that pass the fault points, and starts them: one process, or two that train together."""

import functools
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from cyclegan_fast.methods.feature_loss import rotation
from cyclegan_fast.system import fault_points
from cyclegan_fast.system.fault_points import FAULT_POINTS, AskedFault
from cyclegan_fast.training import records
from cyclegan_fast.training.callbacks.callback import TrainingStart
from cyclegan_fast.training.health import rule
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.trackers import on_tensorboard
from cyclegan_fast.training.trackers.tracker import Tracker
from tests.faults.harness import Ended, begin, end_of, run

TRAIN = "cyclegan_fast.train"
_FLAGS = """--preset demo --generator resnet_6 --ngf 2 --ndf 2 --load-size 36 --crop-size 32 --epochs 3 --decay-epochs 3
--max-steps 5 --report-every 1 --sample-every 5 --checkpoint-every 2 --evaluate-every 3 --evaluate-images 1
--metrics reconstruction --workers 1 --cache-gib 0.1 --pool-size 3"""
NAME = "run"


def crossing_of(point: str, rank: object) -> str:
    """Return the name by which crossings of a point are counted: those of the only process, or of one of several."""
    return point if rank is None else f"{point}@{rank}"


class Counting:
    """Stands in for an asked fault: strikes nowhere, and writes down each point that is reached."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def meet(self, point: str, half: object) -> None:
        with open(self.file, "a") as lines:
            lines.write(f"{crossing_of(point, os.environ.get('RANK'))}\n")


class Marking:
    """Stands in for an asked fault, and leaves a mark where that raises an error: a run may go on without a word."""

    def __init__(self, fault: AskedFault, mark: Path) -> None:
        self.fault, self.mark = fault, mark

    def meet(self, point: str, half: Callable[[], object] | None) -> None:
        try:
            self.fault.meet(point, half)
        except OSError:
            self.mark.touch()
            raise


def asking(fault: AskedFault | Counting | Marking, *others: Callable[[], None]) -> Callable[[], None]:
    """Return what prepares a process that a fault is asked of, and does what else its scenario needs."""

    def prepare() -> None:
        fault_points.ASKED_FAULT = fault
        for other in others:
            other()

    return prepare


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


def explode_once() -> None:
    """Multiply a discriminator's scores by 1000 before step 13 of the first attempt; the rule's windows are short."""
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
    brief = functools.partial(rotation.RotationTraining, stages=(1, 1, 1, 2), widths=(4, 4, 4, 4), steps=4)
    mock.patch("cyclegan_fast.methods.feature_loss.network.RotationTraining", brief).start()


def draw_nothing() -> None:
    """Let the first samples fail, before anything is saved."""

    def fail(*_: object) -> None:
        raise OSError(5, "no picture can be drawn")

    records.write_grids = fail


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


_REMOVALS = ("kept_checkpoint.before_removal", "samples.before_removal", "run_folder.before_removal")

SCENARIOS = {
    "a new run": Scenario(
        (
            *_of("checkpoint", "configuration", "results", "gallery", "metrics", "evaluations", "images"),
            *_of("kept_checkpoint", "samples", "run_folder", but=_REMOVALS),
            *_of("tracker", but=("tracker.before_picture",)),
            "alarms.before_removal",
        ),
        ("--track", "tensorboard"),
    ),
    "a run that continues": Scenario(
        (*_of("cut_lines"), "samples.before_removal"), stopped_by="checkpoint.mid_write kill 4"
    ),
    "a run with a tracker": Scenario(
        (*_of("trackers"), "tracker.before_picture"), ("--track", "tensorboard"), track_with_a_fake
    ),
    "images that do not fit in memory": Scenario(
        _of("decoded_images"), ("--cache-gib", "0", "--cache-dir", "{work}/decoded")
    ),
    "a feature loss": Scenario(_of("feature_network"), ("--method", "feature-loss"), train_features_briefly),
    "a profile": Scenario(_of("profile"), ("--profile", "2", "--max-steps", "8")),
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
        return ["--data", str(self.data), *_FLAGS.split(), *own, "--runs", str(self.work / "runs"), "--name", NAME]

    def start(self, fault: AskedFault | Counting | Marking | None = None, *, harm: bool = False) -> list[Ended]:
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


def ended_together(processes: Sequence[int], folders: Sequence[Path], limit_s: float = 240) -> list[Ended]:
    """Wait for processes that train together. Those that outlive a dead one get SIGTERM and SIGKILL, as of torchrun."""
    ended: dict[int, Ended] = {}
    limit, patience = time.monotonic() + limit_s, math.inf
    signals = [signal.SIGTERM, signal.SIGKILL]
    while left := [place for place in range(len(processes)) if place not in ended]:
        now = time.monotonic()
        if now > patience and signals:
            number = signals.pop(0)
            for place in left:
                os.kill(processes[place], number)
            patience = now + 30
        for place in left:
            is_over = os.waitid(os.P_PID, processes[place], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            if is_over or now > limit:
                ended[place] = end_of(processes[place], folders[place], timeout_s=0)  # whoever is not over has hung
                if ended[place].status and patience == math.inf:
                    patience = now + 20
        time.sleep(0.02)
    return [ended[place] for place in range(len(processes))]
