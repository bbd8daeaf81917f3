"""Counts what a network launches between its convolutions, on tensors without storage: nothing is computed.

Our kernels' launches are recorded as planned for the GPU at hand, or an H200. Of them as of PyTorch's operators each
counts as one launch that moves its operands and results once; `kernels.traffic` counts every load and store. A
convolution itself is left out, but not its bias: PyTorch adds that by a launch of its own, and sums its gradient up by
another (ATen's Convolution.cpp, for cuDNN).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..launching import Grid, launching_with
from ..registration import LAUNCHES
from ..traffic import Traffic, moved_bytes, moves_data
from .accelerated import lies_channels_last

_FORWARD_CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default}
_BACKWARD_CONVOLUTION = torch.ops.aten.convolution_backward.default


def count_launches(network: nn.Module, example: Tensor | Sequence[Tensor]) -> dict[str, Traffic]:
    """Count one forward pass, and the backward pass of all its results to all parameters.

    `example` are the arguments; their shapes, strides and dtypes count. Weights count as if they had the first one's
    dtype. Raises whatever the network raises for tensors without storage.
    """
    given = [example] if isinstance(example, Tensor) else list(example)
    weights = {
        name: torch.empty_like(tensor, device="meta", dtype=given[0].dtype if tensor.is_floating_point() else None)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    wanted = [weights[name].requires_grad_() for name, parameter in network.named_parameters()]
    inputs = tuple(torch.empty_like(x, device="meta") for x in given)
    with _Counter() as forward:
        results = [leaf for leaf in tree_leaves(functional_call(network, weights, inputs)) if isinstance(leaf, Tensor)]
    results = [result for result in results if result.requires_grad]
    with _Counter() as backward:
        torch.autograd.grad(results, wanted, [torch.empty_like(y) for y in results], allow_unused=True)
    return {"forward": forward.traffic, "backward": backward.traffic}


class _Counter(TorchDispatchMode):
    """Counts what runs; our operators are opened, and their launches recorded instead of made."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if operator in LAUNCHES:
            with self, launching_with(self._record):
                return LAUNCHES[operator](*arguments, **(options or {}))
        result = operator(*arguments, **(options or {}))
        if operator in _FORWARD_CONVOLUTIONS:
            x, weight, bias = (*arguments, None)[:3]
            result = _lying_like(result, x, weight)
            if bias is not None:
                self._count([result, bias], result)
        elif operator is _BACKWARD_CONVOLUTION:
            dy, x, weight = arguments[:3]
            result = (_lying_like(result[0], dy, x, weight), *result[1:])
            if result[2] is not None:
                self._count(dy, result[2])
        elif moves_data(operator):
            self._count((arguments, options), result)
        return result

    def _count(self, read: Any, written: Any) -> None:
        self.traffic.launches += 1
        self.traffic.read_bytes += moved_bytes(read)
        self.traffic.written_bytes += moved_bytes(written)

    def _record(self, kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        tensors = {id(value): value for value in arguments.values() if isinstance(value, Tensor)}
        self.traffic.launches += 1
        self.traffic.read_bytes += moved_bytes(list(tensors.values()))


def _lying_like(result: Tensor | None, *operands: Tensor) -> Tensor | None:
    """Return a convolution's result as cuDNN lays it: channels last where an operand is."""
    if result is None or not any(lies_channels_last(operand) for operand in operands):
        return result
    return torch.empty_like(result, memory_format=torch.channels_last)
