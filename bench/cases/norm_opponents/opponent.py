"""Says what an instance norm of another library must offer to take part in a contest."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.measure.contest import error_line

OPPONENTS_EPS = 1e-5
"""Every norm adds this to the variance, as PyTorch's does by default."""
NOT_INSTALLED = "not installed"
NO_BACKWARD = "it has no backward pass"
NEEDS_GPU = "it runs on an NVIDIA GPU only"


class NormOpponent(Protocol):
    """Normalises every channel of every image to mean 0 and variance 1, without parameters.

    Attributes:
        name: The name of the contender.
        layout: The layout in which the library computes best; its operands are given to it so.
        has_backward: Whether gradients go through a call.
    """

    name: str
    layout: torch.memory_format
    has_backward: bool

    def absence(self, device: torch.device) -> str | None:
        """Return why it cannot take part on that device, or None where it can."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the norm of x [N, C, H, W], in its shape and precision."""


class OpponentFailed(RuntimeError):
    """Says that another library raised an error, whatever its type: it is then named without a time."""


def installed_only_on_gpus(module: str, device: torch.device) -> str | None:
    """Return why a library that needs an NVIDIA GPU cannot take part: it is missing, it is broken, there is no GPU."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        return NOT_INSTALLED if module == missing or module.startswith(f"{missing}.") else f"it needs {missing}"
    except Exception as error:  # a library may raise anything while it looks for its GPU
        return f"it cannot be imported: {error_line(error)}"
    return None if device.type == "cuda" else NEEDS_GPU


def failing_as_opponent(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return the call with its errors as OpponentFailed, which a contest takes for a reason to leave it out."""

    def run() -> Any:
        try:
            return call()
        except Exception as error:
            raise OpponentFailed(error_line(error)) from error

    return run
