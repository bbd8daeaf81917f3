"""Writes report.md, report.json and report.jpg from the output folder's files; the same files give the same bytes."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from cyclegan_fast.evaluation.fcn.scores import MEASURES
from cyclegan_fast.evaluation.score_table import SCORE_COLUMNS, or_null
from cyclegan_fast.experiments.agreement import Lead, RowScores, leads, mean_and_range, order, papers_figures
from cyclegan_fast.experiments.paper_tables import GROUPS, NUMBERS, ROWS, WAYS, RowName
from cyclegan_fast.experiments.store import REFERENCE, Scored, Store, as_json_file, read_json
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.sheets import Column, sheet
from cyclegan_fast.system.files import write_atomically

PICTURE_BYTES = 600_000
Runs = Mapping[RowName, Mapping[int, Scored]]

REFERENCES = {
    "b2a.real": "real photographs",
    "b2a.shuffled": "real photographs, of other views",
    "b2a.untranslated": "the label maps themselves",
    "a2b.shuffled": "true label maps, of other views",
    "a2b.untranslated": "the photographs themselves",
}

NOTES = """\
- Scores are read in {images} test views: in generated photographs by a segmentation network that was trained on the
  real training photographs, in generated label maps by the nearest colour. Classes that are neither there nor read take
  no part in means.
- The paper's figures are of Cityscapes at 128x128, read by an FCN-8s: orders can be compared, values cannot. Those
  marked * were found repeated in another text; the others are from memory.
- All rows have the same photographs, size, networks, steps, rates, batch, moving average and precision. They differ in
  their losses, and in what these need: CoGAN renders images from a code, and translates by searching the code of an
  image; BiGAN's discriminator sees pairs; the feature loss has a network of its own, which each run trains on its data
  first (its time is not in the table); pix2pix gets the label maps of the photographs themselves, where the others get
  those of other streets, and keeps no history of generated images.
- GAN + forward cycle is labels -> photo -> labels, with the paper's figure 7 read as X = labels. Only the row of that
  name has an identity loss."""


def write_report(store: Store) -> list[Path]:
    """Write the three files and return them; nothing but what OUT holds goes into them."""
    reference, runs = store.load(REFERENCE), store.all_runs()
    assert reference is not None
    plan = read_json(store.out / "plan.json")
    # Values before words before pictures: each is made from what is there, and may be replaced at any time.
    write_atomically(store.out / "report.json", as_json_file(as_dict(plan, reference, runs)))
    write_atomically(store.out / "report.md", _markdown(plan, reference, runs).encode())
    write_atomically(store.out / "report.jpg", compressed(picture(reference, runs)))
    return [store.out / f"report.{ending}" for ending in ("md", "json", "jpg")]


def values_of(runs: Runs, group: str, direction: str) -> RowScores:
    """Return the three measures of a table's rows, in its order, as far as there are runs."""
    return {
        row: {seed: scored.means(direction) for seed, scored in runs[row].items()}
        for row in GROUPS[group]
        if row in runs
    }


# --- values --------------------------------------------------------------------------------------------------------


def as_dict(plan: Mapping[str, Any], reference: Scored, runs: Runs) -> dict[str, Any]:
    """Return the whole report as JSON takes it."""
    tables = {}
    for (group, direction), number in NUMBERS.items():
        values, paper = values_of(runs, group, direction), papers_figures(group, direction)
        tables[number] = {
            "direction": direction,
            "rows": {
                row: {str(seed): or_null(means) for seed, means in seeds.items()} for row, seeds in values.items()
            },
            "paper": {row: dict(zip(MEASURES, figures, strict=True)) for row, figures in paper.items()},
            "confirmed": [row for row in paper if direction in ROWS[row].confirmed],
            "order": [asdict(order(values, paper, measure)) for measure in MEASURES],
            "leads": [
                {**asdict(lead), "agrees": lead.agrees}
                for measure in MEASURES
                for lead in leads(values, paper, measure)
            ],
        }
    return {
        "plan": {**plan, "data": Path(plan["data"]).name},
        "reference": {
            "facts": reference.facts,
            "scores": {kind: or_null(reference.means(kind)) for kind in reference.matrices},
        },
        "runs": {
            row: {str(seed): {**portable(scored.facts), "confusion": _lists(scored)} for seed, scored in seeds.items()}
            for row, seeds in runs.items()
        },
        "tables": tables,
        "training_s": total_s(runs),
    }


