"""Chooses the implementation of an operator; `arguments/` refuses what no implementation takes."""

import os
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from . import triton_language
from .arguments.options import as_choice, check_choice
from .cpu.compilation import NotCompiled, is_compiled, library
from .cpu.operators import C_DTYPES

Impl = Literal["auto", "triton", "c", "reference"]
Implementation = Literal["triton", "c", "reference"]
Activation = Literal["none", "relu", "leaky_relu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
_IMPLS: tuple[Impl, ...] = get_args(Impl)

ENVIRONMENT_VARIABLE = "CYCLEGAN_FAST_IMPL"
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OPERATORS_IN_C = ("instance_norm", "reflection_pad")


def choose(operator: str, impl: Impl, x: Tensor, dtypes: Sequence[torch.dtype] = TRITON_DTYPES) -> Implementation:
    """Resolve `impl` for one call of `operator` on `x`.

    "auto" is Triton on a CUDA tensor in one of `dtypes`, and the reference everywhere else and while a graph is being
    exported. The environment variable CYCLEGAN_FAST_IMPL replaces "auto"; there "c" stands for C where it can be, that
    is on Linux for a norm or a pad of a CPU tensor in float32 or bfloat16, and for "auto" elsewhere. An implementation
    asked for by name is returned or refused, never replaced.

    Raises ValueError for an unknown name, and RuntimeError or TypeError where what was asked for cannot run.
    """
    check_impl(impl)
    if impl == "auto":
        impl = _from_environment()
        if impl == "c" and (is_exporting() or not _suits_c(operator, x)):
            impl = "auto"
    if impl == "auto":
        return "triton" if _suits_triton(x, dtypes) and not is_exporting() else "reference"
    if impl == "triton":
        _require_triton(operator, x, dtypes)
    if impl == "c":
        _require_c(operator, x)
    return impl


def check_impl(impl: object) -> None:
    """Raise ValueError where `impl` is not the name of an implementation or "auto"."""
    check_choice("impl", impl, _IMPLS)


def is_exporting() -> bool:
    """Return whether torch.export or either of the ONNX exporters is tracing.

    The flag is read, and not `torch.compiler.is_exporting()`: torch.compile of torch 2.11 takes that call for True.
    """
    return bool(torch.compiler._is_exporting_flag) or torch.onnx.is_in_onnx_export()


def _from_environment() -> Impl:
    value = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    check_choice(ENVIRONMENT_VARIABLE, value, _IMPLS)
    return value  # type: ignore[return-value]  # it is one of them


def _suits_triton(x: Tensor, dtypes: Sequence[torch.dtype]) -> bool:
    if not x.is_cuda or x.dtype not in dtypes:
        return False
    if not triton_language.INSTALLED:
        warnings.warn("triton is not installed: the plain operators run instead of the fused ones", stacklevel=4)
    return triton_language.INSTALLED


def _require_triton(operator: str, x: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    if not triton_language.INSTALLED:
        raise RuntimeError(f"impl='triton' for {operator} needs the triton package, which has Linux wheels only")
    if x.dtype not in dtypes:
        names = as_choice([str(dtype).removeprefix("torch.") for dtype in dtypes])
        raise TypeError(f"impl='triton' for {operator} takes {names}, got {x.dtype}")
    if not x.is_cuda and not x.is_meta and not triton_language.INTERPRETED:
        raise RuntimeError(
            f"impl='triton' for {operator} needs a CUDA tensor, got one on {x.device}; "
            "set TRITON_INTERPRET=1 before Python starts to run it in Triton's interpreter"
        )


def _suits_c(operator: str, x: Tensor) -> bool:
    # float64 is what exactness is asked of: by itself it is computed by the reference.
    return x.device.type == "cpu" and operator in OPERATORS_IN_C and x.dtype in C_DTYPES[:2] and is_compiled()


def _require_c(operator: str, x: Tensor) -> None:
    if operator not in OPERATORS_IN_C:
        raise RuntimeError(f"impl='c' is for {' and '.join(OPERATORS_IN_C)}, there is no {operator} in C")
    if x.dtype not in C_DTYPES:
        raise TypeError(f"impl='c' for {operator} takes float32, bfloat16 or float64, got {x.dtype}")
    if x.device.type != "cpu":
        raise RuntimeError(f"impl='c' for {operator} needs a CPU tensor, got one on {x.device}")
    try:
        library()
    except NotCompiled as error:
        raise RuntimeError(f"impl='c' for {operator}: {error}") from error


def autocast(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Cast all tensors to autocast's dtype where it is on for x's device, as PyTorch does for a convolution."""
    tensors = (x, *others)
    device = x.device.type
    # The devices are compared by name: torch.compile of torch 2.11 cannot trace `torch.amp.is_autocast_available`.
    if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor.to(dtype) if is_cast_by_autocast(tensor) else tensor for tensor in tensors)


def is_cast_by_autocast(x: Tensor) -> bool:
    """Return whether autocast casts x as an operand of a convolution: floating-point tensors other than float64."""
    return x.is_floating_point() and x.dtype != torch.float64


def wide(x: Tensor) -> Tensor:
    """Return `x` in the precision that losses are computed in: float64 of float64, and float32 of any other."""
    return x if x.dtype == torch.float64 else x.float()
