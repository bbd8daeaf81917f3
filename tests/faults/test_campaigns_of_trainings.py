"""Makes a few faults of each campaign that trains: nothing may be lost, wrong in silence, or end in a traceback."""

import pytest

from tests.faults.__main__ import NAMES
from tests.faults.conftest import Judge
from tests.faults.test_campaigns import WITHOUT_TRAININGS


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_TRAININGS])
def test_no_fault_of_a_training_fails(judge: Judge, name: str) -> None:
    judge(name)
