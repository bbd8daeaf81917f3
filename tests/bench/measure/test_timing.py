"""Clocks measure calls of known duration, and contenders take turns."""

import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity

from bench.measure.kernel_times import KernelTime, profiled_kernels
from bench.measure.timing import OURS_AGAIN, Contender, Race, Spread

CPU = torch.device("cpu")
SLEEP_S = 0.02


class Clock:
    """Stands in for the host's clock and is moved on by calls, so that a busy machine does not change what it says."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def take(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: made.now_s)
    return made


def test_a_sleep_takes_as_long_as_it_sleeps() -> None:
    began = time.perf_counter()
    race = Race(CPU, {"ours": Contender([partial(time.sleep, SLEEP_S)])}, "ours")
    race.run(5)
    elapsed_s = time.perf_counter() - began
    seconds = [*race.seconds["ours"], *race.seconds[OURS_AGAIN]]
    assert min(seconds) >= SLEEP_S
    assert sum(seconds) < elapsed_s


def test_the_ratio_of_two_calls_is_that_of_their_durations(clock: Clock) -> None:
    contenders = {name: Contender([partial(clock.take, each)]) for name, each in (("ours", 0.05), ("slow", 0.15))}
    race = Race(CPU, contenders, "ours")
    race.run(5)
    assert race.ratios("slow") == pytest.approx([3] * 5)
    assert race.ratios(OURS_AGAIN) == pytest.approx([1] * 5)


def test_a_machine_that_slows_down_changes_no_ratio(clock: Clock) -> None:
    def call(seconds: float) -> None:
        clock.take(seconds * (1 + clock.now_s / 20))  # 5 % slower with each second

    contenders = {name: Contender([partial(call, each)]) for name, each in (("ours", 0.1), ("ten", 1.0))}
    race = Race(CPU, contenders, "ours")
    race.run(9)
    assert race.seconds["ours"][-1] > 1.3 * race.seconds["ours"][0]
    assert race.ratios("ten") == pytest.approx([10] * 9, rel=0.1)


def test_short_calls_are_repeated_and_a_time_is_that_of_one_call(clock: Clock) -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1
        clock.take(0.001)

    race = Race(CPU, {"ours": Contender([call, call])}, "ours", shortest_turn_s=0.02)
    before = count
    race.our_turn()
    timed = count - before - 1  # one call warms up
    assert timed % 2 == 0
    assert timed == 20
    assert race.seconds["ours"] == pytest.approx([0.001])


def test_contenders_take_turns_and_ours_is_first_and_last() -> None:
    order: list[str] = []
    contenders = {name: Contender([partial(order.append, name)]) for name in ("a", "ours", "b", "c")}
    race = Race(CPU, contenders, "ours", shortest_turn_s=0.0)
    order.clear()
    race.run(3)
    timed = order[1::2]  # each is called once before it is timed
    assert order[::2] == timed
    assert ["".join(timed[start : start + 5]) for start in (0, 5, 10)] == ["oursabcours", "oursbcaours", "ourscabours"]
    assert race.rounds == 3
    assert all(len(values) == 3 for values in race.seconds.values())


def test_a_race_ends_when_its_time_is_over_but_not_before_three_rounds() -> None:
    race = Race(CPU, {"ours": Contender([partial(time.sleep, 0.001)])}, "ours")
    race.run(1000, until_s=time.monotonic() - 1)
    assert race.rounds == 3


def test_who_is_ours_must_take_part() -> None:
    with pytest.raises(ValueError, match="'ours' does not take part, only theirs"):
        Race(CPU, {"theirs": Contender([time.sleep])}, "ours")


def test_who_enters_later_races_with_the_others_from_then_on(clock: Clock) -> None:
    race = Race(CPU, {"ours": Contender([partial(clock.take, 0.001)])}, "ours")
    race.run(2)
    race.enter("theirs", Contender([partial(clock.take, 0.004)]))
    race.run(3)
    assert {name: len(seconds) for name, seconds in race.seconds.items()} == {"ours": 3, OURS_AGAIN: 3, "theirs": 3}
    assert race.ratios("theirs") == pytest.approx([4] * 3)
    race.leave("theirs")
    race.run(1)
    assert set(race.seconds) == {"ours", OURS_AGAIN}


def test_kernels_of_a_turn_are_added_up_for_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    race = Race(CPU, {"ours": Contender([partial(calls.append, 1)] * 2)}, "ours", shortest_turn_s=0.0)
    assert race.kernel_seconds("ours") is None  # a CPU has no kernels to be seen
    calls.clear()

    def profiled(run: Callable[[], None], device: torch.device) -> list[KernelTime]:
        run()
        return [KernelTime(name, us) for _ in calls[1:] for name, us in (("convolution", 20.0), ("copy", 10.0))]

    monkeypatch.setattr("bench.measure.timing.profiled_kernels", profiled)
    race.device = torch.device("cuda")
    assert race.kernel_seconds("ours") == pytest.approx(30e-6)
    assert len(calls) == 3  # one warms up
    monkeypatch.setattr("bench.measure.timing.profiled_kernels", lambda *_: [])
    assert race.kernel_seconds("ours") is None


class Profiler:
    """Stands in for `torch.profiler.profile`, which sees kernels on a GPU only."""

    def __init__(self, activities: list[ProfilerActivity]) -> None:
        assert activities == [ProfilerActivity.CUDA]

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def events(self) -> list[SimpleNamespace]:
        of = {"cpu": SimpleNamespace(name="CPU"), "gpu": SimpleNamespace(name="CUDA")}
        rows = [("cudaGraphLaunch", "cpu", 50.0), ("wgrad", "gpu", 30.0), ("Memcpy HtoD", "gpu", 2.0)]
        return [SimpleNamespace(name=name, device_type=of[where], device_time_total=us) for name, where, us in rows]


def test_the_profiler_is_asked_for_kernels_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr("torch.cuda.synchronize", lambda device: ran.append(0))
    monkeypatch.setattr("torch.profiler.profile", Profiler)
    monkeypatch.setattr("torch.profiler.supported_activities", lambda: {ProfilerActivity.CPU, ProfilerActivity.CUDA})
    found = profiled_kernels(lambda: ran.append(1), torch.device("cuda"))
    assert found == [KernelTime("wgrad", 30.0), KernelTime("Memcpy HtoD", 2.0)]
    assert ran == [0, 1, 0]  # nothing that was under way before is counted, all of it is waited for
    monkeypatch.setattr("torch.profiler.supported_activities", lambda: {ProfilerActivity.CPU})
    assert profiled_kernels(lambda: ran.append(1), torch.device("cuda")) == []


def test_quartiles() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here")
@pytest.mark.parametrize("graph", [False, True])
def test_a_pause_of_so_many_cycles_takes_so_long_on_the_device(graph: bool) -> None:
    """Compares two pauses, one ten times as long: their difference is free of what a launch takes."""
    device = torch.device("cuda")
    contenders = {
        name: Contender([partial(torch.cuda._sleep, cycles)], graph=graph)
        for name, cycles in (("ours", 1_000_000), ("long", 10_000_000))
    }
    race = Race(device, contenders, "ours")
    race.run(7)
    assert Spread.of(race.ratios("long")).median == pytest.approx(10, rel=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here")
def test_a_recorded_copy_moves_what_a_launched_one_does() -> None:
    device = torch.device("cuda")
    source = torch.randn(1 << 28, device=device)
    target = torch.empty_like(source)

    def copy() -> torch.Tensor:
        return target.copy_(source)

    race = Race(device, {"ours": Contender([copy], graph=True), "launched": Contender([copy])}, "ours")
    race.run(7)
    assert Spread.of(race.ratios("launched")).median == pytest.approx(1, rel=0.05)
    for name in ("ours", "launched"):
        # There is one kernel, as long as what events tell.
        assert race.kernel_seconds(name) == pytest.approx(min(race.seconds[name]), rel=0.1)
