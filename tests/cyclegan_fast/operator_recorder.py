"""Records the operators of a function with the memory that they work in, as a CUDA graph does, on any device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cyclegan_fast.system.cuda_graph import Outputs

# A value that the host reads, or brings along, is no longer the device's: a graph would keep the one it was recorded
# with, and CUDA refuses to record the wait for it.
READS_FROM_THE_HOST = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
}


class OperatorRecorder:
    """Records operators below autograd; a replay runs each again on the same tensors and writes into the same results.

    As in a graph, everything that Python decided or computed while it was recorded stays as it was. Unlike one, what is
    recorded is run as well: so the tensors that it changes, and the random numbers, are put back as they were.
    """

    def __init__(self, state: Callable[[], list[Tensor]]) -> None:
        self.state = state
        self.recorded = 0

    def warm_up(self, function: Callable[[], Outputs]) -> Outputs:
        return function()

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        state = self.state()
        before, random = [tensor.clone() for tensor in state], torch.get_rng_state()
        mode = _Operators()
        with mode:
            outputs = function()
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        torch.set_rng_state(random)
        self.recorded += 1
        return mode.replay, outputs


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in READS_FROM_THE_HOST:
            raise RuntimeError(f"{func} cannot be recorded: it takes a value from the host, or to it")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tensors_in(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, results in self.calls:
            if func.is_view:
                continue  # the memory that it looks at is what counts
            for place, value in zip(results, tensors_in(func(*args, **kwargs)), strict=True):
                if place.data_ptr() != value.data_ptr():
                    place.copy_(value)


def tensors_in(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
