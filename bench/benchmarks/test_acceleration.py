"""Measures networks of other projects, forward and with all gradients, as they were written and accelerated.

On a CPU by default one network, which `accelerate` leaves as it is there: the ratio is 1, as of ours against itself.
"""

import pytest

from bench.cases.acceleration import acceleration_cases
from bench.cases.networks import Pass
from bench.cases.others import OTHER_NETWORKS
from bench.conftest import DEVICE, Compare, SkipUnless
from bench.measure.contest import Case
from bench.measure.limits import dtypes

PASSES: tuple[Pass, Pass] = ("forward", "forward and backward")
ROUNDS = 5 if DEVICE.type == "cpu" else 20
ON_A_CPU = list(
    acceleration_cases(OTHER_NETWORKS[3:4], PASSES[:1], dtypes(DEVICE)[:1], [1], DEVICE, with_compile=False)
)
ALL = list(acceleration_cases(OTHER_NETWORKS, PASSES, dtypes(DEVICE)[-1:], [1, 16], DEVICE))
CASES = [(case, True) for case in ON_A_CPU if DEVICE.type == "cpu"] + [(case, False) for case in ALL]


@pytest.mark.parametrize(
    ("case", "by_default"),
    [pytest.param(*both, id=f"{both[0].title}{'' if both[1] else ', in full'}") for both in CASES],
)
def test_accelerated_network(case: Case, by_default: bool, compare: Compare, skip_unless: SkipUnless) -> None:
    skip_unless(by_default)
    if DEVICE.type == "cpu" and case.batch > 4:
        pytest.skip("batch 16 takes minutes a call on a CPU")
    comparison = compare(case, ROUNDS)
    assert comparison.contenders["ours"].error is not None
