"""Gives PyTorch's optimisers without its compiler, which theirs import in order to be left out of its programs."""

import inspect
from collections.abc import Callable
from typing import Any

import torch


def _without_compiler(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of an optimiser as it was before PyTorch wrapped it in what imports torch._dynamo."""
    unwrapped: Callable[..., Any] = inspect.unwrap(method)
    return unwrapped


class _Eager(torch.optim.Optimizer):
    """Calls an optimiser's methods directly, without gradients of the update itself.

    PyTorch wraps them so that torch.compile leaves them out: the first call imports torch._dynamo, 2.5 seconds of a
    processor before the first step of each training. Nothing here compiles a function that calls one of them.
    """

    add_param_group = _without_compiler(torch.optim.Optimizer.add_param_group)
    zero_grad = _without_compiler(torch.optim.Optimizer.zero_grad)
    state_dict = _without_compiler(torch.optim.Optimizer.state_dict)
    load_state_dict = _without_compiler(torch.optim.Optimizer.load_state_dict)


class EagerAdam(_Eager, torch.optim.Adam):
    """Is PyTorch's Adam, with its arguments but `differentiable`."""

    step = torch.no_grad()(_without_compiler(torch.optim.Adam.step))


class EagerAdamW(_Eager, torch.optim.AdamW):
    """Is PyTorch's AdamW, with its arguments but `differentiable`."""

    step = torch.no_grad()(_without_compiler(torch.optim.AdamW.step))


class EagerSGD(_Eager, torch.optim.SGD):
    """Is PyTorch's SGD, with its arguments but `differentiable`."""

    step = torch.no_grad()(_without_compiler(torch.optim.SGD.step))
