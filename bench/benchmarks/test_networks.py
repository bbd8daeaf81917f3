"""Measures the generator and the discriminator, forward and with all gradients, against the original's modules.

On a CPU by default one pass of the generator at 256x256, with torch.compile, and both networks both ways at 128x128.
"""

import pytest

from bench.cases.networks import Kind, network_cases
from bench.conftest import DEVICE, Compare, SkipUnless
from bench.measure.contest import Case
from bench.measure.limits import dtypes

BOTH: tuple[Kind, Kind] = ("generator", "discriminator")
ROUNDS = 5 if DEVICE.type == "cpu" else 20
LOWEST = dtypes(DEVICE)[-1]
ON_A_CPU = [
    *network_cases(["generator"], ["forward"], [LOWEST], [1], 256, DEVICE),
    *network_cases(BOTH, ["forward and backward"], [LOWEST], [1], 128, DEVICE, with_compile=False),
]
ALL = [*network_cases(BOTH, ["forward", "forward and backward"], dtypes(DEVICE), [1, 16], 256, DEVICE)]
CASES = [(case, True) for case in ON_A_CPU if DEVICE.type == "cpu"] + [(case, False) for case in ALL]


@pytest.mark.parametrize(
    ("case", "by_default"),
    [pytest.param(*both, id=f"{both[0].title}{'' if both[1] else ', in full'}") for both in CASES],
)
def test_network(case: Case, by_default: bool, compare: Compare, skip_unless: SkipUnless) -> None:
    skip_unless(by_default)
    if DEVICE.type == "cpu" and case.batch > 4:
        pytest.skip("batch 16 takes minutes a call on a CPU")
    comparison = compare(case, ROUNDS)
    assert comparison.contenders["ours"].error is not None
