"""The one place where an implementation of an operator is chosen."""

import os
from typing import Literal, get_args

import torch
from torch import Tensor

Impl = Literal["auto", "triton", "reference"]
Activation = Literal["none", "relu", "leaky_relu"]

ENVIRONMENT_VARIABLE = "CYCLEGAN_FAST_IMPL"

# Operators that have a Triton implementation; an operator joins with its kernel.
TRITON_OPERATORS: frozenset[str] = frozenset()


def choose(operator: str, impl: Impl, x: Tensor) -> Literal["triton", "reference"]:
    """Resolve `impl` for one call of `operator` on `x`.

    "auto" is Triton on a CUDA tensor where the operator has such a kernel, and the reference everywhere else and
    while a graph is being exported. The environment variable CYCLEGAN_FAST_IMPL replaces "auto". An implementation
    asked for by name is returned or refused, never replaced.

    Raises ValueError for an unknown name and RuntimeError where Triton was asked for and cannot run.
    """
    if impl == "auto":
        impl = _from_environment()
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be one of {', '.join(get_args(Impl))}, got {impl!r}")
    if impl == "auto":
        usable = x.is_cuda and operator in TRITON_OPERATORS and not torch.compiler.is_exporting()
        return "triton" if usable else "reference"
    if impl == "triton":
        _require_triton(operator, x)
    return impl


def _from_environment() -> Impl:
    value = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    if value not in get_args(Impl):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(get_args(Impl))}, got {value!r}")
    return value  # type: ignore[return-value]  # narrowed by the membership test, which mypy does not follow


def _require_triton(operator: str, x: Tensor) -> None:
    if operator not in TRITON_OPERATORS:
        raise RuntimeError(f"impl='triton': {operator} has no Triton kernel yet; use impl='reference' or 'auto'")
    try:
        import triton  # noqa: F401  # only whether it is there matters
    except ImportError as error:
        raise RuntimeError(
            f"impl='triton' for {operator} needs the triton package, which has Linux wheels only"
        ) from error
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f"impl='triton' for {operator} needs a CUDA tensor, got one on {x.device}; "
            "set TRITON_INTERPRET=1 before Python starts to run it in Triton's interpreter"
        )


def check_image_batch(name: str, x: Tensor) -> None:
    """Refuse what is not a floating-point [N, C, H, W] tensor."""
    if x.dim() != 4:
        raise ValueError(f"{name} must be [N, C, H, W], got {x.dim()} dimensions: {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")
