"""Runs the phases of `bench.gpu`: each is a process of its own, with a share of the time.

A phase that crashes or hangs costs the others nothing, and what it leaves over goes to those that follow. While a phase
runs, the process of the next one starts and imports what it needs: then it waits to be told when its time is over.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import IO

import torch

from bench.measure import limits as machine_limits
from bench.measure.limits import Limits
from bench.measure.machine import DRY_RUN, ROOT, Stamp, device_name, stamp
from bench.new_gpu.extent import PAPER_EXTENT, TINY_EXTENT, RunExtent
from bench.new_gpu.summary import CUT_SHORT, LIMITS_FILE, LOG_FILE

_SHORTEST_S = 5.0
"""Seconds: a phase for which less is left does not begin."""
KILL_AFTER_S = 8.0
"""Seconds after its time a phase is ended."""


@dataclass(frozen=True)
class PhaseTask:
    """Says what a phase is to do, on which device and until when."""

    device: torch.device
    out: Path
    until_s: float
    """the end by `time.monotonic()`; nothing new begins afterwards"""
    quick: bool = False
    tiny: bool = False

    @property
    def left_s(self) -> float:
        return self.until_s - time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.left_s < 0

    @property
    def extent(self) -> RunExtent:
        """Return how large images, batches and networks are."""
        return TINY_EXTENT if self.tiny else PAPER_EXTENT

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Return the precisions that are worth measuring on the device, the lowest last."""
        return machine_limits.dtypes(self.device)

    @property
    def lowest(self) -> torch.dtype:
        return self.dtypes[-1]

    @cached_property
    def limits(self) -> Limits:
        """Return the machine's limits, measured by the first phase that asks."""
        return machine_limits.measured_once(self.device, self.out / LIMITS_FILE, tiny=self.tiny)

    def stamp(self) -> Stamp:
        made = stamp(self.device)
        return replace(made, device=results_name(self.device, self.tiny))


def results_name(device: torch.device, tiny: bool) -> str:
    """Return what results call the device."""
    return f"{device_name(device)}, {DRY_RUN}" if tiny else device_name(device)


@dataclass(frozen=True)
class Phase:
    """Describes a part of `bench.gpu` and its share of the time.

    Args:
        name: The name of the phase, as --only takes it.
        share_s: Its seconds.
        quick_s: Its seconds with --quick.
        run: Carries it out in a process of `bench.gpu`; returns the exit status.
        command: Returns the command that is executed instead, for the folder of results and the seconds there are.
    """

    name: str
    share_s: float
    quick_s: float
    run: Callable[[PhaseTask], int] | None = None
    command: Callable[[Path, float], list[str]] | None = None


def planned(phases: Sequence[Phase], seconds: float | None, quick: bool) -> list[Phase]:
    """Return the phases with shares of that many seconds, or with those that they have."""
    if seconds is None:
        return list(phases)
    factor = seconds / sum(phase.quick_s if quick else phase.share_s for phase in phases)
    return [replace(phase, share_s=factor * phase.share_s, quick_s=factor * phase.quick_s) for phase in phases]


def run_phases(
    phases: Sequence[Phase], out: Path, quick: bool, command: Callable[[Phase], list[str]]
) -> dict[str, int]:
    """Run each phase in a process of its own; return exit statuses, CUT_SHORT where the time did not suffice.

    Args:
        phases: The phases in their order.
        out: The folder of results.
        quick: Whether the shares are those of --quick.
        command: Returns the command of a phase. Its process then reads from its standard input when, by
            `time.monotonic()`, it should be done, and ends where it reads nothing.
    """
    started = time.monotonic()
    ends_s = [started + s for s in accumulate(phase.quick_s if quick else phase.share_s for phase in phases)]
    statuses: dict[str, int] = {}
    ready: subprocess.Popen[bytes] | None = None
    with open(out / LOG_FILE, "ab", buffering=0) as log:
        try:
            for number, (phase, following) in enumerate(zip_longest(phases, phases[1:])):
                left_s = ends_s[number] - time.monotonic()
                print(f"[{number + 1}/{len(phases)}] {phase.name}, up to {max(0.0, left_s):.0f} s", flush=True)
                if left_s < _SHORTEST_S:
                    print("      not begun, no time was left", flush=True)
                    statuses[phase.name] = CUT_SHORT
                    if ready is not None:  # it was started for this phase, and knows no other
                        _end(ready)
                        ready = None
                    continue
                log.write(f"\n=== {phase.name}\n".encode())
                if ready is None or phase.command:
                    process = _started(phase.command(out, left_s) if phase.command else command(phase), log)
                else:
                    process = ready
                ready = _started(command(following), log) if following and not following.command else None
                statuses[phase.name] = _finished(process, ends_s[number], phase.name, log)
        finally:
            if ready is not None:
                _end(ready)
    return statuses


def _started(arguments: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that what it has started ends with it."""
    return subprocess.Popen(
        arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def _finished(process: subprocess.Popen[bytes], until_s: float, name: str, log: IO[bytes]) -> int:
    """Tell a process to begin, end it where it does not end by itself, and return its status."""
    began = time.monotonic()
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        # All processes share this clock.
        process.stdin.write(f"{until_s}\n".encode())
    try:
        status = process.wait(max(0.0, until_s - began) + KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        log.write(f"\nended: {name} did not stop when its time was over\n".encode())
        status = CUT_SHORT
    finally:
        _end(process)
    print(f"      {_in_words(status)} after {time.monotonic() - began:.0f} s", flush=True)
    return status


def told_until() -> float | None:
    """Wait until this phase's process is told to begin; return when its time is over, or None where it is to end."""
    line = sys.stdin.readline()
    return float(line) if line else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it has started, which would compute beside the next phase."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _in_words(status: int) -> str:
    words = {0: "done", CUT_SHORT: "cut short, its time was over"}
    return words.get(status, f"failed with status {status}, see {LOG_FILE}")
