"""Names the points of a training where a fault can strike, and lets one strike there when a test asks for it.

A point lies just before the operation that it is named for: wherever a file is opened for writing, written, brought to
the disk, renamed or removed, a folder is made, or processes speak to one another. The environment of a test says where
a fault strikes, of which kind, and at which crossing of the point; of several processes, also in which:

    CYCLEGAN_FAST_FAULT="checkpoint.before_commit kill"
    CYCLEGAN_FAST_FAULT="metrics.mid_write ENOSPC 3"
    CYCLEGAN_FAST_FAULT="ranks.before_allreduce kill 5 rank 1"

Without that variable a point costs the comparison of a constant with None. `python -m tests.faults points` lets every
fault strike at every point, and has the same command continue.
"""

import errno
import itertools
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

FAULT_VARIABLE = "CYCLEGAN_FAST_FAULT"


class FaultKind(StrEnum):
    """Lists what may strike: the end of the process without a word, a full disk, and a disk that fails."""

    KILL = "kill"
    FULL = "ENOSPC"
    FAILING = "EIO"


class FaultPoint(NamedTuple):
    """Says what a point comes before, and which kinds of fault make sense there."""

    before: str
    kinds: tuple[FaultKind, ...]


ON_DISKS = (FaultKind.KILL, FaultKind.FULL, FaultKind.FAILING)
WHEN_READING = (FaultKind.KILL, FaultKind.FAILING)  # reading needs no room
OF_RANKS = (FaultKind.KILL,)  # a collective sees no disk; what fails it is the death of another process

WHOLE_FILES = {
    "checkpoint": "the newest checkpoint",
    "kept_checkpoint": "a checkpoint that is kept by a name of its own",
    "checkpoint_gone_back_to": "the checkpoint that a run goes back to, as its newest one",
    "configuration": "config.yaml",
    "cut_lines": "metrics.jsonl or evaluations.jsonl without the lines after the checkpoint",
    "alarms": "alarms.jsonl",
    "results": "results.json",
    "gallery": "index.html",
    "trackers": "trackers.json",
    "decoded_images": "the file of decoded images",
    "feature_network": "the network of the feature loss",
    "samples": "a picture of samples",
}
"""Files that are written under a temporary name, whole, and renamed (`system/files.py`)."""

MOMENTS_OF_WHOLE_FILES = {
    "before_open": "opening the temporary file of {}",
    "mid_write": "writing the second half of {}",
    "before_sync": "bringing {} to the disk",
    "before_commit": "renaming {} from its temporary name",
    "after_rename": "bringing the new name of {} to the disk",
}

APPENDED_FILES = {"metrics": "metrics.jsonl", "evaluations": "evaluations.jsonl"}
"""Files to which lines are appended."""

MOMENTS_OF_APPENDED_FILES = {
    "before_open": "opening {}",
    "mid_write": "writing the second half of a line of {}",
    "before_sync": "bringing {} to the disk",
}

OTHER_OPERATIONS = {
    "run_folder.before_making": "making the run's folder",
    "run_folder.before_lock": "opening the file whose lock claims the run's folder",
    "run_folder.before_removal": "removing the folder of a run that saved nothing",
    "checkpoint.before_folder": "making checkpoints/",
    "checkpoint.before_last_becomes_previous": "renaming last.pt to previous.pt",
    "checkpoint.before_incoming_becomes_last": "renaming incoming.pt to last.pt",
    "kept_checkpoint.before_removal": "removing a checkpoint that is not needed to go back to any more",
    "alarms.before_removal": "removing alarms.jsonl, where there are none",
    "going_back.before_removal": "removing what is later than the step that a run goes back to",
    "samples.before_folder": "making samples/",
    "samples.before_removal": "removing a picture from after the checkpoint",
    "decoded_images.before_folder": "making the folder of decoded images",
    "decoded_images.before_lock": "opening the file whose lock keeps a second process from decoding the same images",
    "profile.before_folder": "making the folder of the trace",
    "profile.before_write": "writing the trace",
    "tracker.before_start": "starting a tracker",
    "tracker.before_values": "handing values to a tracker",
    "tracker.before_picture": "handing a picture to a tracker",
    "tracker.before_finish": "finishing a tracker's run",
}

