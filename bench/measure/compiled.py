"""torch.compile as an opponent: each mode that makes sense on a device, compiled for one shape."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

OPPONENT_FAILURES = (
    torch._dynamo.exc.TorchDynamoException,
    torch._inductor.exc.InductorError,
    RuntimeError,  # of a CUDA graph, of a launch, for want of memory
)
"""What an opponent may raise that does not run here; it is then named without a time."""


def modes(device: torch.device, *, recorded: bool) -> tuple[str, ...]:
    """The modes of torch.compile; `recorded` where its code is recorded in a CUDA graph as everybody's is.

    reduce-overhead is default with CUDA graphs of its own, which nothing else can record.
    """
    if device.type != "cuda":
        return ("default",)
    if recorded:
        return ("default", "max-autotune-no-cudagraphs")
    return ("default", "reduce-overhead", "max-autotune")


def compiled_by_torch(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    return torch.compile(function, mode=mode, dynamic=False, fullgraph=True)


@contextmanager
def backward_may_repeat() -> Iterator[None]:
    """Compiled code may otherwise overwrite what it saved for backward, so that backward could be timed only once."""
    with torch._functorch.config.patch(donated_buffer=False):
        yield


def forget_compiled() -> None:
    """Before a contest: everybody's code is compiled for its own shapes, or the contender fails.

    By itself torch.compile goes back to eager after eight variants of one function, without a word in a result.
    """
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
