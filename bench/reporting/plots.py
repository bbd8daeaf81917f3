"""Says which plots a device has, and writes them: `bench/results/plots/<device>-<what>.png`; drawings.py draws them.

A picture carries a digest of the rows that it shows, as PNG text. By it `--check` sees what is out of date without
matplotlib, and whatever its version: pixels differ between versions.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.measure.limits import Limits
from bench.measure.records import Comparison
from bench.reporting.views import growths, in_lowest_precision
from cyclegan_fast.kernels.gpus import file_name
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWING = 1
"""Counted up when pictures of the same rows change, so that they are drawn anew."""
DIGEST = "Rows-SHA256"
"""The keyword of the digest in a PNG file."""
DPI = 110
_PALETTE = 256
"""The number of colours kept, which halves the file."""


@dataclass(frozen=True)
class Plot:
    """Draws and writes a picture of some comparisons of one device."""

    what: Literal["operators", "step", "scaling"]
    caption: str
    device: str
    limits: Limits
    comparisons: list[Comparison]

    @property
    def file(self) -> str:
        return f"{file_name(self.device)}-{self.what}.png"

    @property
    def digest(self) -> str:
        """Return a digest of everything that is drawn: only the roofline shows the limits."""
        rows = [_drawn(each) for each in self.comparisons]
        limits = dataclasses.asdict(self.limits) if self.what == "operators" else None
        content = [DRAWING, self.what, self.device, limits, rows]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def is_drawn_in(self, path: Path) -> bool:
        """Return whether the file there shows these rows: False also for a file that is missing or no picture."""
        try:
            with Image.open(path) as image:
                return bool(image.info.get(DIGEST) == self.digest)
        except OSError:
            return False

    def draw(self) -> "Figure":
        """Return the figure; needs matplotlib."""
        from bench.reporting import drawings

        return {"operators": drawings.operators, "step": drawings.step, "scaling": drawings.scaling}[self.what](
            self.device, self.limits, self.comparisons
        )

    def write(self, path: Path) -> None:
        """Draw the picture and write it as a PNG with a palette. Raises UserError where matplotlib is missing."""
        try:
            import matplotlib as mpl
        except ImportError as error:
            raise UserError("plots are drawn by matplotlib, which is not installed: pip install matplotlib") from error
        drawn, small, info = io.BytesIO(), io.BytesIO(), PngInfo()
        with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
            self.draw().savefig(drawn, format="png", dpi=DPI)
        info.add_text(DIGEST, self.digest)
        with Image.open(drawn) as image:
            image.convert("RGB").quantize(_PALETTE).save(small, format="PNG", optimize=True, pnginfo=info)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, small.getvalue())


def _drawn(comparison: Comparison) -> dict[str, Any]:
    """Return what pictures show of a comparison: neither the times of kernels nor who was absent."""
    row = dataclasses.asdict(comparison)
    del row["absent"]
    for timing in row["contenders"].values():
        del timing["kernels_ms"]
    return row


def plots_of(device: str, limits: Limits, comparisons: Sequence[Comparison]) -> list[Plot]:
    """Return the plots that there is data for, all in the lowest precision measured.

    Args:
        device: The device's name.
        limits: The limits that the operators were measured under.
        comparisons: The newest comparison of each key, of any subject.
    """

    def of(subject: str) -> list[Comparison]:
        return in_lowest_precision([each for each in comparisons if each.subject == subject])

    bounded = [each for each in of("operators") if each.limit_ms is not None and each.moved_bytes and each.operations]
    plots = [
        Plot("operators", f"Roofline of the operators, {device}", device, limits, bounded),
        Plot("step", f"Time of a training step, {device}", device, limits, of("step")),
        Plot("scaling", f"Growth of time and memory, {device}", device, limits, of("scaling")),
    ]
    return [plot for plot in plots if plot.comparisons and (plot.what != "scaling" or growths(plot.comparisons))]