READ_OPERATIONS = {"images.in_worker": "gathering the images of a batch, in a worker of --workers"}

COLLECTIVES = {
    "ranks.before_joining": "joining the other processes",
    "ranks.before_broadcast": "telling all processes what the first one found",
    "ranks.before_gathering": "gathering what a checkpoint needs of all processes",
    "ranks.before_sharing_weights": "sharing the first process's weights",
    "ranks.before_reduction": "a sum or a maximum over all processes",
    "ranks.before_allreduce": "beginning to average gradients",
    "ranks.before_waiting": "waiting for averaged gradients",
    "ranks.before_parting": "leaving the other processes",
}


def _all_points() -> dict[str, FaultPoint]:
    points = {
        f"{of}.{moment}": FaultPoint(before.format(file), ON_DISKS)
        for files, moments in ((WHOLE_FILES, MOMENTS_OF_WHOLE_FILES), (APPENDED_FILES, MOMENTS_OF_APPENDED_FILES))
        for of, file in files.items()
        for moment, before in moments.items()
    }
    for group, kinds in ((OTHER_OPERATIONS, ON_DISKS), (READ_OPERATIONS, WHEN_READING), (COLLECTIVES, OF_RANKS)):
        points |= {name: FaultPoint(before, kinds) for name, before in group.items()}
    # Pictures are not brought to the disk one by one: a checkpoint does not count on them, and they can be drawn again.
    del points["samples.before_sync"], points["samples.after_rename"]
    return points


FAULT_POINTS: Mapping[str, FaultPoint] = _all_points()
"""All points of a training, by name."""


@dataclass(frozen=True)
class AskedFault:
    """Holds the fault that a test asked for: it strikes once, at the `crossing`-th time that `point` is reached."""

    point: str
    kind: FaultKind
    crossing: int = 1
    rank: str | None = None
    _count: "itertools.count[int]" = field(
        default_factory=lambda: itertools.count(1), compare=False
    )  # its next() is one for threads

    @staticmethod
    def of(text: str) -> "AskedFault":
        """Read "POINT KIND [CROSSING] [rank RANK]"; raises ValueError for what is no fault of a point's."""
        head, _, rank = text.partition(" rank ")
        point, kind, *crossing = head.split()
        if point not in FAULT_POINTS or kind not in FAULT_POINTS[point].kinds:
            raise ValueError(
                f"{FAULT_VARIABLE}={text}: {point} {kind} is no fault in cyclegan_fast/system/fault_points.py"
            )
        return AskedFault(point, FaultKind(kind), int(crossing[0]) if crossing else 1, rank or None)

    @staticmethod
    def in_environment() -> "AskedFault | None":
        """Return what the environment asks for. A process that torchrun started again is spared: the fault is over."""
        text = os.environ.get(FAULT_VARIABLE)
        if text is None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
            return None
        return AskedFault.of(text)

    def meet(self, point: str, half: Callable[[], object] | None) -> None:
        """Strike if this is the crossing of the point, and the process, that was asked for."""
        if point != self.point or self.rank not in (None, os.environ.get("RANK")) or next(self._count) != self.crossing:
            return
        if half is not None:
            half()
        if self.kind is FaultKind.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.kind.value)
        raise OSError(code, os.strerror(code))


ASKED_FAULT = AskedFault.in_environment()
"""The fault that this process was asked for; None but in tests."""


def fault_point(of: str | None, moment: str, half: Callable[[], object] | None = None) -> None:
    """Let a fault strike here, at the point `of.moment`, if the environment asks for it.

    Args:
        of: what is worked on, as FAULT_POINTS has it; None outside of a training.
        half: what the operation would have done before it failed, such as half a write.
    """
    if ASKED_FAULT is not None and of is not None:
        ASKED_FAULT.meet(f"{of}.{moment}", half)
