"""Takes room and rights from trainings and translations: full disks, quotas, folders that are read-only or go away.

Whatever is taken, the command ends with one line that is true, what was saved stays whole, and once there is room again
the same command ends with the bits of a training that lacked nothing. Full disks, quotas and a small /dev/shm need the
right to mount; where it is missing, that is said, and the other faults are made.
"""

import random
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from cyclegan_fast.checkpoint.files import load
from cyclegan_fast.training.log import RunLog
from tests.faults.harness import TINY, Campaign, Ended, Tally, limited, photos_in, run
from tests.faults.harness_mounts import can_mount, grow, tmpfs, with_small_shared_memory, without_powers
from tests.faults.harness_runs import differences, outcome_of, untrue_claim

TRAIN, TRANSLATE = "cyclegan_fast.train", "cyclegan_fast.translate"
PAGE = 4096
CONTINUED = ("checkpoints", "samples", "metrics.jsonl", "index.html", "config.yaml", ".")
"""Parts of a run's folder that become read-only before it continues."""


def nothing() -> None:
    """Prepare nothing."""


@dataclass
class Disks:
    """Makes the faults of one campaign. Each method makes one, and counts what came of it."""

    tally: Tally
    work: Path
    data: Path
    expected: dict[str, Any]

    @property
    def whole(self) -> Path:
        """Return the folder of a run that lacked nothing."""
        return self.work / "runs" / "whole"

    def train(self, runs: Path, prepare: Callable[[], None] = nothing) -> Ended:
        """Start the training of `runs/run`, or continue it."""
        flags = ["--data", str(self.data), *TINY, "--evaluate-every", "12"]
        return run(TRAIN, [*flags, "--runs", str(runs), "--name", "run"], self.work, prepare=prepare)

    def judge(self, what: str, runs: Path, ended: Ended, make_room: Callable[[], None] = nothing) -> None:
        """Count a fault of a training, and continue it once there is room: what it says, keeps and ends with."""
        if not ended.acceptable:
            self.tally.ended(what, ended)
            return
        if wrong := untrue_claim(ended.err, runs / "run") or damaged_of(runs / "run"):
            self.tally.add(what, f"said or kept what is not so: {wrong}", failed=True)
            return
        make_room()
        again = self.train(runs)
        if again.status:
            self.tally.add(what, f"does not continue: {again.kind}: {again.last_line}", failed=True)
            return
        found = differences(self.expected, outcome_of(runs / "run"))
        came_of_it = (
            f"{ended.kind}, then other bits: {', '.join(found[:4])}" if found else f"{ended.kind}, then the same"
        )
        self.tally.add(what, came_of_it, failed=bool(found))

    def full_disk(self, option: str, room: str) -> None:
        """Train on a tmpfs that is full at some time."""
        with tmpfs(self.work / "disk", *option.split()) as disk:
            self.judge(f"a disk of {option}", disk, self.train(disk), partial(grow, disk, room))

    def quota(self, size: int) -> None:
        """Train on a tmpfs with a quota, which holds for whoever is not root."""
        try:
            with tmpfs(self.work / "disk", "size=64m", "usrquota", f"usrquota_block_hardlimit={size}") as disk:
                disk.chmod(0o777)
                ended = self.train(disk, without_powers)
                # Continued as root, for whom there is no quota.
                self.judge(f"a quota of {size >> 10} KiB", disk, ended)
        except PermissionError:
            print("no quotas: this kernel's tmpfs has none", flush=True)
            self.tally.add("a quota", "left out", failed=False)

    def limit(self, what: int, value: int, name: str) -> None:
        """Train with less of what the system gives a process."""
        runs = self.new_folder()
        self.judge(f"{name} of {value}", runs, self.train(runs, limited(what, value)))

    def read_only_runs(self, below: str) -> None:
        """Train into a folder that may not be written to."""
        runs = self.new_folder()
        runs.chmod(0o555)
        ended = self.train(runs / below, without_powers)
        self.judge(f"a read-only folder, {below or 'itself'}", runs / below, ended, partial(runs.chmod, 0o755))

    def read_only_part(self, name: str) -> None:
        """Continue a run of which a part may not be written to."""
        runs = self.new_folder()
        folder = runs / "run"
        shutil.copytree(self.whole, folder)
        (folder / "results.json").unlink()
        (folder / "checkpoints" / "last.pt").unlink()
        part = folder / name
        mode = part.stat().st_mode & 0o777
        part.chmod(0o555 if part.is_dir() else 0o444)
        ended = self.train(runs, without_powers)
        self.judge(f"a read-only {name}", runs, ended, partial(part.chmod, mode))

    def small_shared_memory(self) -> None:
        """Train with one page at /dev/shm."""
        runs = self.new_folder()
        self.judge("one page of shared memory", runs, self.train(runs, with_small_shared_memory))

    def removed(self, name: str, step: int) -> None:
        """Remove a run's folder, or a part of it, under its training: what is said to be kept must be there."""
        runs = self.new_folder()

        def prepare() -> None:
            add = RunLog.add

            def removing(log: RunLog, losses: Any) -> None:
                if log.step == step:
                    shutil.rmtree(log.run / name)
                add(log, losses)

            RunLog.add = removing  # type: ignore[method-assign]

        ended = self.train(runs, prepare)
        what = f"{name} of a run removed after step {step}"
        if ended.kind == "clear error" and "nothing" in ended.last_line and (runs / "run" / "checkpoints").exists():
            self.tally.add(what, f"said or kept what is not so: {ended.last_line}", failed=True)
        elif not ended.acceptable or (ended.status == 0 and name == "."):
            self.tally.add(what, f"{ended.kind}: {ended.last_line}", failed=True)
        else:
            self.judge(what, runs, ended)

    def full_translation(self, pages: int) -> None:
        """Translate onto a disk that is full at some time: every file is whole, and with room all are there."""
        with tmpfs(self.work / "disk", f"size={pages * PAGE}") as disk:
            command = [str(self.data / "testA"), "--checkpoint", str(self.whole), "--out", str(disk / "out")]
            ended = run(TRANSLATE, command, self.work)
            what = f"translations onto {pages} pages"
            broken = [path.name for path in sorted((disk / "out").glob("*.png")) if not is_whole(path)]
            if broken or not ended.acceptable:
                self.tally.add(what, f"{ended.kind}: {ended.last_line}; broken: {broken}", failed=True)
                return
            grow(disk, "size=16m")
            again = run(TRANSLATE, command, self.work)
            made = len(list((disk / "out").glob("*.png")))
            wrong = again.status != 0 or made < len(list((self.data / "testA").iterdir()))
            self.tally.add(
                what, f"{ended.kind}, then {made} files{': ' + again.last_line if wrong else ''}", failed=wrong
            )

    def new_folder(self) -> Path:
        """Return an empty folder for the run of one fault, and remove that of the one before."""
        folder = self.work / "lacking"
        if folder.exists():
            for path in folder.rglob("*"):
                path.chmod(0o755)
            shutil.rmtree(folder)
        folder.mkdir()
        return folder


