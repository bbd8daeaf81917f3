"""Holds the scores of a generator: named values, what they are called, and the table that people read.

It needs no PyTorch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ScoreColumn:
    """Says how a value is called and written; `better` is "higher" or "lower"."""

    title: str
    better: str
    form: str


SCORE_COLUMNS = {
    "psnr_db": ScoreColumn("PSNR, dB", "higher", ".2f"),
    "ssim": ScoreColumn("SSIM", "higher", ".3f"),
    "l1": ScoreColumn("L1", "lower", ".4f"),
    "mae": ScoreColumn("MAE, own units", "lower", ".5g"),
    "lpips": ScoreColumn("LPIPS", "lower", ".3f"),
    "fid": ScoreColumn("FID", "lower", "#.4g"),
    "kid": ScoreColumn("KID", "lower", ".3g"),
    "kid_std": ScoreColumn("KID std", "lower", ".2g"),
    "per_pixel": ScoreColumn("per-pixel acc.", "higher", ".3f"),
    "per_class": ScoreColumn("per-class acc.", "higher", ".3f"),
    "class_iou": ScoreColumn("class IoU", "higher", ".3f"),
}
"""Every value that a score may hold. L1 is in [0, 1] of full scale, MAE in the images' own units, accuracies are
shares."""


@dataclass(frozen=True)
class Score:
    """Holds one row of the table: what was compared with what, and the values that this gave."""

    name: str
    """direction and metric, for programs, such as "a2b.truth" """
    label: str
    """what people read, such as "G_A(A) against the truth" """
    values: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON takes it."""
        return {"name": self.name, "label": self.label, **or_null(self.values)}


def or_null(values: dict[str, float]) -> dict[str, float | None]:
    """Replace what is not finite by None, since JSON has no word for it."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def scalars(scores: Sequence[Score]) -> dict[str, float]:
    """Return all finite values by one name each, such as "a2b.truth.ssim", for a log and the choice of the best."""
    named = {f"{score.name}.{key}": value for score in scores for key, value in score.values.items()}
    return {name: value for name, value in named.items() if math.isfinite(value)}


def is_better(name: str, value: float, than: float) -> bool:
    """Say whether `value` of a scalar such as "a2b.truth.ssim" is better than another of that name."""
    return value > than if SCORE_COLUMNS[name.rpartition(".")[2]].better == "higher" else value < than


def table(scores: Sequence[Score]) -> str:
    """Write the scores as aligned text, a row each; columns that no row has are left out, a dash is no value."""
    columns = [key for key in SCORE_COLUMNS if any(key in score.values for score in scores)]
    width = max((len(score.label) for score in scores), default=0)
    widths = {key: max(8, len(SCORE_COLUMNS[key].title)) for key in columns}
    lines = ["  ".join([" " * width, *(f"{SCORE_COLUMNS[key].title:>{widths[key]}}" for key in columns)])]
    for score in scores:
        cells = [f"{score.values[key]:{SCORE_COLUMNS[key].form}}" if key in score.values else "-" for key in columns]
        texts = [f"{cell:>{widths[key]}}" for key, cell in zip(columns, cells, strict=True)]
        lines.append("  ".join([f"{score.label:{width}}", *texts]))
    return "\n".join(lines)
