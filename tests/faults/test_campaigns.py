"""Makes a few faults of every campaign: none may lose anything, be wrong in silence, or end in a traceback."""

import subprocess
import sys

import pytest

from tests.faults.__main__ import NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_fault_of_a_campaign_fails(name: str) -> None:
    ended = subprocess.run([sys.executable, "-m", "tests.faults", name, "--few"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert ", 0 failed" in ended.stdout
