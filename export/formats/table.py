"""Tabulates what was made in which format: printed, as Markdown, and as JSON, which later commands add to."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.formats import refuse_newer
from cyclegan_fast.system.words import counted
from cyclegan_fast.version import __version__

TABLE_FORMAT = 1
"""The number of the format of the JSON file: whoever changes it so that an older version cannot read it raises this."""
TABLE_NAME = "formats"
"""The name of the table's files, formats.md and formats.json."""


@dataclass(frozen=True)
class FormatRow:
    """Holds what came of one generator in one format; figures are None where nothing was measured."""

    format: str
    generator: str
    checkpoint_sha256: str
    taken: str
    """which arrays it takes: float32 [N, C, H, W] in [-1, 1], of these batches and sizes"""
    runs_with: str
    files: tuple[str, ...] = ()
    size_mb: float | None = None
    """millions of bytes of all files"""
    psnr_db: float | None = None
    """against PyTorch in float32, the lowest of all shapes compared; infinite where nothing differs"""
    largest: float | None = None
    """the largest difference, in `unit`"""
    unit: str = "levels of 255"
    ms: float | None = None
    """median time of one image of the usual side"""
    pytorch_ms: float | None = None
    """median time of PyTorch in float32, measured in turn with it"""
    ratio: float | None = None
    """median, over the rounds, of its time / PyTorch's"""
    side: int = 0
    """the usual side of images, in pixels"""
    threads: int = 0
    rounds: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    """of the packages that made it"""
    pixels: dict[str, Any] = field(default_factory=dict)
    """descriptions of the pixels, as in a card of an engine; none for 8-bit RGB"""
    failure: str | None = None
    """why it could not be made or run, or how it misses its bar"""
    not_run: str | None = None
    """why it was not run here"""
    compared_by: str | None = None
    """what computed the parity of files that were not run here"""

    @property
    def outcome(self) -> str:
        """Return in two or three words what came of it."""
        if not self.files:
            return "not made"
        if self.failure:
            return "FAILED"
        return "made, not run" if self.not_run else "ran here"

    @property
    def reason(self) -> str | None:
        """Return why it is not there, not run or not right, and what was compared then; None where it ran."""
        if self.compared_by is None:
            return self.failure or self.not_run
        return f"{self.failure or self.not_run}; its parity is that of {self.compared_by}"

    def cells(self) -> tuple[str, ...]:
        """Return what stands in each column, as `HEADINGS` has them."""
        return (
            self.format,
            self.generator,
            "-" if self.size_mb is None else f"{self.size_mb:.1f} MB",
            "-" if self.psnr_db is None else f"{self.psnr_db:.1f} dB",
            "-" if self.largest is None else f"{self.largest:.2g} {self.unit}",
            "-" if self.ms is None else f"{self.ms:.1f} ms",
            "-" if self.ratio is None else f"{self.ratio:.2f}",
            self.taken,
            self.outcome,
        )


HEADINGS = ("format", "generator", "size", "parity", "largest difference", "time", "/ PyTorch's", "takes", "outcome")


def in_columns(rows: Sequence[FormatRow]) -> str:
    """Return the table as text in columns, and below it, for each format that was not run, why."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*table, "", *_reasons(rows), how_measured(rows)])


def how_measured(rows: Sequence[FormatRow]) -> str:
    """Return the sentence that says what the figures are."""
    timed = [row for row in rows if row.ms is not None]
    if not timed:
        return "nothing was timed"
    of_pytorch = sorted(row.pytorch_ms for row in timed if row.pytorch_ms is not None)
    span = " to ".join(dict.fromkeys(f"{ms:.1f}" for ms in (of_pytorch[0], of_pytorch[-1])))
    images, threads, rounds = (
        " or ".join(dict.fromkeys(texts))
        for texts in (
            [f"{row.side}x{row.side}" for row in timed],
            [counted(row.threads, "thread") for row in timed],
            [counted(row.rounds, "round") for row in timed],
        )
    )
    return (
        f"time: median of {rounds} of one image of {images} in {threads}, in turn with PyTorch in float32 "
        f"({span} ms); parity: against that, the worst of all shapes"
    )


def _reasons(rows: Sequence[FormatRow]) -> list[str]:
    reasons: dict[tuple[str, str], None] = {(row.format, row.reason): None for row in rows if row.reason}
    return [f"{name}: {reason}" for name, reason in reasons]


def in_markdown(rows: Sequence[FormatRow]) -> str:
    """Return the table as Markdown, with the files, what runs them, and what was not run and why."""
    headings = (*HEADINGS, "files", "needs where it runs", "why")
    lines = [headings, ("---",) * len(headings)]
    for row in rows:
        files = ", ".join(f"`{name}`" for name in row.files) or "-"
        lines.append((*row.cells(), files, row.runs_with, row.reason or ""))
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return f"# Exported by cyclegan-fast {__version__}\n\n{table}\n\n{how_measured(rows)}\n"


def write_table(folder: Path, rows: Sequence[FormatRow]) -> None:
    """Write formats.md and formats.json. Raises UserError where the system refuses."""
    write_atomically(folder / f"{TABLE_NAME}.md", in_markdown(rows).encode())
    content = {
        "format": TABLE_FORMAT,
        "project_version": __version__,
        # JSON has no infinity: where nothing differs, the figure is a text.
        "rows": [{**dataclasses.asdict(row), "psnr_db": _in_json(row.psnr_db)} for row in rows],
    }
    write_atomically(folder / f"{TABLE_NAME}.json", (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _in_json(figure: float | None) -> float | str | None:
    return figure if figure is None or math.isfinite(figure) else str(figure)


def read_table(folder: Path) -> list[FormatRow]:
    """Return the rows of a folder's formats.json; none where it is not there.

    Raises UserError where the file is none of ours or of a newer version.
    """
    path = folder / f"{TABLE_NAME}.json"
    try:
        content = json.loads(path.read_bytes())
        refuse_newer(path, content["format"], TABLE_FORMAT, content.get("project_version"))
        rows = []
        for values in content["rows"]:
            figure = values["psnr_db"]
            made = {**values, "psnr_db": float(figure) if isinstance(figure, str) else figure}
            rows.append(FormatRow(**{**made, "files": tuple(made["files"])}))
        [row.cells() for row in rows]  # types that cannot be shown are found here
        return rows
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no table of this command: move it away, or give another --out") from error


def joined_rows(kept: Sequence[FormatRow], new: Sequence[FormatRow], folder: Path) -> list[FormatRow]:
    """Return the new rows, and behind them those of other formats of the same checkpoints whose files are still there.

    So a format whose converter needs an environment of its own is added by the same command there.
    """
    replaced = {(row.format, row.generator) for row in new}
    checkpoints = {row.generator: row.checkpoint_sha256 for row in new}
    others = [
        row
        for row in kept
        if (row.format, row.generator) not in replaced
        and checkpoints.get(row.generator, row.checkpoint_sha256) == row.checkpoint_sha256
        and row.files
        and all((folder / name).exists() for name in row.files)
    ]
    return [*new, *others]
