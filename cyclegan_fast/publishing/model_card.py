"""Writes the README.md of a repository of weights: metadata that hubs read, what it is, samples, scores, settings."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cyclegan_fast.checkpoint.original import channels_by_shapes
from cyclegan_fast.config.values import pixels_of_run
from cyclegan_fast.evaluation.score_table import SCORE_COLUMNS
from cyclegan_fast.images.pixel_type import RGB, PixelTypes
from cyclegan_fast.publishing.release import Release
from cyclegan_fast.system.words import counted
from cyclegan_fast.version import __version__

_BEGIN_MARK = "<!-- cyclegan-fast: what stands from here to the end mark is written anew with every push -->"
_END_MARK = "<!-- cyclegan-fast: end -->"
_LIBRARY = "cyclegan-fast"
_TAGS = ("cyclegan", "image-to-image", "gan")

_COMPARED_WITH = ("untranslated", "lookup")

_SETTINGS = {
    "data": ("data", "preprocess", "load_size", "crop_size", "batch_size"),
    "networks": ("generator", "ngf", "norm", "discriminator", "ndf"),
    "loss": ("gan_loss", "lambda_cycle", "lambda_identity"),
    "optimizer": ("learning_rate", "learning_rate_policy", "epochs", "decay_epochs", "ema"),
    "run": ("amp", "seed"),
}
"""The settings that people ask for first, by section; config.yaml has all of them."""


def model_card(release: Release, repository: str, existing: str | None = None) -> str:
    """Return the card of a release as Markdown behind YAML metadata.

    Args:
        repository: "owner/name", as the example names it.
        existing: the card that is there already. Its metadata stay where this one has none of the name, and so does
            what stands outside the two marks. A card without the marks is somebody's own, and keeps its text.
    """
    metadata, text = _metadata(release, repository), f"{_BEGIN_MARK}\n\n{_text(release, repository)}\n{_END_MARK}\n"
    if existing is not None:
        theirs, before = _parts(existing)
        tags = theirs.get("tags")
        metadata["tags"] = list(dict.fromkeys([*(tags if isinstance(tags, list) else []), *metadata["tags"]]))
        metadata = {**theirs, **metadata}
        marked = re.compile(f"{re.escape(_BEGIN_MARK)}.*?{re.escape(_END_MARK)}\n?", re.DOTALL)
        text = marked.sub(lambda _: text, before, count=1) if before.strip() else text
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{text.lstrip()}"


def _parts(card: str) -> tuple[dict[str, Any], str]:
    """Return the metadata of a card and its text; metadata that are no YAML count as none."""
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n?(.*)", card, re.DOTALL)
    if not match:
        return {}, card
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError:
        metadata = None
    return (metadata if isinstance(metadata, dict) else {}), match[2]


def _metadata(release: Release, repository: str) -> dict[str, Any]:
    method = _method(release)
    metadata: dict[str, Any] = {
        "library_name": _LIBRARY,
        "pipeline_tag": "image-to-image",
        "tags": list(dict.fromkeys([*_TAGS, *([method] if method else [])])),
    }
    if metrics := _metrics(release.rows):
        data = _data_name(release)
        metadata["model-index"] = [
            {
                "name": repository.rpartition("/")[2],
                "results": [
                    {
                        "task": {"type": "image-to-image"},
                        "dataset": {"name": data, "type": data},
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return metadata


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the values of the generators themselves; rows that they are compared with are in the text."""
    return [
        {"type": column, "name": f"{row['name']}.{column}", "value": row[column]}
        for row in rows
        for column in SCORE_COLUMNS
        if isinstance(row.get(column), float) and row["name"].rpartition(".")[2] not in _COMPARED_WITH
    ]


def _text(release: Release, repository: str) -> str:
    name = repository.rpartition("/")[2]
    parts = [f"# {name}", _introduction(release), "## How to use it", _example(release, repository)]
    if release.samples:
        parts += ["## Samples", *(f"![{_caption(domain)}](samples_{domain}.png)" for domain in sorted(release.samples))]
    if release.rows:
        parts += ["## Scores", "Means over the test images.", _table(release.rows)]
    if release.config:
        parts += ["## How it was trained", _settings(release)]
    return "\n\n".join(parts) + "\n"


def _introduction(release: Release) -> str:
    if not release.config:
        return (
            f"A generator that translates images of one kind into another, for the package `{_LIBRARY}` {__version__}."
            f"{_pixels(release)}"
        )
    return (
        f"Trained with the package `{_LIBRARY}` {__version__} by the method {_method(release)}, to translate images of "
        f"one kind, domain A, into another, domain B, and back.{_pixels(release)}"
    )


def _pixels(release: Release) -> str:
    """Say what the images of both domains are, where they are not all 8-bit RGB; of bare weights, their channels."""
    if not release.config:
        inputs, outputs = channels_by_shapes(next(iter(release.generators.values())))
        is_usual = inputs == outputs == RGB.channels
        return "" if is_usual else f" It takes images of {counted(inputs, 'channel')} and gives images of {outputs}."
    kinds = _pixel_types(release)
    return "" if kinds == PixelTypes() else f" Images of A: {kinds.A}. Images of B: {kinds.B}."


def _pixel_types(release: Release) -> PixelTypes:
    return pixels_of_run(release.config, "the configuration").pixel_types


def _example(release: Release, repository: str) -> str:
    is_usual = _pixel_types(release) == PixelTypes()
    photo, translated = ("photo.jpg", "translated.png") if is_usual else ("image.tif", "translated.tif")
    lines = [
        "```python",
        "import cyclegan_fast as cf",
        f'translator = cf.load("hub:{repository}")',
        f'translator("{photo}").save("{translated}")',
        "```",
    ]
    if len(release.generators) > 1:
        lines += ["", 'Images of A become images like those of B; `cf.load(..., "b2a")` goes the other way.']
    return "\n".join(lines)


def _caption(domain: str) -> str:
    return f"Images of {domain}, their translations, and what is made of these"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = [column for column in SCORE_COLUMNS if any(isinstance(row.get(column), float) for row in rows)]
    titles = " | ".join(SCORE_COLUMNS[column].title for column in columns)
    lines = [f"| | {titles} |", "| --- |" + " --- |" * len(columns)]
    for row in rows:
        cells = [f"{row[c]:{SCORE_COLUMNS[c].form}}" if isinstance(row.get(c), float) else "-" for c in columns]
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _settings(release: Release) -> str:
    lines = ["| setting | value |", "| --- | --- |"]
    if release.step is not None:
        lines.append(f"| steps taken | {release.step} |")
    for section, names in _SETTINGS.items():
        values = release.config.get(section, {})
        for name in names:
            if name in values:
                value = _data_name(release) if name == "data" else values[name]
                lines.append(f"| `{name}` | {value} |")
    return "\n".join([*lines, "", "`config.yaml` has all of them."])


def _method(release: Release) -> str | None:
    return str(release.config.get("loss", {}).get("method", "cyclegan")) if release.config else None


def _data_name(release: Release) -> str:
    return str(release.config.get("data", {}).get("data") or "embedded photographs")
