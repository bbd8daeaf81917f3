"""Launches find what was compiled ahead of them."""

import pytest

from cyclegan_fast.kernels.checking import ahead
from cyclegan_fast.kernels.triton_language import INTERPRETED
from tests.kernels.test_aot import run


@pytest.mark.slow
def test_launches_find_what_was_compiled_ahead() -> None:
    result = run("tests.kernels.compile_twice")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("0 compiled by them\n")


@pytest.mark.skipif(not INTERPRETED, reason="Triton compiles here")
def test_in_the_interpreter_nothing_can_be_compiled_ahead() -> None:
    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"):
        ahead.compile_ahead([], None, lambda *numbers: None)
