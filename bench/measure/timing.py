"""Times opponents side by side.

Machines are shared and clocks drift, so contenders take turns: each runs once a round, and a ratio is the median of the
ratios within the rounds. The order turns with the rounds, and ours runs twice in each, as first and as last: the ratio
of the two is what this measurement cannot tell from nothing.

On a CPU a turn is timed by the host; what computes in one thread may be timed by the process's CPU time, which does not
see what else runs on the machine. On a GPU it is timed by events in the stream. What asks for it is recorded as one
CUDA graph, as training launches it, and replayed behind a pause that hides the replay's own launch: the time is the
device's alone. What isn't recorded is launched call by call, with one call under way when the clock starts; where the
host is slower than the device, the host is timed. What ends on the host is timed there. Short calls are repeated. The
profiler adds up kernels in a turn of their own, `Race.kernel_seconds`, behind the rounds that are timed.

pytest-benchmark does not interleave. `bench.conftest` hands it our own turns and runs the others' in the untimed setup
of each round; what it prints is the host's clock, what is recorded is this module's.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from bench.measure.kernel_times import profiled_kernels

Call = Callable[[], Any]

OURS_AGAIN = "ours, again"
SHORTEST_TURN_S = 2e-3
SHORTEST_LAUNCHED_TURN_S = 20e-3
"""The shortest turn on a GPU of calls that are launched one by one: beside it the first launch is little."""
_PAUSE_CYCLES = 1_000_000
"""Half a millisecond by a GPU's clock, in which a graph's launch is done with."""
MOST_REPEATS = 1000
WARM_UP_CALLS = 3
"""Calls behind a first one: libraries choose algorithms and compilers compile in them, training records its graph."""
SHORT_CALL_S = 0.05
LONG_CALL_S = 0.3
"""On a CPU a call that takes longer is warm after one."""


@dataclass(frozen=True)
class Contender:
    """Takes part in a race by calls that do the same, each on operands of its own, so that caches do not hold them.

    `graph` has the calls recorded as one CUDA graph on a GPU; elsewhere it has no meaning.
    """

    calls: Sequence[Call]
    graph: bool = False


@dataclass(frozen=True)
class Spread:
    """Holds the median and the quartiles of a quantity that was measured several times."""

    median: float
    lower: float
    """the first quartile"""
    upper: float
    """the third one"""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) < 2:
            return cls(*3 * [statistics.median(values)])
        lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), lower, upper)


class Race:
    """Has contenders take turns and keeps their times.

    Args:
        device: The device that computes.
        contenders: The contenders by name; all of them are prepared here: called, recorded, and given repeats for a
            turn that is long enough to time.
        ours: The name of the contender that the others' times are divided by.
        shortest_turn_s: Calls are repeated until a turn takes so many seconds.
        ends_on_host: Whether a call's result is on the host, so that the host's clock is the one that counts.
        in_one_thread: Whether on a CPU the process's CPU time counts, for calls that compute in one thread.
        may_fail: The exceptions of contenders that, raising one while they are prepared, do not take part.
        required: The names of contenders that must take part, beside ours; their exceptions are raised.

    Attributes:
        broken: The exception of each opponent that does not take part, by name.
        recorded: The result of the first call inside a recorded graph, after one replay, by name; the graph's memory.
        seconds: The seconds of one call, by name, a value for each round.
    """

    def __init__(
        self,
        device: torch.device,
        contenders: Mapping[str, Contender],
        ours: str,
        *,
        shortest_turn_s: float = SHORTEST_TURN_S,
        ends_on_host: bool = False,
        in_one_thread: bool = False,
        may_fail: tuple[type[Exception], ...] = (),
        required: Collection[str] = (),
    ) -> None:
        if ours not in contenders:
            raise ValueError(f"{ours!r} does not take part, only {', '.join(contenders)}")
        self.device = device
        self.ours = ours
        self.broken: dict[str, Exception] = {}
        self._turns: dict[str, _Turn] = {}
        self._preparation = _Preparation(device, shortest_turn_s, ends_on_host, in_one_thread)
        for name, contender in contenders.items():
            try:
                self._turns[name] = self._preparation.turn(contender)
            except may_fail as error:
                if name == ours or name in required:
                    raise
                # This raises as well where the error has left the device unusable.
                _wait(device)
                self.broken[name] = error.with_traceback(None)
        self.recorded = {name: turn.result for name, turn in self._turns.items() if turn.result is not None}
        self._turns[OURS_AGAIN] = self._turns[ours]
        self.seconds: dict[str, list[float]] = {name: [] for name in self._turns}

    def enter(self, name: str, contender: Contender) -> None:
        """Have a further opponent take part, and forget all times. Raises what the opponent raises."""
        self._turns[name] = self._preparation.turn(contender)
        self.seconds = {each: [] for each in self._turns}

    def leave(self, name: str) -> None:
        """Have an opponent take part no longer."""
        del self._turns[name], self.seconds[name]

    def opponents_turns(self) -> None:
        """Take a turn of everybody but ours, which closes the round with `our_turn`."""
        opponents = [name for name in self._turns if name not in (self.ours, OURS_AGAIN)]
        start = len(self.seconds[self.ours]) % max(1, len(opponents))
        for name in (OURS_AGAIN, *opponents[start:], *opponents[:start]):
            self._take_turn(name)

    def our_turn(self) -> None:
        self._take_turn(self.ours)

    def run(self, rounds: int, until_s: float = float("inf")) -> None:
        """Take so many rounds, or those that fit before `time.monotonic()` is `until_s`, but at least three."""
        for number in range(rounds):
            if number >= 3 and time.monotonic() > until_s:
                break
            self.opponents_turns()
            self.our_turn()

    @property
    def rounds(self) -> int:
        return len(self.seconds[self.ours])

    def ratios(self, name: str) -> list[float]:
        """Return that contender's time over ours, round by round."""
        return [theirs / own for theirs, own in zip(self.seconds[name], self.seconds[self.ours], strict=True)]

    def kernel_seconds(self, name: str) -> float | None:
        """Return the seconds of all kernels of one call of a contender, by the profiler; None where it sees none."""
        if self.device.type != "cuda":
            return None
        turn = self._turns[name]
        turn.warm_up()
        kernels = profiled_kernels(turn.run, self.device)
        return sum(kernel.us for kernel in kernels) / 1e6 / turn.calls if kernels else None

    def _take_turn(self, name: str) -> None:
        turn = self._turns[name]
        self.seconds[name].append(turn.timed() / turn.calls)


