"""Writes the gallery of a run: `index.html`, a page about it that opens from the disk.

The page is made from the files of the run's folder and needs nothing but them: no server, no asset from elsewhere.
`gallery.html` is its HTML, CSS and JavaScript; here the placeholders are filled. What files say is data: it is escaped.
"""

import html
import json
import math
import re
import reprlib
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from cyclegan_fast.evaluation.score_table import METRICS
from cyclegan_fast.system.files import write_atomically

_Curve = tuple[list[int], list[float | None]]  # steps and values; None where a value is not finite

SAMPLE_NAME = re.compile(r"step_(\d{8,18})_([AB])\.png")
CYCLES = {"A": "A → B → A", "B": "B → A → B"}  # by the domain that they begin in

MAX_REPORTS = 10_000  # 0.1 s to parse; a training waits while its page is written
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
BRIEF = reprlib.Repr()  # bounded, whatever nests in a file
BRIEF.maxlevel, BRIEF.maxstring, BRIEF.maxother = 3, 200, 200


# --- what the page is made from -------------------------------------------------------------------------------------


def text_of(path: Path) -> str:
    """Return the text of a file; "" where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def parsed(text: str) -> dict[str, Any]:
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
    lines = text_of(path).rstrip("\n").split("\n")
    reports = [parsed(line) for line in lines[:: -math.ceil(len(lines) / MAX_REPORTS)]]
    return sorted((r for r in reports if number(r.get("step")) >= 0), key=lambda r: number(r["step"]))


def read_config(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file, each value as the text that stands there; empty where there is none."""
    try:
        values = yaml.load(text_of(path), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def find_samples(folder: Path) -> dict[str, str]:
    """Return the domains that have a grid of each step, oldest first, by the files' digits: {"00000250": "AB"}."""
    names = [match for path in folder.glob("*.png") if (match := SAMPLE_NAME.fullmatch(path.name))]
    found: dict[str, str] = {}
    for match in sorted(names, key=lambda match: (int(match[1]), match[2])):
        found[match[1]] = found.get(match[1], "") + match[2]
    return found


def _row_labels(run: Path, samples: dict[str, str], domain: str) -> str:
    """Return the captions of the newest grid of a domain, from the text inside the file."""
    try:
        with Image.open(run / f"samples/step_{next(reversed(samples), '')}_{domain}.png") as image:
            return ", ".join(str(image.info.get("rows", "")).split("\n"))
    except (OSError, ValueError, SyntaxError):
        return ""


def _section(values: dict[Any, Any], name: str) -> dict[Any, Any]:
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


# --- curves ---------------------------------------------------------------------------------------------------------


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
    losses = [_section(report, "losses") for report in reports]
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
    found = [report for report in read_reports(run / "evaluations.jsonl") if _section(report, "values")]
    steps = [int(number(report["step"])) for report in found]
    best = [step for step, report in zip(steps, found, strict=True) if report.get("best") is True]
    names = sorted({str(name) for report in found for name in _section(report, "values")})
    panels = []
    for key, metric in METRICS.items():
        lines = []
        for name in (name for name in names if name.rpartition(".")[2] == key):
            curve = (steps, rounded([number(_section(report, "values").get(name)) for report in found]))
            lines.append({"name": name.rpartition(".")[0], "raw": curve, "smooth": curve})
        # A chart has four colours: translations first, then what they are compared with.
        lines.sort(key=lambda line: rank_of(str(line["name"])))
        if lines:
            panel = {"title": f"Test images: {metric.title}", "unit": f"{metric.better} is better", "lines": lines[:4]}
            panels.append(panel | ({"best": best[-1]} if best else {}))
    return panels


def rank_of(name: str) -> int:
    """Rank the curves of a chart, which has colours for four: translations come before reconstructions."""
    kind = name.rpartition(".")[2]
    return {"reconstruction": 1, "untranslated": 2, "lookup": 3}.get(kind, 0)


def status(run: Path, reports: list[dict[str, Any]], config: dict[Any, Any], step: int, ended: bool) -> dict[str, Any]:
    """Return the numbers of the status line; None where one is not known."""
    newest = reports[-1] if reports else {}
    optimizer = _section(config, "optimizer")
    sources = [path for name in ("config.yaml", "metrics.jsonl", "results.json") if (path := run / name).exists()]
    between_grids_s = number(_section(config, "run").get("sample_every")) * number(newest.get("step_ms")) / 1e3
    reported = ("epoch", "elapsed_s", "step_ms", "images_per_s", "total_steps")
    numbers = {name: number(newest.get(name)) for name in reported} | {
        "step": step,
        "epochs": number(optimizer.get("epochs")) + number(optimizer.get("decay_epochs")),
        "updated_s": max((path.stat().st_mtime for path in sources), default=math.nan),
        # Silence for three grids, and for two minutes at least, says that a run has stopped.
        "patience_s": 3 * between_grids_s if between_grids_s > 40 else 120.0,
    }
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()} | {"ended": ended}


# --- the page -------------------------------------------------------------------------------------------------------


