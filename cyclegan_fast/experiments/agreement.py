"""Tells whether our methods rank as the paper's do: which scores more than which, by each measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from cyclegan_fast.evaluation.fcn.scores import MEASURES
from cyclegan_fast.experiments.paper_tables import GROUPS, ROWS, Figures, RowName

_OURS: RowName = "cyclegan"
RowScores = Mapping[RowName, Mapping[int, dict[str, float]]]
"""The three measures in one direction, by row and seed."""


@dataclass(frozen=True)
class Order:
    """Compares how the rows of a table stand to each other by one measure, here and in the paper."""

    measure: str
    same: int
    """pairs of rows in the paper's order, by the means over seeds"""
    pairs: int
    """pairs of rows that the paper does not have as equals"""
    correlation: float | None
    """Kendall's tau-b; None where either side has all rows equal, or there are fewer than two"""


@dataclass(frozen=True)
class Lead:
    """Counts in how many seeds CycleGAN is ahead of a row by one measure, and says whether it is in the paper."""

    over: RowName
    measure: str
    ahead: int
    seeds: int
    """seeds that both rows have been trained with"""
    paper: bool

    @property
    def agrees(self) -> bool:
        """Say whether more than half of the seeds say what the paper says."""
        said = self.ahead if self.paper else self.seeds - self.ahead
        return 2 * said > self.seeds


def mean(values: Mapping[int, dict[str, float]], measure: str) -> float:
    """Return the mean of a measure over the seeds of a row."""
    return float(np.mean([seed[measure] for seed in values.values()]))


def order(values: RowScores, paper: Mapping[RowName, Figures], measure: str) -> Order:
    """Compare the order of the rows that have values here and figures in the paper."""
    rows = [row for row in values if row in paper]
    here = [mean(values[row], measure) for row in rows]
    there = [paper[row][MEASURES.index(measure)] for row in rows]
    differences = [
        ((here[i] - here[j]), (there[i] - there[j]))
        for i, j in combinations(range(len(rows)), 2)
        if there[i] != there[j]
    ]
    same = sum(x * y > 0 for x, y in differences)
    correlation = float(stats.kendalltau(here, there).statistic) if len(rows) > 1 else float("nan")
    return Order(measure, same, len(differences), round(correlation, 4) if np.isfinite(correlation) else None)


def leads(values: RowScores, paper: Mapping[RowName, Figures], measure: str) -> list[Lead]:
    """Compare CycleGAN with every other row of the table, seed by seed."""
    found = []
    for row in values:
        if _OURS not in values or row == _OURS or row not in paper:
            continue
        seeds = sorted(values[row].keys() & values[_OURS].keys())
        ahead = sum(values[_OURS][seed][measure] > values[row][seed][measure] for seed in seeds)
        place = MEASURES.index(measure)
        if seeds:
            found.append(Lead(row, measure, ahead, len(seeds), paper[_OURS][place] > paper[row][place]))
    return found


def papers_figures(group: str, direction: str) -> dict[RowName, Figures]:
    """Return the paper's figures of one table, by row."""
    return {row: ROWS[row].paper[direction] for row in GROUPS[group] if direction in ROWS[row].paper}


def mean_and_range(values: Sequence[float]) -> str:
    """Write the mean, and of several values the smallest and the largest."""
    text = f"{np.mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f} to {max(values):.3f})"
