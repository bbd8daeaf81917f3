"""Defines the reflection padding whose gradient is the same every time, and whose result is channels last."""

from typing import Any

from torch import Tensor, nn

from ..arguments.options import checked_integer, value_and_type
from ..arguments.tensors import check_tensor
from ..dispatch import Impl, check_impl, choose
from .functional import padded
from .instance_norm2d import warn_once


class ReflectionPad2d(nn.ReflectionPad2d):
    """Pads as PyTorch's module of this name does, with the same arguments.

    Where the sides differ PyTorch's operator computes it; where the fused operator would have run otherwise, a
    UserWarning says so once.

    Args:
        padding: pixels on each side, or left, right, top and bottom.
        impl: see `kernels.dispatch.choose`.

    Raises ValueError or TypeError naming the argument at fault.
    """

    def __init__(self, padding: int | tuple[int, int, int, int], *, impl: Impl = "auto") -> None:
        super().__init__(_checked_padding(padding))
        check_impl(impl)
        self.impl: Impl = impl
        if impl in ("triton", "c") and not self._is_same_everywhere():
            raise ValueError(f"impl={impl!r} pads all sides by the same, got {self.padding}")

    def forward(self, x: Tensor) -> Tensor:
        """Pad [N, C, H, W] or [C, H, W]."""
        check_tensor("x", x)
        if self._is_same_everywhere():
            return padded(x, self.padding[0], impl=self.impl)
        if choose("reflection_pad", self.impl, x) != "reference":
            warn_once(f"a reflection pad of {tuple(self.padding)}, not the same on all sides, runs as PyTorch's")
        return super().forward(x)

    def _is_same_everywhere(self) -> bool:
        return len(set(self.padding)) == 1 and self.padding[0] >= 0


def _checked_padding(padding: Any) -> tuple[int, int, int, int]:
    """Return the padding of each side; a negative one cuts off, as PyTorch's does."""
    sides = tuple(padding) if isinstance(padding, tuple | list) else (padding,) * 4
    if len(sides) != 4:
        raise ValueError(f"padding must be one integer, or left, right, top and bottom, got {value_and_type(padding)}")
    left, right, top, bottom = (checked_integer("padding", side) for side in sides)
    return left, right, top, bottom
