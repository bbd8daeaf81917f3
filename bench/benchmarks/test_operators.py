"""Measures the fused norms at every site, against eager PyTorch in both layouts and torch.compile.

On a CPU, where ours are plain operators too, three sites in the lowest precision; `--bench-full` measures all.
"""

import pytest

from bench.cases.operators import operator_cases
from bench.conftest import DEVICE, Compare, SkipUnless
from bench.measure.contest import Case
from bench.measure.limits import dtypes
from bench.tuning.trials import batches_of_a_step
from cyclegan_fast.kernels.checking.sites import all_sites
from cyclegan_fast.system.device import name_of

SIDE = 256
BATCHES = [images for batch in (1, 16) for images in batches_of_a_step(batch)]
ROUNDS = 15
BY_DEFAULT = ("blocks, second half", "after up 2", "discriminator 3")
LOWEST = name_of(dtypes(DEVICE)[-1])
ALL = [*operator_cases(list(all_sites(SIDE)), dtypes(DEVICE), BATCHES, DEVICE, SIDE)]


def is_default(case: Case) -> bool:
    is_of_site = any(case.case.startswith(f"{name}, ") for name in BY_DEFAULT)
    return case.batch == 1 and case.dtype == LOWEST and is_of_site


@pytest.mark.parametrize("case", [pytest.param(case, id=case.title) for case in ALL])
def test_operator(case: Case, compare: Compare, skip_unless: SkipUnless) -> None:
    skip_unless(is_default(case))
    comparison = compare(case, ROUNDS)
    assert comparison.contenders["ours"].error is not None
