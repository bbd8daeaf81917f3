"""Describes the nodes of a step: what each kernel launch reads, writes and computes."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cyclegan_fast.kernels.checking.specialisations import Specialisation, recorded

NodeKind = Literal["convolution", "norm", "pad", "elementwise", "sum", "copy", "clear", "update"]
ConvolutionPass = Literal["forward", "dgrad", "wgrad"]


@dataclass(frozen=True)
class StorageRange:
    """Describes the part of a storage that a node touches, and how much of it moves."""

    storage: int
    first_byte: int
    end_byte: int
    moved_bytes: int

    def overlaps(self, other: "StorageRange") -> bool:
        """Return whether a byte may be in both."""
        is_same = self.storage == other.storage
        return is_same and self.first_byte < other.end_byte and other.first_byte < self.end_byte


@dataclass(frozen=True)
class MatrixProduct:
    """Describes a convolution as a library computes it, as a product of [rows, depth] and [depth, columns]."""

    which: ConvolutionPass
    rows: int
    columns: int
    depth: int


@dataclass(frozen=True)
class Launch:
    """Describes how a kernel of this project is launched, by what `launching.run_kernel` is given."""

    capability: int
    """of the GPU, 90 for Hopper"""
    kernel: Any
    grid: tuple[int, int, int]
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def programs(self) -> int:
        return math.prod(self.grid)

    @property
    def tiles(self) -> int:
        """Return how many tiles each program works through, one after the other."""
        for what in ("pixels", "elements"):
            if of_program := self.arguments.get(f"{what}_per_program"):
                return -(-int(of_program) // int(self.arguments[f"BLOCK_{what.upper()}"]))
        return 1

    @functools.cached_property
    def variant(self) -> Specialisation:
        """Return what is compiled for the launch; not in Triton's interpreter, which compiles nothing."""
        return recorded(self.capability, self.kernel, dict(self.arguments), dict(self.options))


@dataclass(frozen=True)
class StepNode:
    """Describes one kernel launch, or memory operation, of a step."""

    name: str
    kind: NodeKind
    network: str
    """such as "G_A"; empty where it belongs to no network"""
    layer: str
    """such as "blocks.3.conv1"; of a norm the convolution in front of it"""
    part: str
    """"forward", "backward" or "update" """
    phase: str
    """as the step calls it, such as "G forward" """
    reads: tuple[StorageRange, ...]
    writes: tuple[StorageRange, ...]
    operations: int = 0
    product: MatrixProduct | None = None
    launch: Launch | None = None
    depends_on: tuple[int, ...] = ()
    """the indices of the nodes that must have ended before"""

    @property
    def read_bytes(self) -> int:
        return sum(region.moved_bytes for region in self.reads)

    @property
    def written_bytes(self) -> int:
        return sum(region.moved_bytes for region in self.writes)
