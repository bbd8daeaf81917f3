"""Writes the gallery of a run: `index.html`, a page about it that opens from the disk.

The page is made from the files of the run's folder and needs nothing but them: no server, no asset from elsewhere.
`gallery.html` is its HTML, CSS and JavaScript; here the placeholders are filled, with charts of `gallery_charts.py`.
What files say is data: it is escaped.
"""

import html
import json
import math
import re
import reprlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from cyclegan_fast.checkpoint.names import kept_in_words
from cyclegan_fast.evaluation.score_table import SCORE_COLUMNS
from cyclegan_fast.runs import ALARMS
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.training.gallery_charts import (
    charts,
    evaluation_charts,
    number,
    parsed,
    read_reports,
    section_of,
    text_of,
)

SAMPLE_NAME = re.compile(r"step_(\d{8,18})_([AB])\.png")
CYCLES = {"A": "A → B → A", "B": "B → A → B"}  # by the domain that they begin in

BRIEF = reprlib.Repr()  # bounded, whatever nests in a file
BRIEF.maxlevel, BRIEF.maxstring, BRIEF.maxother = 3, 200, 200


# --- what the page is made from -------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class GridText:
    """Holds what the file of a sample grid says, see `samples.write_grids`: its rows, their legend and numbers."""

    rows: list[str]
    legend: list[str]
    numbers: list[str]

    @staticmethod
    def read(path: Path) -> "GridText":
        """Read it from the text inside the file; empty where that cannot be read."""
        try:
            with Image.open(path) as image:
                texts = [str(image.info.get(name, "")) for name in ("rows", "legend", "numbers")]
        except (OSError, ValueError, SyntaxError):
            texts = ["", "", ""]
        return GridText(*(text.split("\n") if text else [] for text in texts))

    @property
    def labels(self) -> str:
        """Return the captions of the rows, from the top."""
        return ", ".join(self.rows)

    def to_html(self, step: str) -> str:
        """Return the HTML of the legend and of the rows' numbers; "" where there is none."""
        if not self.legend:
            return ""
        legend = "".join(f"<li>{as_html(line)}</li>" for line in self.legend)
        rows = "".join(
            f'<tr><th scope="row">{as_html(row)}</th><td>{as_html(numbers)}</td></tr>'
            for row, numbers in zip(self.rows, self.numbers, strict=False)
        )
        return (
            f'<details data-step="{step}"><summary>colours and values of step {int(step):,}</summary>'
            f'<ul class="legend">{legend}</ul><table>{rows}</table></details>'
        )


def status(run: Path, reports: list[dict[str, Any]], config: dict[Any, Any], step: int, ended: bool) -> dict[str, Any]:
    """Return the numbers of the status line; None where one is not known."""
    newest = reports[-1] if reports else {}
    optimizer = section_of(config, "optimizer")
    sources = [path for name in ("config.yaml", "metrics.jsonl", "results.json") if (path := run / name).exists()]
    between_grids_s = number(section_of(config, "run").get("sample_every")) * number(newest.get("step_ms")) / 1e3
    # A run that ended by its patience took fewer steps than it reported to have before it.
    ends_at = number(parsed(text_of(run / "results.json")).get("total_steps"))
    reported = ("epoch", "elapsed_s", "step_ms", "images_per_s", "total_steps")
    numbers = {name: number(newest.get(name)) for name in reported} | {
        "step": step,
        "epochs": number(optimizer.get("epochs")) + number(optimizer.get("decay_epochs")),
        "updated_s": max((path.stat().st_mtime for path in sources), default=math.nan),
        # Silence for three grids, and for two minutes at least, says that a run has stopped.
        "patience_s": 3 * between_grids_s if between_grids_s > 40 else 120.0,
    }
    if ended and ends_at >= 0:
        numbers["total_steps"] = ends_at
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()} | {"ended": ended}


# --- the page -------------------------------------------------------------------------------------------------------


def write_index(run: Path) -> None:
    """Write `index.html` from config.yaml, the files of lines, samples/ and results.json: from what is there."""
    write_atomically(run / "index.html", index_page(run).encode("utf-8", errors="replace"), "gallery")


