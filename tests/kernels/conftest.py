"""Makes Triton's interpreter compute as the hardware does, fills unwritten memory, and sums up accuracy."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from kernels import triton_language

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def round_to_bfloat16(bits: np.ndarray[Any, np.dtype[np.uint32]]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """float32 bits to bfloat16 bits, to nearest, ties to even (IEEE 754); a NaN stays one."""
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, np.uint32(0x7FC0), rounded).astype(np.uint16)


@pytest.fixture(autouse=True, scope="session")
def rounding_to_nearest() -> None:
    """The interpreter cuts float32 off to bfloat16, which doubles the error; every GPU rounds to nearest even."""
    if not triton_language.INTERPRETED:
        return
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def convert_float(value: Any, source: Any, target: Any, rounding_mode: Any) -> Any:
        if str(source) == "fp32" and str(target) == "bf16":
            bits = np.frombuffer(value.tobytes(), dtype=np.uint32)
            return round_to_bfloat16(bits).reshape(value.shape)
        return convert(value, source, target, rounding_mode)

    interpreter._convert_float = convert_float


@pytest.fixture(autouse=True, scope="session")
def products_of_bfloat16() -> None:
    """The interpreter keeps bfloat16 as uint16, and tl.dot multiplies those bits (triton-lang/triton issue 11584)."""
    if not triton_language.INTERPRETED:
        return
    from triton.runtime import interpreter

    create_dot = interpreter.InterpreterBuilder.create_dot

    def widened(x: Any) -> Any:
        if str(x.dtype.scalar) != "bf16":
            return x
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), triton_language.tl.float32)

    def create_dot_of_values(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return create_dot(self, widened(a), widened(b), *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot_of_values


@pytest.fixture(autouse=True, scope="session")
def no_repeated_work() -> None:
    """Spares the interpreter two thirds of its time.

    It patches triton.language again for every function that a kernel calls, and asserts after each sum and product of
    32-bit integers that it did not overflow, which takes larger tensors than it can be given.
    """
    if not triton_language.INTERPRETED:
        return
    from triton.runtime import interpreter

    patched: set[str] = set()

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        # The launch has patched what our kernels call tl; Triton's own functions know the same under other names.
        module = self.fn.__module__
        if module not in patched and not module.startswith("kernels."):
            interpreter._patch_lang(self.fn)
            patched.add(module)
        return self.rewrite()(*arguments, **options)

    interpreter.InterpretedFunction.__call__ = call
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)


@pytest.fixture(scope="module")
def unwritten_memory_is_nan() -> Iterator[None]:
    """Fills what torch.empty returns with NaN, so that an element nobody wrote is seen."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from tests.kernels import accuracy

    for line in accuracy.summary():
        terminalreporter.write_line(line)
