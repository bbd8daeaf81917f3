"""Timing of opponents side by side.

Machines are shared and clocks drift, so contenders take turns: each runs once a round, and a ratio is the median of the
ratios within the rounds. The order turns with the rounds, and ours runs twice in each, as first and as last: the ratio
of the two is what this measurement cannot tell from nothing.

On a CPU a turn is timed by the host. On a GPU it is timed by events in the stream, behind a pause that lets the host
run ahead, and where a contender asks for it its calls are recorded as one CUDA graph, as training launches them, so
that the time is the device's alone. Short calls are repeated within a turn.

pytest-benchmark does not interleave. `bench.conftest` hands it our own turns and runs the others' in the untimed setup
of each round; what it prints is the host's clock, what is recorded is this module's.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], Any]

OURS_AGAIN = "ours, again"
SHORTEST_TURN_S = 2e-3
PAUSE_CYCLES = 1_000_000
"""of a GPU's clock, half a millisecond: the host issues the calls of a turn meanwhile"""
MOST_REPEATS = 1000
WARM_UP_CALLS = 3
"""after a first one: libraries choose algorithms and compilers compile in them, and training records its graph"""
SHORT_CALL_S = 0.05
LONG_CALL_S = 0.3
"""on a CPU what takes longer is warm after one call"""


@dataclass(frozen=True)
class Contender:
    """What takes part: calls that do the same, each on operands of its own, so that caches do not hold them.

    `graph` has them recorded as one CUDA graph on a GPU; elsewhere it has no meaning.
    """

    calls: Sequence[Call]
    graph: bool = False


@dataclass(frozen=True)
class Spread:
    """A quantity measured several times."""

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
    """Contenders that take turns.

    Args:
        device: that computes.
        contenders: by name; all of them are prepared here: called, recorded, and given repeats for a turn that is long
            enough to time.
        ours: the one whose time the others' is divided by.
        shortest_turn_s: seconds; shorter calls are repeated.
    """

    def __init__(
        self,
        device: torch.device,
        contenders: Mapping[str, Contender],
        ours: str,
        *,
        shortest_turn_s: float = SHORTEST_TURN_S,
    ) -> None:
        if ours not in contenders:
            raise ValueError(f"{ours!r} does not take part, only {', '.join(contenders)}")
        self.device = device
        self.ours = ours
        self._turns = {name: _prepared(contender, device, shortest_turn_s) for name, contender in contenders.items()}
        self._turns[OURS_AGAIN] = self._turns[ours]
        self.seconds: dict[str, list[float]] = {name: [] for name in self._turns}

    def opponents_turns(self) -> None:
        """One turn of everybody but ours, which closes the round with `our_turn`."""
        opponents = [name for name in self._turns if name not in (self.ours, OURS_AGAIN)]
        start = len(self.seconds[self.ours]) % max(1, len(opponents))
        for name in (OURS_AGAIN, *opponents[start:], *opponents[:start]):
            self._take_turn(name)

    def our_turn(self) -> None:
        self._take_turn(self.ours)

    def run(self, rounds: int, until_s: float = float("inf")) -> None:
        """So many rounds, or those that fit before `time.monotonic()` is `until_s`, but at least three."""
        for number in range(rounds):
            if number >= 3 and time.monotonic() > until_s:
                break
            self.opponents_turns()
            self.our_turn()

    @property
    def rounds(self) -> int:
        return len(self.seconds[self.ours])

    def ratios(self, name: str) -> list[float]:
        """Round by round: that contender's time over ours."""
        return [theirs / own for theirs, own in zip(self.seconds[name], self.seconds[self.ours], strict=True)]

    def _take_turn(self, name: str) -> None:
        turn = self._turns[name]
        turn.warm_up()
        self.seconds[name].append(turn.timed() / turn.calls)


class _Turn:
    """What is timed at once, `calls` calls."""

    def __init__(
        self, run: Call, calls: int, device: torch.device, *, is_queued: bool = False, warm_up: Call = lambda: None
    ) -> None:
        self.run = run
        self.calls = calls
        self.device = device
        self.is_queued = is_queued
        self.warm_up = warm_up

    def timed(self) -> float:
        """Seconds."""
        if self.device.type != "cuda":
            started = time.perf_counter()
            self.run()
            return time.perf_counter() - started
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(self.device)
        if self.is_queued:
            torch.cuda._sleep(PAUSE_CYCLES)  # type: ignore[no-untyped-call]  # as above
        began.record()
        self.run()
        ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1e3


def _prepared(contender: Contender, device: torch.device, shortest_turn_s: float) -> _Turn:
    calls = contender.calls
    is_recorded = contender.graph and device.type == "cuda"
    once = _Turn(lambda: [call() for call in calls], len(calls), device)
    with _side_stream(device) if is_recorded else nullcontext():
        seconds = once.timed()
        if device.type == "cuda" or seconds < LONG_CALL_S:
            seconds = min(once.timed() for _ in range(WARM_UP_CALLS))
    repeats = _repeats(seconds, shortest_turn_s)
    if not is_recorded:
        return _turn(calls, repeats, device, is_queued=seconds < SHORT_CALL_S)
    # How long the device takes is seen when the host no longer launches: then the turn gets its length.
    replayed = _recorded(calls, repeats, device)
    seconds = min(replayed.timed() for _ in range(WARM_UP_CALLS)) / repeats
    return _recorded(calls, _repeats(seconds, shortest_turn_s), device)


def _repeats(seconds: float, shortest_turn_s: float) -> int:
    """Of calls that take so long together."""
    return min(MOST_REPEATS, max(1, math.ceil(shortest_turn_s / max(seconds, 1e-9))))


def _turn(calls: Sequence[Call], repeats: int, device: torch.device, *, is_queued: bool = False) -> _Turn:
    def run() -> None:
        for _ in range(repeats):
            for call in calls:
                call()

    # The caches are the last contender's: short calls shall not pay for that.
    warm_up = calls[0] if is_queued else lambda: None
    return _Turn(run, repeats * len(calls), device, is_queued=is_queued, warm_up=warm_up)


def _recorded(calls: Sequence[Call], repeats: int, device: torch.device) -> _Turn:
    turn = _turn(calls, repeats, device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=_side_streams[device.index or 0]):
        turn.run()
    return _Turn(graph.replay, turn.calls, device, warm_up=graph.replay)


_side_streams: dict[int, Any] = {}


@contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
    """Where graphs are recorded, and where what they call runs before: autograd goes back on the stream it came on."""
    stream = _side_streams.setdefault(
        device.index or 0,
        torch.cuda.Stream(device),  # type: ignore[no-untyped-call]  # as above
    )
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


@contextmanager
def on_recording_stream(device: torch.device) -> Iterator[None]:
    """For what a recorded contender computes beforehand, such as the forward pass of a backward pass that is timed."""
    with _side_stream(device) if device.type == "cuda" else nullcontext():
        yield
