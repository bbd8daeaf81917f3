import os
from typing import Any

# Tests compute on tiny tensors, where a second thread only costs; it is set before torch starts its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

# Without a GPU the Triton kernels run in Triton's interpreter, which decides when a kernel is decorated.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under pytest-xdist, hand what this worker measured to the process that sums up."""
    from tests.kernels import accuracy

    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["accuracy"] = accuracy.as_numbers()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    from tests.kernels import accuracy

    accuracy.add_numbers(getattr(node, "workeroutput", {}).get("accuracy", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from tests.kernels import accuracy

    for line in accuracy.summary():
        terminalreporter.write_line(line)
