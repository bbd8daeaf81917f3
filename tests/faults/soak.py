"""Trains for very long, and measures what may not grow: memory, threads, open files, temporary files, time per step.

    python -m tests.faults soak --count 100000

`count` is the number of steps. The training scores, samples and saves a hundred times or more. It is measured once a
second with all of its processes. The first third is not judged: caches fill, and allocators find their size.
"""

import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.harness import Campaign, Tally, begin, end_of, run

NETWORKS = ("--ngf", "1", "--ndf", "1", "--generator", "resnet_6", "--discriminator", "n_layers", "--n-layers", "1")
MOST_GROWTH_MIB = 8
"""how much more memory the last third of what is judged may have than the first: in 100,000 steps, 200 bytes a step"""


@dataclass(frozen=True)
class Measured:
    """Holds one look at a training and its processes."""

    step: int
    seconds: float
    memory_mib: float
    threads: int
    open_files: int
    temporary_files: int


def last_step(metrics: Path) -> int:
    """Return the step of the last whole line of metrics.jsonl, 0 before there is one."""
    if not metrics.exists():
        return 0
    with open(metrics, "rb") as file:
        file.seek(max(0, metrics.stat().st_size - 4096))
        lines = file.read().splitlines()
    step = lines[-1].split(b'"step":', 1)[1] if lines and b'"step":' in lines[-1] else b"0"
    return int(step.split(b",")[0])


def look(process: psutil.Process, run_folder: Path, temporary: Path, began: float) -> Measured:
    """Measure a training: private memory of all its processes, their threads and open files, and files in passing."""
    family = [process, *process.children(recursive=True)]
    return Measured(
        last_step(run_folder / "metrics.jsonl"),
        time.monotonic() - began,
        sum(member.memory_full_info().uss for member in family) / 2**20,
        sum(member.num_threads() for member in family),
        sum(member.num_fds() for member in family),
        sum(1 for _ in temporary.rglob("*")) + sum(1 for path in run_folder.rglob(".*") if path.name != ".lock"),
    )


def growth(looks: Sequence[Measured], quantity: str) -> float:
    """Return by how much the median of a quantity in the last third of looks is above that in the first."""
    values: list[float] = [getattr(one, quantity) for one in looks]
    third = max(1, len(values) // 3)
    return statistics.median(values[-third:]) - statistics.median(values[:third])


def table(looks: Sequence[Measured]) -> str:
    """Return a markdown table of about ten of the looks."""
    lines = ["| step | s | memory, MiB | threads | open files | temporary files |", "| --- " * 6 + "|"]
    for one in looks[:: max(1, len(looks) // 10)]:
        values = (one.step, round(one.seconds), round(one.memory_mib, 1), one.threads, one.open_files)
        lines.append(f"| {' | '.join(map(str, values))} | {one.temporary_files} |")
    return "\n".join(lines)


def make(tally: Tally, work: Path, count: int, _: random.Random) -> None:
    """Train `count` steps, and judge what was measured in the last two thirds of them."""
    temporary = work / "temporary"
    temporary.mkdir()
    prepared = run("cyclegan_fast.sample_photos", ["data", "--side", "24", "--count", "8"], work)
    assert prepared.status == 0, prepared
    every = max(10, count // 200)
    flags = ["--preset", "demo", "--data", "data", "--load-size", "24", "--crop-size", "24", *NETWORKS]
    flags += ["--epochs", str(count), "--decay-epochs", "0", "--max-steps", str(count), "--workers", "2"]
    flags += ["--report-every", "10", "--sample-every", str(every * 2), "--checkpoint-every", str(every)]
    flags += ["--evaluate-every", str(max(1, every // 8)), "--metrics", "reconstruction", "--evaluate-images", "2"]
    flags += ["--device", "cpu", "--runs", "runs", "--name", "soak"]
    began = time.monotonic()
    number = begin("cyclegan_fast.train", flags, work, prepare=lambda: os.environ.update(TMPDIR=str(temporary)))
    looks = []
    process = psutil.Process(number)
    while process.status() != psutil.STATUS_ZOMBIE:
        try:
            looks.append(look(process, work / "runs/soak", temporary, began))
        except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            continue  # a worker ended, or a file got its name, between two looks
        time.sleep(min(1.0, count / 1000))
    ended = end_of(number, work)
    print(table(looks), flush=True)
    tally.add("the training", ended.kind, failed=ended.kind != "done")
    late = [one for one in looks if one.step > count / 3]
    tally.add("measuring", f"{len(late)} looks", failed=len(late) < 5)
    if len(late) < 5:
        return
    for name, most in (("memory_mib", MOST_GROWTH_MIB), ("threads", 2), ("open_files", 2), ("temporary_files", 2)):
        more = growth(late, name)
        tally.add(name.replace("_", " "), f"{more:+.1f} from the first third to the last", failed=more > most)
    left = [path for path in temporary.rglob("*") if path.is_file()]
    tally.add("temporary files left", str(len(left)), failed=bool(left))
    half = next(one for one in looks if one.step >= count / 2)
    ratio = (looks[-1].seconds - half.seconds) / max(1, looks[-1].step - half.step) * half.step / half.seconds
    tally.add("time per step", f"{ratio:.2f} of the first half's in the second", failed=ratio > 2)


CAMPAIGN = Campaign(make, full=100_000, few=150)
