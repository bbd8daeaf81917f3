"""Measures how time and memory grow with the batch and with the side of the images, ours and plain PyTorch's.

On a GPU the whole training step, on a CPU the generator forward and backward; `bench.report` prints the exponents.
"""

import pytest

from bench.cases.scaling import scaling_cases
from bench.conftest import DEVICE, Compare, SkipUnless
from bench.measure.contest import Case
from bench.measure.limits import dtypes

ROUNDS = 3 if DEVICE.type == "cpu" else 15
LARGEST_BY_DEFAULT = 1 << 16
"""The most pixels of a batch that a CPU measures by default."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.title) for case in scaling_cases(dtypes(DEVICE)[-1], DEVICE)]
)
def test_scaling(case: Case, compare: Compare, skip_unless: SkipUnless) -> None:
    skip_unless(case.batch * case.side**2 <= LARGEST_BY_DEFAULT)
    comparison = compare(case, ROUNDS)
    assert all(timing.peak_gib for name, timing in comparison.contenders.items() if "compile" not in name)
