"""Describes how a thin convolution's kernels find an element of the weights."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ThinWeight:
    """Holds a convolution's weight and says which of its sides is thin.

    Args:
        weight: [G * thin, wide, K, K] where the result is thin, else [G * wide, thin, K, K].
        groups: the number G of independent convolutions, side by side as channels.
        result_is_thin: which of the two it is.
    """

    weight: Tensor
    groups: int
    result_is_thin: bool

    @property
    def kernel(self) -> int:
        return self.weight.size(2)

    @property
    def _results(self) -> int:
        """Return the number of a group's result channels."""
        return self.weight.size(0) // self.groups

    @property
    def thin(self) -> int:
        """Return the number of channels of a group's thin side."""
        return self._results if self.result_is_thin else self.weight.size(1)

    @property
    def wide(self) -> int:
        """Return the number of channels of a group's wide side."""
        return self.weight.size(1) if self.result_is_thin else self._results

    def arguments(self, *, flipped: bool) -> dict[str, Any]:
        """Return the kernel arguments by which tap (i, j) is found, or where `flipped` (K - 1 - i, K - 1 - j)."""
        of_result, of_operand, of_row, of_column = self.weight.stride()
        thin, wide = (of_result, of_operand) if self.result_is_thin else (of_operand, of_result)
        return {
            "weight_ptr": self.weight,
            "weight_first": (self.kernel - 1) * (of_row + of_column) if flipped else 0,
            "weight_group_stride": self._results * of_result,
            "weight_thin_stride": thin,
            "weight_wide_stride": wide,
            "weight_row_stride": -of_row if flipped else of_row,
            "weight_column_stride": -of_column if flipped else of_column,
        }
