"""Defines the reflection padding whose gradient is the same every time, and whose result is channels last."""

from torch import Tensor, nn

from ..dispatch import Impl, choose
from .functional import padded
from .instance_norm2d import warn_once


class ReflectionPad2d(nn.ReflectionPad2d):
    """Pads as PyTorch's module of this name does, with the same arguments.

    Where the sides differ PyTorch's operator computes it; where the fused operator would have run otherwise, a
    UserWarning says so once.

    Args:
        padding: pixels on each side, or left, right, top and bottom.
        impl: see `kernels.dispatch.choose`.
    """

    def __init__(self, padding: int | tuple[int, int, int, int], *, impl: Impl = "auto") -> None:
        super().__init__(padding)
        self.impl: Impl = impl
        if impl == "triton" and not self._is_same_everywhere():
            raise ValueError(f"impl='triton' pads all sides by the same, got {self.padding}")

    def forward(self, x: Tensor) -> Tensor:
        """Pad [N, C, H, W] or [C, H, W]."""
        if self._is_same_everywhere():
            return padded(x, self.padding[0], impl=self.impl)
        if choose("reflection_pad", self.impl, x) == "triton":
            warn_once(f"a reflection pad of {tuple(self.padding)}, not the same on all sides, runs as PyTorch's")
        return super().forward(x)

    def _is_same_everywhere(self) -> bool:
        return len(set(self.padding)) == 1 and self.padding[0] >= 0