def is_whole(path: Path) -> bool:
    """Tell whether an image can be read to its end."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):
        return False
    return True


def damaged_of(folder: Path) -> str | None:
    """Return what is wrong with one of a run's checkpoints; None where all that there are are whole."""
    for path in sorted((folder / "checkpoints").glob("*.pt")):
        try:
            load(path)
        except Exception as error:  # whatever it is that cannot be read
            return f"{path.name}: {error!r}"
    return None


def make(tally: Tally, work: Path, count: int, chance: random.Random) -> None:
    """Make `count` faults: of each kind one, then others of it."""
    disks = Disks(tally, work, photos_in(work), {})
    first = run(
        TRAIN,
        ["--data", str(disks.data), *TINY, "--evaluate-every", "12", "--runs", str(work / "runs"), "--name", "whole"],
        work,
    )
    if first.status:
        raise RuntimeError(f"the undisturbed training failed: {first.err[-2000:]}")
    disks.expected = outcome_of(disks.whole)
    size = sum(path.stat().st_size for path in disks.whole.rglob("*") if path.is_file())
    checkpoint = (disks.whole / "checkpoints" / "last.pt").stat().st_size
    used = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)

    def some_file_size() -> None:
        disks.limit(resource.RLIMIT_FSIZE, chance.choice([400, 20_000, checkpoint // 2]), "a file size")

    def some_memory() -> None:
        room = chance.randint(50, 1500)
        disks.limit(resource.RLIMIT_AS, (used << 10) + (room << 20), f"imports and {room} MiB, memory")

    kinds: dict[str, Callable[[], None]] = {
        "part": lambda: disks.read_only_part(chance.choice(CONTINUED)),
        "removed": lambda: disks.removed(chance.choice([".", ".", "checkpoints", "samples"]), chance.randint(1, 22)),
        "file size": some_file_size,
        "descriptors": lambda: disks.limit(
            resource.RLIMIT_NOFILE, chance.choice([64, 24, 16, 12, 10, 8]), "descriptors"
        ),
        "read-only": lambda: disks.read_only_runs(chance.choice(["", "a/b"])),
        "memory": some_memory,
    }
    if can_mount(work):
        kinds |= {
            "full": lambda: disks.full_disk(f"size={chance.randint(1, int(1.3 * size) // PAGE) * PAGE}", "size=64m"),
            "inodes": lambda: disks.full_disk(f"size=64m nr_inodes={chance.randint(2, 20)}", "nr_inodes=500"),
            "translation": lambda: disks.full_translation(chance.randint(1, 12)),
            "quota": lambda: disks.quota(chance.randint(size // 4, size)),
            "shared memory": disks.small_shared_memory,
        }
    else:
        print("no full disks, quotas and small /dev/shm: this process may not mount", flush=True)
    order = sorted(kinds, key=lambda _: chance.random())
    for number in range(count):
        kinds[order[number % len(order)]]()


CAMPAIGN = Campaign(make, full=110, few=3)
