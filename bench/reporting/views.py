"""Orders and selects comparisons for tables and pictures: which contenders are ours, the order, how a time grows."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.measure.records import Comparison, is_ours

PRECISIONS = ("bfloat16", "float16", "float32", "float64")


def in_lowest_precision(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons in bfloat16, or in the lowest precision that there is."""
    present = {each.dtype for each in comparisons}
    lowest = next((dtype for dtype in PRECISIONS if dtype in present), min(present, default=""))
    return [each for each in comparisons if each.dtype == lowest]


def figure(value: float) -> str:
    """Return the value with three digits, never with an exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


@dataclass(frozen=True)
class Growth:
    """Follows comparisons that differ in the batch alone, or in the side of the images alone, smallest first."""

    over: Literal["batch", "side"]
    fixed: int
    """the side, or the batch, that all have"""
    comparisons: list[Comparison]

    def size(self, comparison: Comparison) -> int:
        """Return the batch or the side, whichever grows."""
        return comparison.batch if self.over == "batch" else comparison.side

    @property
    def title(self) -> str:
        where = f"at {self.fixed}x{self.fixed}" if self.over == "batch" else f"at batch {self.fixed}"
        return f"{self.over} {self.size(self.comparisons[0])} to {self.size(self.comparisons[-1])} {where}"

    def having(self, name: str) -> list[Comparison]:
        """Return the comparisons in which a contender has a time."""
        return [each for each in self.comparisons if name in each.contenders]

    def exponent(self, name: str) -> float | None:
        """Return the exponent by which a contender's time grows with the number of pixels.

        It is the slope of the least squares line through the logarithms; None where there are fewer than two sizes.
        """
        having = self.having(name)
        if len(having) < 2:
            return None
        pixels = [math.log(each.batch * each.side**2) for each in having]
        return statistics.linear_regression(
            pixels, [math.log(each.contenders[name].ms.median) for each in having]
        ).slope


def growths(comparisons: Sequence[Comparison]) -> list[Growth]:
    """Return the growth over the batch at the side that most batches were measured at, and over the side likewise.

    What was measured at one size only does not grow and is left out.
    """
    found = []
    ways: tuple[tuple[Literal["batch", "side"], str], ...] = (("batch", "side"), ("side", "batch"))
    for over, held in ways:
        groups: dict[int, dict[int, Comparison]] = {}
        for each in comparisons:
            groups.setdefault(getattr(each, held), {})[getattr(each, over)] = each
        fixed = min(groups, key=lambda size: (-len(groups[size]), size), default=0)
        if len(groups.get(fixed, {})) > 1:
            found.append(Growth(over, fixed, [each for _, each in sorted(groups[fixed].items())]))
    return found


def contenders_of(comparisons: Iterable[Comparison]) -> list[str]:
    """Return the names of all contenders that have a time in any of the comparisons: ours first, then by name."""
    return sorted(
        {name for each in comparisons for name in each.contenders}, key=lambda name: (not is_ours(name), name)
    )


def by_time(comparison: Comparison) -> list[str]:
    """Return the contenders' names, the slowest first."""
    return sorted(comparison.contenders, key=lambda name: (-comparison.contenders[name].ms.median, name))
