"""Keeps a gradient as two tensors whose sum is still pending: its consumer adds them while it reads.

The input of a residual block gets one gradient through the convolutions, of the padded buffer, and one around them, of
the buffer's interior. The norm in front of the block can read both at once; any other consumer sees their sum, which is
computed at its first use.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class PendingSum(Tensor):
    """Stands for the tensor buffer + pad_with_zeros(interior, 1), which is not added yet.

    Args:
        buffer: [N, C, H + 2, W + 2]; owned by this object, which writes the sum into it.
        interior: [N, C, H, W].
    """

    _buffer: Tensor | None
    _interior: Tensor | None
    _folded: Tensor | None
    _remake: Callable[[], Tensor] | None
    _remade_from: tuple[Tensor, ...]
    _versions: list[int]

    @staticmethod
    def __new__(cls, buffer: Tensor, interior: Tensor) -> "PendingSum":
        self: PendingSum = Tensor._make_wrapper_subclass(
            cls, buffer.shape, strides=buffer.stride(), dtype=buffer.dtype, device=buffer.device
        )
        self._buffer, self._interior, self._folded, self._remake = buffer, interior, None, None
        self._remade_from = ()
        return self

    @staticmethod
    def of_folded(
        folded: Tensor,
        interior: Tensor,
        like: Tensor,
        remake: Callable[[], Tensor],
        remade_from: tuple[Tensor, ...] = (),
    ) -> "PendingSum":
        """Return a sum whose buffer is there only as its fold, the adjoint of the reflection that padded its input.

        Args:
            folded: [N, C, H, W], what a consumer that folds the buffer would have of it.
            interior: [N, C, H, W].
            like: a tensor like the buffer, [N, C, H + 2, W + 2]; nothing is read of it.
            remake: computes the buffer, for a consumer that does anything else; it is called once at the most.
            remade_from: the tensors that it reads, which must be as they are now when it does.
        """
        self = PendingSum(like, interior)
        self._buffer, self._folded, self._remake = None, folded, remake
        self._remade_from, self._versions = remade_from, [tensor._version for tensor in remade_from]
        return self

    def parts(self) -> tuple[Tensor, Tensor | None]:
        """Return the buffer, or its fold, and the interior, or None if it was added to the buffer already.

        They are for a consumer that folds the buffer; their shapes tell which of the two the first one is.
        """
        self._keep_for_the_current_stream()
        first = self._folded if self._buffer is None else self._buffer
        assert first is not None
        return first, self._interior

    def added(self) -> Tensor:
        """Return the sum, always in the same memory, so that all holders of it see what one of them writes.

        Raises RuntimeError where it has to be remade from tensors that were written to meanwhile.
        """
        self._keep_for_the_current_stream()
        with torch.no_grad():
            if self._buffer is None:
                assert self._remake is not None
                if self._versions != [tensor._version for tensor in self._remade_from]:
                    raise RuntimeError(
                        "a gradient of a block's input is computed when it is looked at, and what it is computed from "
                        "was written to since the backward pass: look at it before the weights change"
                    )
                self._buffer, self._folded, self._remake, self._remade_from = self._remake(), None, None, ()
            if self._interior is not None:
                self._buffer[:, :, 1:-1, 1:-1] += self._interior
                self._interior = None
        return self._buffer

    def _keep_for_the_current_stream(self) -> None:
        # Between nodes that ran on different streams autograd waits, and tells the allocator which stream reads a
        # gradient; but it sees this wrapper, which has no memory. The fake tensors of torch.compile have none either:
        # they say that they are on a GPU, and a call of record_stream on them would end up in the graph.
        for part in (self._buffer, self._interior, self._folded, *self._remade_from):
            if type(part) is Tensor and part.is_cuda:
                part.record_stream(torch.cuda.current_stream(part.device))

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        return function(*_add(arguments), **_add(options or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub leaves out the function
        cls,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        return function(*_add(arguments), **_add(options or {}))


def _add(arguments: Any) -> Any:
    return tree_map_only(PendingSum, PendingSum.added, arguments)


def split_gradient(dy: Tensor, pad: int) -> tuple[Tensor, Tensor | None]:
    """Split a gradient into dy and the second gradient, or None, that a backward kernel reads.

    `pad` is the padding of the result that the gradient belongs to. A pending sum stays in two parts only for a pad of
    1: its interior leaves out one pixel on each side, whatever its producer padded by.
    """
    if isinstance(dy, PendingSum):
        return dy.parts() if pad == 1 else (dy.added(), None)
    return dy, None
