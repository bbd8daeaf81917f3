"""Measures the training step against plain PyTorch's and stock autocast's; `python -m bench.step` has every option.

On a CPU at 128x128 by default, and without torch.compile, which takes minutes there.
"""

import pytest

from bench.cases.plain_cyclegan import PLAIN_FLOAT32
from bench.cases.training_step import training_step_cases
from bench.conftest import DEVICE, Compare, SkipUnless
from bench.measure.contest import Case

ROUNDS = 3 if DEVICE.type == "cpu" else 20
SIDES_AND_BATCHES = [(128, 1), (256, 1)] if DEVICE.type == "cpu" else [(256, 1), (256, 16)]


def quick(name: str) -> bool:
    return "compile" not in name and "checkpoint" not in name


def everybody(name: str) -> bool:
    return True


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.title)
        for side, batch in SIDES_AND_BATCHES
        for case in training_step_cases(
            side, batch, DEVICE, quick if DEVICE.type == "cpu" and side == 128 else everybody
        )
    ],
)
def test_step(case: Case, compare: Compare, skip_unless: SkipUnless) -> None:
    skip_unless(case.side == 128)
    comparison = compare(case, ROUNDS)
    if case.dtype != "float32":  # in float32 noise can turn the ratio round
        assert comparison.contenders[PLAIN_FLOAT32].ratio.median > 1
