"""Measures how long each phase of a step takes, and writes a trace."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, record_function

from cyclegan_fast.data.batch import Batch
from cyclegan_fast.system.fault_points import fault_point
from cyclegan_fast.system.files import make_folder
from cyclegan_fast.system.words import counted

UNMEASURED = 5
"""The steps before those that are measured: in them memory is taken and libraries choose their algorithms."""

TRACE = "profile/trace.json"

_REST = "between phases"


class StepProfile:
    """Measures some steps of a run, each from a call of `begin_step` to the next of `end_step`.

    Phases are measured on the device: a GPU's by events in its stream, so that the host need not wait in between.

    Args:
        steps: how many steps to measure; 0 measures nothing.
        device: the device that computes them.
        run: the run's folder, which gets the trace.
        threads: how many threads compute at once where phases are entered outside of this one.
        tell: is called with the table when it is complete.
    """

    def __init__(self, steps: int, device: torch.device, run: Path, threads: int, tell: Callable[[str], None]) -> None:
        self.steps = steps
        self.device = device
        self.run = run
        self.threads = threads
        self.tell = tell
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._ended = 0
        self._marks: list[tuple[str, float, _Mark, _Mark]] = []
        self._from: _Mark | None = None
        self._profiler: torch.profiler.profile | None = None

    def begin_step(self) -> None:
        """Begin a step, before its images are waited for; a second call for one step changes nothing."""
        if self.steps and self._ended == UNMEASURED and not self._from:
            activities = [ProfilerActivity.CPU]
            if self.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()
            self._from = _Mark(self.device)

    def waiting_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the same batches; the wait for each begins a step, and is its phase "data"."""
        while True:
            self.begin_step()
            with self.phase("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def end_step(self) -> None:
        """End a step; the last one that is measured writes the results."""
        self._ended += 1
        if self._ended == UNMEASURED + self.steps:
            self.finish()

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Make a context around part of a step."""
        return self._measured(name) if self._profiler else nullcontext()

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        share = 1.0 if threading.get_ident() == self._thread else 1.0 / self.threads
        began = _Mark(self.device)
        with record_function(name):
            yield
        with self._lock:
            self._marks.append((name, share, began, _Mark(self.device)))

    def finish(self) -> None:
        """Write the trace and tell the table, also where the run ends before all steps were measured."""
        if not self._profiler or not self._from:
            return
        until = _Mark(self.device)
        self._profiler.stop()
        steps = self._ended - UNMEASURED
        if not steps:
            self._profiler = None
            return
        trace = self.run / TRACE
        make_folder(trace.parent, "profile")
        fault_point("profile", "before_write")
        self._profiler.export_chrome_trace(str(trace))
        self._profiler = None
        total_ms = self._from.ms_to(until)
        phases_ms: dict[str, float] = {}
        for name, share, began, ended in self._marks:
            phases_ms[name] = phases_ms.get(name, 0.0) + share * began.ms_to(ended)
        phases_ms[_REST] = total_ms - sum(phases_ms.values())
        rows = [f"  {name:14} {ms / steps:9.2f} ms {ms / total_ms:6.1%}" for name, ms in phases_ms.items()]
        title = f"{counted(steps, 'step')} took {total_ms / steps:.2f} ms each; of that, on {self.device}:"
        self.tell("\n".join([title, *rows, f"trace: {trace}"]))


class _Mark:
    """Marks a moment of the device's work."""

    def __init__(self, device: torch.device) -> None:
        self.event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own lack
            self.event.record(torch.cuda.current_stream(device))
        self.host_s = time.perf_counter()

    def ms_to(self, later: "_Mark") -> float:
        """Return the milliseconds from this moment to a later one, on the device where it is a GPU."""
        if self.event and later.event:
            later.event.synchronize()
            return float(self.event.elapsed_time(later.event))
        return (later.host_s - self.host_s) * 1e3
