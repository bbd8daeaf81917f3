"""Makes Triton's interpreter round as the hardware does."""

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
