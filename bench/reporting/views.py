"""What tables and pictures of results both show: who is ours, in which order, and how a time grows."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.measure.records import Comparison

PRECISIONS = ("bfloat16", "float16", "float32", "float64")


def in_lowest_precision(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Those in bfloat16, or in the lowest precision that there is."""
    present = {each.dtype for each in comparisons}
    lowest = next((dtype for dtype in PRECISIONS if dtype in present), min(present, default=""))
    return [each for each in comparisons if each.dtype == lowest]


def is_ours(name: str) -> bool:
    return name.startswith("ours")


def figure(value: float) -> str:
    """To three digits, never with an exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


@dataclass(frozen=True)
class Growth:
    """Comparisons that differ in the batch alone, or in the side of the images alone, smallest first."""

    over: Literal["batch", "side"]
    fixed: int
    """the side, or the batch, that all have"""
    comparisons: list[Comparison]

    @property
    def title(self) -> str:
        sizes = [getattr(each, self.over) for each in self.comparisons]
        where = f"at {self.fixed}x{self.fixed}" if self.over == "batch" else f"at batch {self.fixed}"
        return f"{self.over} {sizes[0]} to {sizes[-1]} {where}"

    def having(self, name: str) -> list[Comparison]:
        return [each for each in self.comparisons if name in each.contenders]

    def exponent(self, name: str) -> float | None:
        """Of the growth of a contender's time with the number of pixels: the slope of the logarithms' least squares
        line; None where it has a time at fewer than two sizes."""
        having = self.having(name)
        if len(having) < 2:
            return None
        pixels = [math.log(each.batch * each.side**2) for each in having]
        return statistics.linear_regression(
            pixels, [math.log(each.contenders[name].ms.median) for each in having]
        ).slope


def growths(comparisons: Sequence[Comparison]) -> list[Growth]:
    """Over the batch at the side that most batches were measured at, and over the side at such a batch.

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
    """Everybody who has a time in any of them: ours first, then by name."""
    return sorted(
        {name for each in comparisons for name in each.contenders}, key=lambda name: (not is_ours(name), name)
    )


def by_time(comparison: Comparison) -> list[str]:
    """The contenders' names, the slowest first."""
    return sorted(comparison.contenders, key=lambda name: (-comparison.contenders[name].ms.median, name))
