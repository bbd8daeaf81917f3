"""Benchmarks of accelerated networks compare what computes the same; their table stands in the documentation."""

from pathlib import Path

import pytest
import torch

from bench.acceleration import acceleration_table
from bench.cases.acceleration import OtherEntrants, acceleration_cases
from bench.cases.others import OTHER_NETWORKS, OtherNetwork, PixelwiseDiscriminator, StyleNetwork
from bench.measure.agreement import errors
from bench.measure.contest import Contest

CPU = torch.device("cpu")
PAGE = Path(__file__).parents[3] / "docs" / "kernels.md"
SMALL = [
    OtherNetwork("pixels", PixelwiseDiscriminator, 4, side=12),
    OtherNetwork("style", lambda width: StyleNetwork(width, False, blocks=1), 4, side=16),
]


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_contenders_have_the_same_weights_and_results(network: OtherNetwork) -> None:
    (case,) = acceleration_cases(
        [network], ["forward and backward"], [torch.float32], [2], CPU, with_compile=False, impl="reference"
    )
    contest: Contest = case.make()
    found = errors({name: contender.calls[0]() for name, contender in contest.contenders.items()}, contest.exact)
    assert found.keys() == {"plain PyTorch", "plain PyTorch, channels last", "ours"}
    assert max(found["ours"], found["plain PyTorch"]) < 1e-4
    assert case.operations > 0


def test_on_a_cpu_ours_is_the_network_as_it_was_written_to_the_bit() -> None:
    entrants = OtherEntrants(SMALL[1], "forward", torch.float32, 1, CPU)
    assert torch.equal(entrants.ours()()[0], entrants.plain(torch.float32)()[0])


@pytest.mark.slow
def test_the_table_of_the_documentation_is_what_is_counted() -> None:
    assert acceleration_table() in PAGE.read_text(encoding="utf-8"), "python -m bench.acceleration writes it anew"


def test_the_table_says_what_is_replaced_in_a_network() -> None:
    *_, row = acceleration_table([SMALL[1]]).splitlines()
    assert row.startswith("| style, 16 x 16 | 7 of 7 | 1 | 7 | ")
    assert len(OTHER_NETWORKS) == 11