def index_page(run: Path) -> str:
    """Return the page's HTML."""
    config, reports = read_config(run / "config.yaml"), read_reports(run / "metrics.jsonl")
    samples, results = find_samples(run / "samples"), parsed(text_of(run / "results.json"))
    scored_step = number(results.get("step"))
    reached = [number(reports[-1]["step"]) if reports else 0.0, float(next(reversed(samples), 0)), scored_step]
    step = int(max(value for value in reached if value >= 0))
    newest = next(reversed(samples), "")
    texts = {domain: GridText.read(run / f"samples/step_{newest}_{domain}.png") for domain in CYCLES}
    data = {
        "status": status(run, reports, config, step, ended=scored_step >= step),
        "samples": list(samples.items()),
        "labels": {domain: text.labels for domain, text in texts.items()},
        "charts": [*evaluation_charts(run), *charts(reports, section_of(config, "loss").get("gan_loss"))],
        "epochs": epoch_starts(reports),
    }
    parts = {
        "run": html.escape(run.resolve().name),
        "alarms": alarm_list(read_reports(run / ALARMS)),
        "samples": sample_figures(samples, texts),
        "results": results_table(results),
        "kept": kept_names(run),
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


def sample_figures(samples: dict[str, str], texts: dict[str, GridText]) -> str:
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
            f'<img src="{name}" alt="Step {int(step)}, from the top: {html.escape(texts[domain].labels)}"></a>'
            f"{texts[domain].to_html(step)}</figure>"
        )
    return "\n".join(figures)


def alarm_list(alarms: list[dict[str, Any]]) -> str:
    """Return the HTML of the alarms of a run; "" where there were none."""
    items = []
    for alarm in alarms[-50:]:
        back = number(alarm.get("back_to"))
        went = f"; the run went back to step {back:,.0f}" if back >= 0 else ""
        items.append(f"<li>Step {number(alarm['step']):,.0f}: {as_html(alarm.get('text'))}{went}</li>")
    return f'<ul class="alarms" aria-label="alarms">{"".join(items)}</ul>' if items else ""


def results_table(results: dict[str, Any]) -> str:
    """Return the HTML of the final scores; it says so where there are none."""
    images = "{:.0f} test image" if number(results.get("images")) == 1 else "{:.0f} test images"
    counts = {"step {:,.0f}": "step", images: "images", "{:,.0f} s of training": "training_s"}
    facts = [form.format(value) for form, name in counts.items() if (value := number(results.get(name))) >= 0]
    facts += [as_html(results["device"])] if "device" in results else []
    rows = [row for row in _listed(results.get("rows")) if isinstance(row, dict)]
    columns = {key: metric for key, metric in SCORE_COLUMNS.items() if any(key in row for row in rows)}
    head = "".join(
        f'<th scope="col">{metric.title} <small>{metric.better} is better</small></th>' for metric in columns.values()
    )
    body = "".join(
        f'<tr><th scope="row">{as_html(row.get("label"))}</th>'
        + "".join(f"<td>{number(row.get(key)):{columns[key].form}}</td>".replace("nan", "–") for key in columns)
        + "</tr>"
        for row in rows
    )
    notes = "".join(f"<li>{as_html(note)}</li>" for note in _listed(results.get("notes")))
    if rows:
        table = f'<table><thead><tr><th scope="col">means</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    else:
        table = f'<p class="empty">{"Nothing was scored." if results else "Scores are written when training ends."}</p>'
    return f'<p class="facts">{" · ".join(facts)}</p><div class="wide">{table}</div><ul>{notes}</ul>'


def kept_names(run: Path) -> str:
    """Return the HTML that says which checkpoints are kept, by the names that commands take; "" where there is none."""
    kept, name = kept_in_words(run), html.escape(run.resolve().name)
    return f'<p class="facts">checkpoints kept: <code>--checkpoint …/{name}</code> with {kept}</p>' if kept else ""


def config_tables(config: dict[Any, Any]) -> str:
    """Return an HTML table for each section of the configuration; values that are no section share one."""
    sections = {name: values for name, values in config.items() if isinstance(values, dict)}
    rest = {name: value for name, value in config.items() if name not in sections}
    return "".join(
        f"<table><caption>{as_html(name)}</caption>"
        + "".join(
            f'<tr><th scope="row">{as_html(key)}</th><td>{as_html(value)}</td></tr>' for key, value in values.items()
        )
        + "</table>"
        for name, values in (sections | ({"other": rest} if rest else {})).items()
    )


def _listed(value: object) -> list[Any]:
    """Return the first 50 items of a list; none of anything else."""
    return value[:50] if isinstance(value, list) else []


def as_html(value: object) -> str:
    """Return any value of a file as text for HTML, of bounded length."""
    text = "–" if value is None else value if isinstance(value, str) else BRIEF.repr(value)
    return html.escape(text if len(text) <= 400 else text[:399] + "…")