def portable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a run, without the places that it had on one machine."""
    config = {name: dict(section) for name, section in facts["config"].items()}
    config["data"]["data"] = Path(config["data"]["data"] or "").name
    for section, name in (("data", "cache_dir"), ("run", "runs"), ("loss", "feature_network")):
        config[section].pop(name, None)
    return {**facts, "config": config}


def _lists(scored: Scored) -> dict[str, Any]:
    return {kind: matrix.tolist() for kind, matrix in scored.matrices.items()}


def total_s(runs: Runs) -> float:
    """Return the time that all runs were trained for, in seconds."""
    return round(sum(float(scored.facts["training_s"]) for seeds in runs.values() for scored in seeds.values()), 1)


# --- words ---------------------------------------------------------------------------------------------------------


def _markdown(plan: Mapping[str, Any], reference: Scored, runs: Runs) -> str:
    facts = [scored.facts for seeds in runs.values() for scored in seeds.values()]
    parts = [
        "# The paper's comparisons, run anew",
        "Zhu et al. 2017, tables 2 to 5. Means over seeds (smallest to largest).",
    ]
    for group in GROUPS:
        for direction in WAYS:
            if values_of(runs, group, direction):
                parts += table_section(group, direction, reference, runs)
    missing = [ROWS[row].title for row in ROWS if row not in runs and ROWS[row].paper]
    parts += [f"Not run: {', '.join(missing)}."] if missing else []
    parts += ["![The same test views through every method](report.jpg)", "## Time", times(runs)]
    settings = {**plan, "data": Path(plan["data"]).name}  # wherever it was
    parts += ["## Settings", _table(["setting", "value"], [[name, f"{settings[name]}"] for name in sorted(settings)])]
    made_on = sorted({f"{fact['device']}, {fact['dtype']}" for fact in facts})
    versions = sorted({f"{name} {version}" for fact in facts for name, version in fact["versions"].items()})
    parts += [f"Made on {'; '.join(made_on)}; {', '.join(versions)}." if facts else "No run is finished."]
    parts += ["## Notes", NOTES.format(images=reference.facts["images"])]
    return "\n\n".join(parts) + "\n"


def table_section(group: str, direction: str, reference: Scored, runs: Runs) -> list[str]:
    """Write a table's heading, its scores beside the paper's, and what agrees with it."""
    values, paper = values_of(runs, group, direction), papers_figures(group, direction)
    titles = [SCORE_COLUMNS[measure].title for measure in MEASURES]
    rows = []
    for row, seeds in values.items():
        figures = [f"{figure:.2f}" for figure in paper[row]] if row in paper else ["-"] * 3
        if direction in ROWS[row].confirmed:
            figures = [f"{figure} *" for figure in figures]
        cells = [mean_and_range([means[measure] for means in seeds.values()]) for measure in MEASURES]
        rows.append([ROWS[row].title, str(len(seeds)), *cells, *figures])
    for kind, title in REFERENCES.items():
        if kind.startswith(direction) and kind in reference.matrices:
            means = reference.means(kind)
            rows.append([title, "", *(mean_and_range([means[measure]]) for measure in MEASURES), "", "", ""])
    heading = f"## {WAYS[direction].capitalize()}, {group} (the paper's {NUMBERS[group, direction]})"
    columns = ["", "seeds", *titles, *(f"paper: {title}" for title in titles)]
    return [heading, _table(columns, rows), *agreement_section(values, direction, group)]


def agreement_section(values: RowScores, direction: str, group: str) -> list[str]:
    """Write how far the order of a table's rows, and CycleGAN's lead, agree with the paper."""
    paper = papers_figures(group, direction)
    sentences = []
    for measure in MEASURES:
        found = order(values, paper, measure)
        if found.pairs:
            tau = "" if found.correlation is None else f", Kendall's tau {found.correlation:.2f}"
            title = SCORE_COLUMNS[measure].title
            sentences.append(f"by {title} {found.same} of {found.pairs} pairs of rows stand as in the paper{tau}")
    by_row: dict[RowName, list[Lead]] = {}
    for measure in MEASURES:
        for lead in leads(values, paper, measure):
            by_row.setdefault(lead.over, []).append(lead)
    if not by_row:
        return []
    rows = [[ROWS[row].title, *map(_in_words, found)] for row, found in by_row.items()]
    columns = ["CycleGAN ahead of", *(SCORE_COLUMNS[measure].title for measure in MEASURES)]
    return [f"Order: {'; '.join(sentences)}.", _table(columns, rows)]


def _in_words(lead: Lead) -> str:
    """Write a lead in words, such as "2 of 2 seeds; paper: yes, agrees"."""
    paper = "yes" if lead.paper else "no"
    return f"{lead.ahead} of {lead.seeds} seeds; paper: {paper}, {'agrees' if lead.agrees else 'differs'}"


def times(runs: Runs) -> str:
    """Write the table of training times."""
    rows = [
        [
            ROWS[row].title,
            ", ".join(f"{scored.facts['training_s']:.0f}" for scored in seeds.values()),
            ", ".join(f"{scored.facts['step_ms']:.1f}" for scored in seeds.values()),
            f"{next(iter(seeds.values())).facts['steps']}",
        ]
        for row, seeds in runs.items()
    ]
    rows.append(["all", f"{total_s(runs):.0f}", "", ""])
    return _table(["", "training, s, by seed", "ms a step", "steps"], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- pictures ------------------------------------------------------------------------------------------------------


def picture(reference: Scored, runs: Runs) -> Pixels:
    """Draw the same test views through the first seed of every row, labels -> photo first, then photo -> labels."""
    first = {row: next(iter(seeds.values())) for row, seeds in runs.items()}
    titles = ["input", *(ROWS[row].title for row in first), "truth"]
    columns: list[Column] = []
    for direction, way in WAYS.items():
        inputs = reference.pictures[direction]
        truths = reference.pictures["a2b" if direction == "b2a" else "b2a"]
        for index in range(len(inputs)):
            made = [scored.pictures[direction][index] for scored in first.values()]
            columns.append((way, [inputs[index], *made, truths[index]]))
    return sheet("Figures 5 and 7 of the paper, of test views here", titles, columns)


def compressed(pixels: Pixels) -> bytes:
    """Encode as a JPEG of the best quality that keeps within PICTURE_BYTES."""
    for quality in (92, 85, 75, 65, 50, 35):
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, format="JPEG", quality=quality)
        if encoded.tell() <= PICTURE_BYTES:
            break
    return encoded.getvalue()
