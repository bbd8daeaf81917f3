"""Translates one image by the paper's generator, in every way to deploy it, against plain PyTorch."""

import pytest

from bench.cases.translation import translation_cases
from bench.conftest import DEVICE, Compare
from bench.measure.contest import Case
from bench.measure.limits import dtypes

ROUNDS = 7 if DEVICE.type == "cpu" else 50


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.title) for case in translation_cases(dtypes(DEVICE)[-1], 256, DEVICE)]
)
def test_translation(case: Case, compare: Compare) -> None:
    comparison = compare(case, ROUNDS)
    assert comparison.best_opponent is not None
