"""Runs a command's file as Python does, in the test's own process, which has imported what commands import."""

import runpy
import sys
from unittest import mock

import pytest


def run_as_command(file: str, *arguments: str) -> int:
    """Run a file as `__main__` with these arguments, and return the status that it ends with.

    What a command needs to find in a process of its own is not proved: environment, working folder, imports.
    """
    with mock.patch.object(sys, "argv", [file, *arguments]), pytest.raises(SystemExit) as ended:
        runpy.run_path(file, run_name="__main__")
    status = ended.value.code or 0
    assert isinstance(status, int)
    return status
