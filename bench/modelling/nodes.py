"""Describes the nodes of a step: what each kernel launch reads, writes and computes."""

from dataclasses import dataclass, field
from typing import Literal

from cyclegan_fast.kernels.checking.specialisations import Specialisation

Kind = Literal["convolution", "norm", "pad", "elementwise", "sum", "copy", "clear", "update"]
ConvolutionPass = Literal["forward", "dgrad", "wgrad"]


@dataclass(frozen=True)
class Region:
    """Describes the part of a storage that a node touches, and how much of it moves."""

    storage: int
    first_byte: int
    end_byte: int
    moved_bytes: int

    def overlaps(self, other: "Region") -> bool:
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
    """Describes how a kernel of this project is launched."""

    variant: Specialisation
    grid: tuple[int, int, int]
    tiles: int
    """tiles that each program works through, one after the other"""

    @property
    def programs(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]


@dataclass(frozen=True)
class StepNode:
    """Describes one kernel launch, or memory operation, of a step."""

    name: str
    kind: Kind
    network: str
    """such as "G_A"; empty where it belongs to no network"""
    layer: str
    """such as "blocks.3.conv1"; of a norm the convolution in front of it"""
    part: str
    """"forward", "backward" or "update" """
    phase: str
    """as the step calls it, such as "G forward" """
    reads: tuple[Region, ...]
    writes: tuple[Region, ...]
    operations: int = 0
    product: MatrixProduct | None = None
    launch: Launch | None = None
    depends_on: tuple[int, ...] = field(default=())
    """the indices of the nodes that must have ended before"""

    @property
    def read_bytes(self) -> int:
        return sum(region.moved_bytes for region in self.reads)

    @property
    def written_bytes(self) -> int:
        return sum(region.moved_bytes for region in self.writes)
