"""Makes a few faults of each campaign that hardly trains: none may lose anything, be silent, or end in a traceback."""

import pytest

from tests.faults.conftest import Judge

# In this order: the first ones measure the growth of the process that all share, or how much memory it has.
WITHOUT_TRAININGS = ("images", "samples", "translations", "scenes", "downloads", "operators", "exports")


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_TRAININGS)
def test_no_fault_of_a_campaign_fails(judge: Judge, name: str) -> None:
    judge(name)
