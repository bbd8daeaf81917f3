"""Writes the table that `export.trt` prints: what was written, how large it is, how near it is to PyTorch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EngineRow:
    """Holds what the table says of one exported generator."""

    name: str
    engine: str
    onnx_mb: float
    engine_mb: float
    seconds: float
    parity: str
    failure: str | None
    engine_parity: str = "not run"
    engine_failure: str | None = None
    not_run: str | None = None

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield, for each file that falls short, its kind and a phrase that says how."""
        if self.failure:
            yield "onnx", self.failure
        if self.engine_failure:
            yield "engine", self.engine_failure


def engine_table(rows: Sequence[EngineRow]) -> str:
    """Return text in columns: what was written, how large it is, how long it took, how near it is to PyTorch."""
    cells = [("generator", "engine for", "ONNX", "engine", "took", "ONNX against PyTorch float32", "engine against it")]
    cells += [
        (
            row.name,
            row.engine,
            f"{row.onnx_mb:.1f} MB",
            f"{row.engine_mb:.1f} MB",
            f"{row.seconds:.1f} s",
            row.parity + (" FAILED" if row.failure else ""),
            row.engine_parity + (" FAILED" if row.engine_failure else ""),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )
