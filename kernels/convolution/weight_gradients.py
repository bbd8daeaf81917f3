"""Computes the gradients of residual blocks' weights, and lets a caller say how and from which memory.

Nothing in a backward pass waits for these gradients. So a caller may compute them on another stream, or wait until a
weight's other use comes by, and compute one gradient of both.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

from ..conv2d import conv_gradients

Computation = Callable[[Tensor, Tensor, Tensor], Tensor | None]
"""Computes a weight's gradient of dy, the padded input and the weight, perhaps on another stream, and returns it before
it is ready; or None where a later call returns it."""

Operand = Literal["result", "middle", "gradient"]
"""Names what is kept for a gradient: a block's padded result, which the next block reads, the padded input of a
block's second convolution, and the gradient of a convolution's result."""

Placement = Callable[[Operand, Tensor, Sequence[int]], Tensor | None]
"""Returns memory for an operand of this shape, channels last, or None where any will do. The weight, whose dtype and
device it has, tells which operand it is: that of the block's second convolution for its result."""


def _computed(dy: Tensor, padded: Tensor, weight: Tensor) -> Tensor | None:
    return conv_gradients(dy, padded, weight, (False, True))[1]


_computation: Computation = _computed
_placement: Placement | None = None


@contextmanager
def weight_gradients_by(computation: Computation) -> Iterator[Computation]:
    """Let `computation` give the gradients of residual blocks' weights inside; yields what gave them until then.

    It holds for all threads, since autograd computes in its own; one backward pass at a time may use it.
    """
    global _computation
    outer, _computation = _computation, computation
    try:
        yield outer
    finally:
        _computation = outer


@contextmanager
def operands_placed_by(placement: Placement) -> Iterator[None]:
    """Let `placement` say where blocks write what the gradients of their weights are computed from; for all threads."""
    global _placement
    outer, _placement = _placement, placement
    try:
        yield
    finally:
        _placement = outer


def weight_gradient(dy: Tensor, padded: Tensor, weight: Tensor) -> Tensor | None:
    """Compute the gradient of conv2d(padded, weight) by the weight, see `conv_gradients` and `weight_gradients_by`."""
    return _computation(dy, padded, weight)


def placed(operand: Operand, weight: Tensor, shape: Sequence[int]) -> Tensor | None:
    """Return the memory that `operands_placed_by` has for an operand, or None."""
    return None if _placement is None else _placement(operand, weight, shape)
