"""Steps of known graphs take the time that one computes by hand."""

import pytest

from bench.modelling.assumptions import NODE_GAP_US as GAP
from bench.modelling.schedule import critical_path_us, one_stream_us, streams_us

DIAMOND_US = [1.0, 5.0, 2.0, 1.0]
DIAMOND: list[tuple[int, ...]] = [(), (0,), (0,), (1, 2)]
IDLE = [(0.0,)] * 4
HALF = [(0.5,)] * 4
WHOLE = [(1.0,)] * 4


def test_one_stream_runs_everything_and_the_longest_path_its_longest_chain() -> None:
    assert one_stream_us(DIAMOND_US) == pytest.approx(9 + 4 * GAP)
    assert critical_path_us(DIAMOND_US, DIAMOND) == pytest.approx(7 + 3 * GAP)
    assert critical_path_us([], []) == 0


@pytest.mark.parametrize("shares", [IDLE, HALF])
def test_two_streams_reach_the_longest_path_where_the_gpu_has_room(shares: list[tuple[float]]) -> None:
    assert streams_us(DIAMOND_US, DIAMOND, shares, 2) == pytest.approx(7 + 3 * GAP)
    assert streams_us(DIAMOND_US, DIAMOND, shares, 1) == pytest.approx(one_stream_us(DIAMOND_US))


def test_nodes_that_want_the_whole_gpu_gain_nothing_but_a_gap() -> None:
    assert streams_us(DIAMOND_US, DIAMOND, WHOLE, 2) == pytest.approx(9 + 3 * GAP)


def test_no_more_nodes_run_at_once_than_there_are_streams() -> None:
    assert streams_us([4.0] * 4, [()] * 4, IDLE, 2) == pytest.approx(2 * (4 + GAP))