def write_index(run: Path) -> None:
    """Write `index.html` from config.yaml, metrics.jsonl, evaluations.jsonl, samples/, results.json: what is there."""
    write_atomically(run / "index.html", index_page(run).encode("utf-8", errors="replace"))


def index_page(run: Path) -> str:
    """Return the page's HTML."""
    config, reports = read_config(run / "config.yaml"), read_reports(run / "metrics.jsonl")
    samples, results = find_samples(run / "samples"), parsed(text_of(run / "results.json"))
    scored_step = number(results.get("step"))
    reached = [number(reports[-1]["step"]) if reports else 0.0, float(next(reversed(samples), 0)), scored_step]
    step = int(max(value for value in reached if value >= 0))
    labels = {domain: _row_labels(run, samples, domain) for domain in CYCLES}
    data = {
        "status": status(run, reports, config, step, ended=scored_step >= step),
        "samples": list(samples.items()),
        "labels": labels,
        "charts": [*evaluation_charts(run), *charts(reports, _section(config, "loss").get("gan_loss"))],
        "epochs": epoch_starts(reports),
    }
    parts = {
        "run": html.escape(run.resolve().name),
        "samples": sample_figures(samples, labels),
        "results": results_table(results),
        "config": config_tables(config),
        # Inside a script element nothing but "<" can end the data.
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    template = files("cyclegan_fast.training").joinpath("gallery.html").read_text(encoding="utf-8")
    # In one pass: a value that looks like a placeholder stays what it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def epoch_starts(reports: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return (step, epoch) of the first report of each epoch."""
    first: dict[int, int] = {}
    for report in reports:
        if (epoch := number(report.get("epoch"))) >= 0:
            first.setdefault(int(epoch), int(number(report["step"])))
    return [(step, epoch) for epoch, step in first.items()]


def sample_figures(samples: dict[str, str], labels: dict[str, str]) -> str:
    """Return the HTML of the newest grids, which the page shows without its script too."""
    if not samples:
        return '<p class="empty">No samples yet.</p>'
    step, domains = next(reversed(samples.items()))
    figures = []
    for domain, direction in CYCLES.items():
        name, hidden = f"samples/step_{step}_{domain}.png", "" if domain in domains else " hidden"
        figures.append(
            f'<figure data-domain="{domain}"{hidden}><figcaption>{direction}</figcaption>'
            f'<a href="{name}" target="_blank" title="open at full size">'
            f'<img src="{name}" alt="Step {int(step)}, from the top: {html.escape(labels[domain])}"></a></figure>'
        )
    return "\n".join(figures)


def results_table(results: dict[str, Any]) -> str:
    """Return the HTML of the final scores; it says so where there are none."""
    images = "{:.0f} test image" if number(results.get("images")) == 1 else "{:.0f} test images"
    counts = {"step {:,.0f}": "step", images: "images", "{:,.0f} s of training": "training_s"}
    facts = [form.format(value) for form, name in counts.items() if (value := number(results.get(name))) >= 0]
    facts += [shown(results["device"])] if "device" in results else []
    rows = [row for row in _listed(results.get("rows")) if isinstance(row, dict)]
    columns = {key: metric for key, metric in METRICS.items() if any(key in row for row in rows)}
    head = "".join(
        f'<th scope="col">{metric.title} <small>{metric.better} is better</small></th>' for metric in columns.values()
    )
    body = "".join(
        f'<tr><th scope="row">{shown(row.get("label"))}</th>'
        + "".join(f"<td>{number(row.get(key)):{columns[key].form}}</td>".replace("nan", "–") for key in columns)
        + "</tr>"
        for row in rows
    )
    notes = "".join(f"<li>{shown(note)}</li>" for note in _listed(results.get("notes")))
    if rows:
        table = f'<table><thead><tr><th scope="col">means</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    else:
        table = f'<p class="empty">{"Nothing was scored." if results else "Scores are written when training ends."}</p>'
    return f'<p class="facts">{" · ".join(facts)}</p><div class="wide">{table}</div><ul>{notes}</ul>'


def config_tables(config: dict[Any, Any]) -> str:
    """Return an HTML table for each section of the configuration; values that are no section share one."""
    sections = {name: values for name, values in config.items() if isinstance(values, dict)}
    rest = {name: value for name, value in config.items() if name not in sections}
    return "".join(
        f"<table><caption>{shown(name)}</caption>"
        + "".join(f'<tr><th scope="row">{shown(key)}</th><td>{shown(value)}</td></tr>' for key, value in values.items())
        + "</table>"
        for name, values in (sections | ({"other": rest} if rest else {})).items()
    )


def _listed(value: object) -> list[Any]:
    """Return the first 50 items of a list; none of anything else."""
    return value[:50] if isinstance(value, list) else []


def shown(value: object) -> str:
    """Return any value of a file as text for HTML, of bounded length."""
    text = "–" if value is None else value if isinstance(value, str) else BRIEF.repr(value)
    return html.escape(text if len(text) <= 400 else text[:399] + "…")
