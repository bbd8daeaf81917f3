"""Runs commands under faults, in processes forked from one that has imported them, and counts what came of it."""

import contextlib
import ctypes
import importlib
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_FLAGS = """--preset demo --load-size 36 --crop-size 32 --ngf 4 --ndf 4 --generator resnet_6 --n-layers 1
--discriminator n_layers --max-steps 24 --epochs 2 --decay-epochs 2 --report-every 5 --sample-every 10
--checkpoint-every 7 --cache-gib 0.1 --workers 2"""
TINY = tuple(_FLAGS.split())
"""A training of 24 steps that saves, samples and reports often, in a few seconds."""

_LATE = ("torchmetrics", "torch.distributed.nn", "torch.utils.tensorboard", "tyro.constructors", "tyro._backends")
"""Modules that commands import on their way: seconds of each forked process, unless they are there before."""

EXCUSE = "error:"
TRACE = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Ended:
    """Holds how a command ended: its status (negative: the signal that ended it), what it printed, how long it took."""

    status: int
    out: str
    err: str
    seconds: float
    hung: bool

    @property
    def kind(self) -> str:
        """Return how it ended in a word or two: done, a clear error, a usage error; or one of UNACCEPTABLE."""
        if self.hung:
            return "hung"
        if self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}"
        if TRACE in self.err:
            return "traceback"
        if self.status == 0:
            return "done"
        lines = self.err.replace("\r", "\n").splitlines()
        if sum(line.startswith(EXCUSE) for line in lines) == 1:
            return "clear error"
        return "usage error" if any("--help" in line or "full helptext" in line for line in lines) else "unclear"

    @property
    def acceptable(self) -> bool:
        """Return whether it is done, or has said in one line why not."""
        return self.kind in ("done", "clear error", "usage error")

    @property
    def last_line(self) -> str:
        """Return the last line that it printed for errors."""
        lines = [line for line in self.err.replace("\r", "\n").splitlines() if line.strip()]
        return lines[-1][-400:] if lines else ""


def begin(module: str, arguments: Sequence[str], folder: Path, *, prepare: Callable[[], None] | None = None) -> int:
    """Do what `python -m MODULE ARGUMENTS` does in `folder`, in a forked process; return its number.

    `prepare` is called in the new process before the command. What the command prints lies in `.said.out` and
    `.said.err` of the folder.
    """
    main = importlib.import_module(module).main
    for late in _LATE:
        importlib.import_module(late)
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f".said.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = [module, *arguments]
        if prepare is not None:
            prepare()
        try:
            status = main(list(arguments)) or 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def end_of(process: int, folder: Path, *, timeout_s: float = 120, kill_after_s: float | None = None) -> Ended:
    """Wait for a process of `begin`. It is killed after `kill_after_s`, or as hung after `timeout_s`."""
    began = time.monotonic()
    hung = False
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        elapsed = time.monotonic() - began
        due = kill_after_s is not None and elapsed >= kill_after_s
        if due or elapsed > timeout_s:
            hung = not due
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            break
        time.sleep(0.01)
    said = [(folder / f".said.{name}").read_text(errors="replace") for name in ("out", "err")]
    return Ended(os.waitstatus_to_exitcode(status), said[0], said[1], time.monotonic() - began, hung)


def run(
    module: str,
    arguments: Sequence[str],
    folder: Path,
    *,
    timeout_s: float = 120,
    kill_after_s: float | None = None,
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """Carry a command out in a forked process and return how it ended (see `begin` and `end_of`)."""
    process = begin(module, arguments, folder, prepare=prepare)
    return end_of(process, folder, timeout_s=timeout_s, kill_after_s=kill_after_s)


def limited(what: int, value: int) -> Callable[[], None]:
    """Return what sets a limit of `resource`, such as RLIMIT_AS, in the process that calls it."""
    return lambda: resource.setrlimit(what, (value, value))


def drop_powers() -> None:
    """Take all capabilities of root from this process, so that files' modes hold for it as for anybody else."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, of this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def photos_in(work: Path, count: int = 7, side: int = 36) -> Path:
    """Return a folder of `count` embedded photographs a domain, made at the first call; four of each are for tests."""
    folder = work / "data"
    if not (folder / "trainA").exists():
        made = run("cyclegan_fast.sample_photos", [str(folder), "--side", str(side), "--count", str(count)], work)
        if made.status != 0:
            raise RuntimeError(f"no photographs: {made.err}")
        for name in ("testA", "testB"):
            for path in sorted((folder / name).iterdir())[4:]:
                path.unlink()
    return folder


def trained(work: Path, name: str, *, steps: int, flags: Sequence[str] = ()) -> Path:
    """Return the folder of a TINY training of `steps` steps on `photos_in(work)`, or raise RuntimeError."""
    settings = list(TINY)
    settings[settings.index("--max-steps") + 1] = str(steps)
    data = photos_in(work)
    ended = run(
        "cyclegan_fast.train",
        ["--data", str(data), *settings, "--runs", str(work / "runs"), "--name", name, *flags],
        work,
    )
    if ended.status != 0:
        raise RuntimeError(f"the training of {name} failed: {ended.err[-2000:]}")
    return work / "runs" / name


@dataclass
class Tally:
    """Counts what came of each fault, and keeps what failed."""

    campaign: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, what: str, came_of_it: str, *, failed: bool) -> None:
        """Count one fault, `what`, and print it at once where it failed."""
        self.counts[came_of_it] += 1
        if failed:
            self.failures.append(f"{what}: {came_of_it}")
            print(f"FAILED {self.campaign}: {what}: {came_of_it}", flush=True)

    def ended(self, what: str, ended: Ended) -> None:
        """Count a command that may end well or with one clear line, and in no other way."""
        self.add(
            what, ended.kind if ended.acceptable else f"{ended.kind}: {ended.last_line}", failed=not ended.acceptable
        )

    def summary(self) -> str:
        """Return one line: how many faults, how many failed, and what came of them."""
        of = ", ".join(f"{kind} {number}" for kind, number in sorted(self.counts.items()))
        return f"{self.campaign}: {self.counts.total()} faults, {len(self.failures)} failed ({of})"


@dataclass(frozen=True)
class Campaign:
    """Holds `make(tally, work, count, random)`, which makes about `count` faults in the empty folder `work`."""

    make: Callable[[Tally, Path, int, random.Random], None]
    full: int
    """how many faults the whole campaign makes"""
    few: int
    """how many of them a slow test makes: some ten seconds' worth"""
