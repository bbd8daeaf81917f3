"""Reads the reports of a run and makes the charts of its gallery: loss curves, learning rate, and metrics."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclegan_fast.evaluation.score_table import SCORE_COLUMNS

_Curve = tuple[list[int], list[float | None]]  # steps and values; None where a value is not finite

MAX_REPORTS = 4_000  # 0.04 s to parse and some 10 MiB; a training waits while its page is written
BUCKETS = 400  # about one for two pixels of a chart
PANELS = (
    ("Adversarial, A to B", ("G_A", "D_A")),
    ("Adversarial, B to A", ("G_B", "D_B")),
    ("Cycle consistency", ("cycle_A", "cycle_B")),
    ("Identity", ("idt_A", "idt_B")),
    ("Adversarial, of pairs", ("D",)),
    ("L1 with the image itself", ("pixel_A", "pixel_B")),
    ("L1 in features of the image itself", ("feature_A", "feature_B")),
    ("L1 with the true translation", ("paired_A", "paired_B")),
)


# --- reports ---------------------------------------------------------------------------------------------------


def text_of(path: Path) -> str:
    """Return the text of a file; "" where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def parsed(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in a text; an empty one where the text is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_reports(path: Path) -> list[dict[str, Any]]:
    """Return the reports in metrics.jsonl by step; lines that are cut off or no report are passed over.

    Where there are more than MAX_REPORTS lines, every k-th is read, counted back from the newest.
    """
    reports = []
    try:
        with open(path, "rb") as lines:
            last = sum(1 for _ in lines) - 1
            lines.seek(0)
            every = math.ceil((last + 1) / MAX_REPORTS)
            # Line by line, so that the memory of a training doesn't grow with what it has written.
            reports = [parsed(line) for place, line in enumerate(lines) if (last - place) % every == 0]
    except OSError:
        pass  # the page has what can be read
    return sorted((r for r in reports if number(r.get("step")) >= 0), key=lambda r: number(r["step"]))


def section_of(values: dict[Any, Any], name: str) -> dict[Any, Any]:
    """Return the mapping of that name; an empty one where there is none."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def number(value: Any) -> float:
    """Return a finite number, also from its text; NaN for anything else, which no comparison accepts."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return found if abs(found) < 1e15 else math.nan


# --- curves ----------------------------------------------------------------------------------------------------


def downsample(values: npt.NDArray[np.float64], buckets: int = BUCKETS) -> list[int]:
    """Return the indices of the points [n] to draw: the first, the last, and the smallest and largest of each bucket.

    A bucket without a finite value keeps one point, so that the gap shows.
    """
    if len(values) <= 2 * buckets:
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    edges = np.linspace(0, len(values), buckets + 1).astype(int).tolist()
    for start, stop in pairwise(edges):
        finite = start + np.flatnonzero(np.isfinite(values[start:stop]))
        kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])} if len(finite) else {start}
    return sorted(kept)


def smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return [n] means of the finite values up to n // 30 places away on either side; NaN where there are none."""
    half, finite, index = len(values) // 30, np.isfinite(values), np.arange(len(values))
    start, stop = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    within = count[stop] - count[start]
    mean: npt.NDArray[np.float64] = np.where(within, (total[stop] - total[start]) / np.maximum(within, 1), np.nan)
    return mean


def rounded(values: list[float]) -> list[float | None]:
    """Round values to four digits for a chart; None where one is not finite."""
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def charts(reports: list[dict[str, Any]], gan_loss: object) -> list[dict[str, Any]]:
    """Return the charts that the page's script draws; lines without a finite value and empty charts are left out."""
    steps = [int(number(report["step"])) for report in reports]
    losses = [section_of(report, "losses") for report in reports]
    evenly = sorted(set(np.linspace(0, len(steps) - 1, BUCKETS).astype(int).tolist())) if steps else []

    def curve(values: npt.NDArray[np.float64], places: list[int]) -> _Curve:
        return [steps[place] for place in places], rounded(values[places].tolist())

    def chart(title: str, unit: str, names: tuple[str, ...], sources: list[dict[Any, Any]]) -> dict[str, Any]:
        columns = {name: np.array([number(source.get(name)) for source in sources]) for name in names}
        lines = [
            {"name": name, "raw": curve(values, downsample(values)), "smooth": curve(smooth(values), evenly)}
            for name, values in columns.items()
            if np.isfinite(values).any()
        ]
        return {"title": title, "unit": unit, "lines": lines}

    others = {str(name) for name in (losses[-1] if losses else {})} - {name for _, names in PANELS for name in names}
    found = [chart(title, "loss, weighted", names, losses) for title, names in PANELS]
    found[0]["unit"] = found[1]["unit"] = f"loss, {gan_loss[:20]}" if isinstance(gan_loss, str) else "loss"
    if gan_loss == "lsgan":  # a discriminator that answers 1/2 to everything has this loss, and so has its generator
        found[0]["reference"] = found[1]["reference"] = 0.25
    found.append(chart("Other losses", "loss", tuple(sorted(others))[:4], losses))
    rates = chart("Learning rate", "Adam's step size", ("learning_rate",), reports)
    for line in rates["lines"]:
        line["smooth"] = line["raw"]  # a schedule has corners, not noise
    found += [rates, chart("Time per step", "ms", ("step_ms",), reports)]
    return [panel for panel in found if panel["lines"]]


def evaluation_charts(run: Path) -> list[dict[str, Any]]:
    """Return a chart for each metric that was measured while training, with the step of the best checkpoint."""
    found = [report for report in read_reports(run / "evaluations.jsonl") if section_of(report, "values")]
    steps = [int(number(report["step"])) for report in found]
    best = [step for step, report in zip(steps, found, strict=True) if report.get("best") is True]
    names = sorted({str(name) for report in found for name in section_of(report, "values")})
    panels = []
    for key, metric in SCORE_COLUMNS.items():
        of_key = [name for name in names if name.rpartition(".")[2] == key]
        for title, group in _by_unit(metric.title, key, of_key).items():
            lines = []
            for name in group:
                curve = (steps, rounded([number(section_of(report, "values").get(name)) for report in found]))
                lines.append({"name": name.rpartition(".")[0], "raw": curve, "smooth": curve})
            # A chart has four colours: translations first, then what they are compared with.
            lines.sort(key=lambda line: rank_of(str(line["name"])))
            panel = {"title": f"Test images: {title}", "unit": f"{metric.better} is better", "lines": lines[:4]}
            panels.append(panel | ({"best": best[-1]} if best else {}))
    return panels


def _by_unit(title: str, key: str, names: list[str]) -> dict[str, list[str]]:
    """Return the names of values that share a chart, by its title: those in the units of A, and of B, stand apart."""
    if key != "mae":
        return {title: names} if names else {}
    groups: dict[str, list[str]] = {}
    for name in names:
        direction, _, kind = name.rpartition(".")[0].partition(".")
        # An image that came back is one of the domain that it came from.
        domain = direction[:1] if kind == "reconstruction" else direction[-1:]
        groups.setdefault(title.replace("own units", f"in units of {domain.upper()}"), []).append(name)
    return dict(sorted(groups.items()))


def rank_of(name: str) -> int:
    """Rank the curves of a chart, which has colours for four: translations come before reconstructions."""
    kind = name.rpartition(".")[2]
    return {"reconstruction": 1, "untranslated": 2, "lookup": 3}.get(kind, 0)
