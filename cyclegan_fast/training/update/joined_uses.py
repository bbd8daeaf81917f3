"""Computes one gradient of a block's weights for both uses that a step makes of a generator (`--paired`).

A step translates by a generator twice: real images on the way there, and translations on the way back. Each use gives a
gradient of the same weights, which is a sum over pixels: one product over the pixels of both takes fewer tiles and
launches than two, and nothing is left to add. What it reads of both must lie in one memory, the way there in front:
blocks write it there. What does not lie so is copied.

The backward pass comes by the way back first, since what it finds for the translations is part of their gradient. What
the way back leaves is held until the way there has come by as well: per block two activations and two gradients.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from cyclegan_fast.config.options import Config
from cyclegan_fast.kernels.convolution.weight_gradients import (
    Computation,
    Operand,
    operands_placed_by,
    weight_gradients_by,
)


def joins_uses(config: Config) -> bool:
    """Tell whether a step has two uses to join; a compiled network computes its gradients where its graph has them."""
    return config.run.paired and not config.run.compile and config.loss.cycle_weight("A") > 0


class JoinedUses:
    """Lets what the two uses of a weight leave lie in one memory, and computes its gradient at the second one."""

    def __init__(self) -> None:
        self._compute: Computation
        self._there = self._back = 0  # images of each way; of the way there none are known until its first block
        self._other_parts: dict[tuple[Operand, int], Tensor] = {}  # of memory whose first part was given away
        self._left_by_the_way_back: dict[int, tuple[Tensor, Tensor]] = {}

    def begin(self, images: int) -> None:
        """Begin a part of a batch, of so many images on the way back."""
        self._there, self._back = 0, images
        self._forget()

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Surround a forward pass of either way."""
        try:
            with operands_placed_by(self._place_in_forward):
                yield
        except BaseException:
            self._forget()  # what lies half written would stay until the next step
            raise

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Surround a backward pass of both ways; it leaves gradients of the way there's leaves only."""
        try:
            with operands_placed_by(self._place_in_backward), weight_gradients_by(self._join) as self._compute:
                yield
            assert not self._left_by_the_way_back, "the backward pass did not come by the way there"
        finally:
            self._forget()

    def _forget(self) -> None:
        self._other_parts.clear()
        self._left_by_the_way_back.clear()

    def _place_in_forward(self, operand: Operand, weight: Tensor, shape: Sequence[int]) -> Tensor | None:
        found = self._other_parts.pop((operand, _identity(weight)), None)
        if found is None:
            self._there = shape[0]
            found, other = self._adjoining(weight, shape)
            self._other_parts[operand, _identity(weight)] = other
        assert found.shape == tuple(shape), f"{tuple(shape)} does not fit into {tuple(found.shape)}"
        return found

    def _place_in_backward(self, operand: Operand, weight: Tensor, shape: Sequence[int]) -> Tensor | None:
        if operand == "result" or not self._there:  # a forward pass that is made once more keeps nothing
            return None
        found = self._other_parts.pop((operand, _identity(weight)), None)
        if found is None:
            other, found = self._adjoining(weight, shape)
            self._other_parts[operand, _identity(weight)] = other
        assert found.shape == tuple(shape), f"{tuple(shape)} does not fit into {tuple(found.shape)}"
        return found

    def _adjoining(self, like: Tensor, shape: Sequence[int]) -> list[Tensor]:
        """Return new memory for the way there, and behind it for the way back, as tensors of their own."""
        counts = [self._there, self._back]
        whole = torch.empty(
            (sum(counts), *shape[1:]), dtype=like.dtype, device=like.device, memory_format=torch.channels_last
        )
        # Autograd would take views for parts of one tensor, which is written as a whole.
        return [
            like.new_empty(0).set_(whole.untyped_storage(), part.storage_offset(), part.shape, part.stride())
            for part in torch.split(whole, counts)
        ]

    def _join(self, dy: Tensor, padded: Tensor, weight: Tensor) -> Tensor | None:
        left = self._left_by_the_way_back.pop(_identity(weight), None)
        if left is None:
            self._left_by_the_way_back[_identity(weight)] = dy, padded
            return None
        return self._compute(adjoined(dy, left[0]), adjoined(padded, left[1]), weight)


def _identity(weight: Tensor) -> int:
    """Return what tells a weight's memory from all others, also on a device without memory."""
    address: int = weight.untyped_storage()._cdata
    return address


def adjoined(first: Tensor, second: Tensor) -> Tensor:
    """Return [N + M, C, H, W] of [N, C, H, W] and [M, C, H, W], channels last: where they lie, if that is in a row."""
    first, second = (one.contiguous(memory_format=torch.channels_last) for one in (first, second))
    shares_memory = _identity(first) == _identity(second)
    if shares_memory and second.storage_offset() == first.storage_offset() + first.numel():
        channels, height, width = first.shape[1:]
        strides = (channels * height * width, 1, width * channels, channels)
        return first.as_strided((len(first) + len(second), channels, height, width), strides)
    return torch.cat([first, second]).contiguous(memory_format=torch.channels_last)
