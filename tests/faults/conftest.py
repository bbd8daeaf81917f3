"""Makes the few faults of the campaigns that a file of tests names, in one process: each would import PyTorch anew."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

Judge = Callable[[str], None]
"""Waits for the end of the campaign of that name; fails where that does not come, or one of its faults failed."""


@pytest.fixture(scope="module")
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    """Makes the campaigns one after another in the order of their tests, each of which waits for its own."""
    items = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    names = [str(item.callspec.params["name"]) for item in items]
    command = [sys.executable, "-m", "tests.faults", *names, "--few"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:

        def has_no_failure(name: str) -> None:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith(f"{name}: ") and " faults, " in line:
                    break
            else:
                pytest.fail(f"{name} came to no end; the process ended with {process.wait()}: {''.join(said)[-8000:]}")
            assert ", 0 failed (" in line, "".join(said)[-8000:]

        yield has_no_failure
        process.kill()  # where a test ended before its campaign
