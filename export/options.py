"""What both exporting commands are told: which generator, in which precision, to where."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.source import Directions, Source

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class ExportOptions:
    """Which generator is exported, and how its graph computes."""

    checkpoint: Path | None = None
    """a run's folder or .pt file, latest_net_G.pth of the original, or .safetensors; by default the newest of runs/"""
    direction: Directions = "both"
    """a2b makes images like those of trainA into those of trainB, b2a the reverse; bare weights know one way only"""
    precision: Precision = "float16"
    """of convolutions; instance norms, sums and tanh are computed in float32 in any case"""
    uint8_io: bool = False
    """take and give uint8 [batch, height, width, 3], as images are decoded, instead of float32 in [-1, 1]"""
    out: Path = Path("engines")
    """folder for what is written; files of the same name are replaced, whole or not at all"""

    def name_of(self, source: Source) -> str:
        """What a generator's files are called, without the ending."""
        return f"{source.name}-{self.precision}{'-uint8' if self.uint8_io else ''}"
