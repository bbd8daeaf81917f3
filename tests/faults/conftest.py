"""Makes the few faults of the campaigns that a file of tests names, in one process: each would import PyTorch anew."""

import subprocess
import sys
from collections.abc import Callable

import pytest

Judge = Callable[[str], None]
"""Fails unless the campaign of that name made its faults, and none failed"""


@pytest.fixture(scope="module")
def judge(request: pytest.FixtureRequest) -> Judge:
    items = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    names = [item.callspec.params["name"] for item in items]
    command = [sys.executable, "-m", "tests.faults", *map(str, names), "--few"]
    ended = subprocess.run(command, capture_output=True, text=True)
    lines = ended.stdout.splitlines()

    def has_no_failure(name: str) -> None:
        said = [line for line in lines if line.startswith((f"{name}: ", f"FAILED {name}: "))]
        assert said, f"{name} came to no end; the process ended with {ended.returncode}: {ended.stderr[-4000:]}"
        assert ", 0 failed (" in said[-1], "\n".join(said)

    return has_no_failure
