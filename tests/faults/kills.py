"""Kills trainings with SIGKILL at random moments and at random file operations; afterwards the same command continues.

Nothing may be lost: the run ends with the weights, optimiser, lines, pictures and scores of one that nobody killed, and
leaves no file behind. A fault here is a kill; each run is killed one to four times. Some of the runs keep their decoded
images in a mapped file, whose writing is killed as well.
"""

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults.harness import TINY, Campaign, Tally, photos_in, run
from tests.faults.harness_runs import differences, outcome_of

FILE_EVENTS = frozenset(
    ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock", "os.listdir", "os.scandir")
)
"""What Python tells its audit hooks of the files of a process, just before it happens."""


def at_operation(number: int) -> Callable[[], None]:
    """Return what lets a process end by SIGKILL before its `number`-th file operation."""

    def prepare() -> None:
        left = number

        def hook(event: str, arguments: object) -> None:
            nonlocal left
            if event in FILE_EVENTS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return prepare


def counting_operations(into: Path) -> Callable[[], None]:
    """Return what lets a process write the number of its file operations into a file."""

    def prepare() -> None:
        descriptor, seen = os.open(into, os.O_WRONLY | os.O_CREAT, 0o644), 0

        def hook(event: str, arguments: object) -> None:
            nonlocal seen
            if event in FILE_EVENTS:
                seen += 1
                os.pwrite(descriptor, f"{seen:9d}".encode(), 0)

        sys.addaudithook(hook)

    return prepare


def make(tally: Tally, work: Path, count: int, chance: random.Random) -> None:
    """Kill trainings `count` times in all, or a few times more."""
    data = photos_in(work)
    flags = ["--data", str(data), *TINY, "--evaluate-every", "12", "--runs", str(work / "runs"), "--name"]
    train = "cyclegan_fast.train"
    counted = work / "operations"
    whole = run(train, [*flags, "whole"], work, prepare=counting_operations(counted))
    if whole.status:
        raise RuntimeError(f"the undisturbed training failed: {whole.err[-2000:]}")
    operations, expected = int(counted.read_text()), outcome_of(work / "runs" / "whole")
    number = 0
    while tally.counts.total() < count:
        name = f"killed{number}"
        number += 1
        command = [*flags, name]
        if chance.random() < 0.3:
            command += ["--cache-gib", "0", "--cache-dir", str(work / "decoded" / name)]
        plan: list[str] = []
        for _ in range(chance.randint(1, 4)):
            if chance.random() < 0.5:
                at = chance.randint(1, operations)
                moment = f"operation {at}"
                ended = run(train, command, work, prepare=at_operation(at))
            else:
                moment_s = chance.uniform(0.05, whole.seconds)
                moment = f"{moment_s:.2f} s"
                ended = run(train, command, work, kill_after_s=moment_s)
            if ended.status != -signal.SIGKILL:
                break  # it was done before
            plan.append(moment)
        if ended.status == -signal.SIGKILL:
            ended = run(train, command, work)
        if ended.status:
            tally.add(f"{name} at {', '.join(plan)}", f"{ended.kind}: {ended.last_line}", failed=True)
            continue
        found = differences(expected, outcome_of(work / "runs" / name))
        for moment in plan:
            said = f"other bits: {', '.join(found[:4])}" if found else "the same bits"
            tally.add(f"{name} at {moment} of {', '.join(plan)}", said, failed=bool(found))
        if not found:
            shutil.rmtree(work / "runs" / name)


CAMPAIGN = Campaign(make, full=90, few=3)
