"""Makes opponents of torch.compile: each mode that makes sense on a device, compiled for one shape."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def opponent_failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of an opponent that does not run here; it is then named without a time.

    They are asked for when one was raised or a race begins, since PyTorch's compiler takes seconds to import.
    """
    return (
        torch._dynamo.exc.TorchDynamoException,
        torch._inductor.exc.InductorError,
        RuntimeError,  # from a CUDA graph, from a launch, or for want of memory
    )


def modes(device: torch.device, *, recorded: bool) -> tuple[str, ...]:
    """Return the modes of torch.compile; `recorded` says that its code is recorded in a CUDA graph as everybody's is.

    reduce-overhead is default with CUDA graphs of its own, which nothing else can record, and so is max-autotune.
    """
    if device.type != "cuda":
        return ("default",)
    if recorded:
        return ("default", "max-autotune-no-cudagraphs")
    return ("default", "reduce-overhead", "max-autotune")


def compiled_by_torch(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Return the function compiled by torch.compile in that mode, for fixed shapes and without graph breaks."""
    return torch.compile(function, mode=mode, dynamic=False, fullgraph=True)


@contextmanager
def backward_may_repeat() -> Iterator[None]:
    """Keep compiled code from overwriting what it saved for backward, so that backward can be timed more than once."""
    with torch._functorch.config.patch(donated_buffer=False):
        yield


def forget_compiled() -> None:
    """Have everybody's code compiled for its own shapes in the next contest; a contender that can't be, fails.

    By itself torch.compile goes back to eager after eight variants of one function, without a word in a result. Five
    modes of four networks, each with and without gradients, are some fifty.
    """
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 256
    torch._dynamo.config.fail_on_recompile_limit_hit = True