Clock = Literal["host", "process", "pause", "steady"]
"""The clock of a turn. host: the host's clock, around a wait for the device. process: the process's CPU time. pause:
events around work queued behind a pause. steady: events around work that follows a call under way."""


@dataclass(frozen=True)
class _Turn:
    """Times `calls` calls at once, after one of `warm_up`, which is not timed.

    The caches still hold the last contender's data: short calls must not pay for that.
    """

    run: Call
    calls: int
    warm_up: Call
    device: torch.device
    clock: Clock
    result: Any = None
    """the result of the first call inside a recorded graph"""

    def timed(self) -> float:
        """Return the seconds that all calls take together."""
        self.warm_up()
        if self.clock == "process":
            started = time.process_time()
            self.run()
            return time.process_time() - started
        if self.clock == "host":
            _wait(self.device)
            started = time.perf_counter()
            self.run()
            _wait(self.device)
            return time.perf_counter() - started
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        if self.clock == "pause":
            torch.cuda.synchronize(self.device)
            torch.cuda._sleep(_PAUSE_CYCLES)  # type: ignore[no-untyped-call]  # torch's own lack
        began.record()
        self.run()
        ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1e3


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Preparation:
    """Makes turns of contenders: decides how often a call is repeated, and whether it is recorded."""

    def __init__(self, device: torch.device, shortest_turn_s: float, ends_on_host: bool, in_one_thread: bool) -> None:
        self.device = device
        self.shortest_turn_s = shortest_turn_s
        self.is_gpu = device.type == "cuda"
        self.clock: Clock = "steady" if self.is_gpu and not ends_on_host else "host"
        if in_one_thread and not self.is_gpu:
            self.clock = "process"

    def turn(self, contender: Contender) -> _Turn:
        calls = contender.calls
        is_recorded = contender.graph and self.is_gpu
        once = _Turn(_several(calls, 1), len(calls), _nothing, self.device, "host")
        with on_recording_stream(self.device) if is_recorded else nullcontext():
            seconds = once.timed()
            if self.is_gpu or seconds < LONG_CALL_S:
                seconds = min(once.timed() for _ in range(WARM_UP_CALLS))
        if not is_recorded:
            shortest = max(self.shortest_turn_s, SHORTEST_LAUNCHED_TURN_S) if self.is_gpu else self.shortest_turn_s
            repeats = _repeats(seconds, shortest)
            warm_up = calls[0] if self.is_gpu or seconds < SHORT_CALL_S else _nothing
            return _Turn(_several(calls, repeats), repeats * len(calls), warm_up, self.device, self.clock)
        # A replay shows how long the device takes without the host's launches; the turn gets its length by it.
        replayed = _recorded(calls, _repeats(seconds, self.shortest_turn_s), self.device)
        seconds = min(replayed.timed() for _ in range(WARM_UP_CALLS)) / replayed.calls * len(calls)
        return _recorded(calls, _repeats(seconds, self.shortest_turn_s), self.device)


def _nothing() -> None:
    """Warm nothing up."""


def _several(calls: Sequence[Call], repeats: int) -> Call:
    def run() -> None:
        for _ in range(repeats):
            for call in calls:
                call()

    return run


def _repeats(seconds: float, shortest_turn_s: float) -> int:
    """Return how often calls that take so long together are repeated in a turn."""
    return min(MOST_REPEATS, max(1, math.ceil(shortest_turn_s / max(seconds, 1e-9))))


def _recorded(calls: Sequence[Call], repeats: int, device: torch.device) -> _Turn:
    """Return a turn that replays the calls from a CUDA graph; recording raises with the stream as it was."""
    gc.collect()
    torch.cuda.empty_cache()
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    try:
        with torch.cuda.graph(graph, stream=_recording_stream(device), capture_error_mode="thread_local"):
            result = calls[0]()
            _several(calls[1:], 1)()
            _several(calls, repeats - 1)()
    finally:
        torch.cuda.set_stream(current)
    graph.replay()
    torch.cuda.synchronize(device)
    return _Turn(graph.replay, repeats * len(calls), graph.replay, device, "pause", result)


@cache
def _recording_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own lack


@contextmanager
def on_recording_stream(device: torch.device) -> Iterator[None]:
    """Compute on the stream that a GPU's graphs are recorded on; on a CPU this does nothing.

    What recorded contenders compute beforehand belongs there, because autograd computes a backward pass on the stream
    of its forward pass.
    """
    if device.type != "cuda":
        yield
        return
    stream, current = _recording_stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)
