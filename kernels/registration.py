"""Registers Triton implementations as operators of PyTorch, with shapes, gradients and autocast.

torch.compile does not look into such an operator. The lower half of torch.library is used, not `custom_op`, whose
Python layers cost twice as much a call
(bench/results/LOG.md, 2026-11-23).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .dispatch import is_cast_by_autocast

NAMESPACE = "cyclegan_fast"

_library = torch.library.Library(NAMESPACE, "DEF")

LAUNCHES: dict[Any, Callable[..., Any]] = {}
"""Maps each operator to the function that runs it, for those who want to see the launches inside."""

# Inside this context an operator that its own autograd function calls reaches its kernel instead of itself.
below_autograd: Callable[[], Any] = torch._C._AutoDispatchBelowAutograd


def define(schema: str, launch: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Register an operator and return it.

    Args:
        schema: "name(Tensor x, ...) -> Tensor", in the language of torch.library.
        launch: runs it, on CUDA tensors and, in Triton's interpreter, on CPU tensors.
        fake: the shapes, dtypes and strides of its results.
    """
    name = schema.partition("(")[0]
    _library.define(schema)
    for key in ("CPU", "CUDA"):
        _library.impl(name, launch, key)
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    LAUNCHES[operator] = launch
    return operator


def differentiate(operator: Any, function: type[torch.autograd.Function]) -> None:
    """Register `function`, whose forward calls `operator` under `below_autograd`, as its derivative."""
    _library.impl(operator._schema.name.partition("::")[2], function.apply, "Autograd")


class FusedFunction(torch.autograd.Function):
    """Differentiates an operator in reverse mode alone, and refuses to in forward mode."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("the fused operators have no forward-mode derivative: use impl='reference' for it")


def is_watched(*tensors: Tensor | None) -> bool:
    """Return whether somebody must see operators on these tensors here.

    That is a compiler, a tracer, a mode, a transform, a subclass of one of them, or a derivative in forward mode. Where
    nobody must, an operator's function may be called by itself, which saves 15 us of Python (2026-11-30).
    """
    return (
        torch.compiler.is_compiling()
        or any(tensor is not None and type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0
    )


class _Refusal(torch.autograd.Function):
    """Passes gradients on, makes them depend on what they were computed from, and refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, number: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tensors[:number]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError("the fused operators have no second derivative: use impl='reference' for it")


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the backward of an autograd function so that differentiating it again raises RuntimeError.

    PyTorch's `once_differentiable` does not do: its refusal hangs on an edge that autograd.grad never follows, and a
    second derivative would silently be incomplete. Here the gradients depend on everything that they were computed
    from, through a node that refuses.
    """

    @functools.wraps(backward)
    def once(ctx: Any, *gradients: Any) -> Any:
        if not torch.is_grad_enabled():
            return backward(ctx, *gradients)
        with torch.no_grad():
            results = backward(ctx, *gradients)
        return _Refusal.apply(len(results), *results, *gradients, *ctx.saved_tensors)

    return once


def cast_under_autocast(operator: Any) -> None:
    """Let autocast give `operator` all its tensors in the autocast dtype, as it does for convolutions."""
    name = operator._schema.name.partition("::")[2]
    for device, key in (("cuda", "AutocastCUDA"), ("cpu", "AutocastCPU")):
        _library.impl(name, _casting(operator, device), key)


def _casting(operator: Any, device: str) -> Callable[..., Any]:
    def cast(*arguments: Any) -> Any:
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return operator(
                *(a.to(dtype) if isinstance(a, Tensor) and is_cast_by_autocast(a) else a for a in arguments)
            )

    return cast
