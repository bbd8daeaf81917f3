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
    """Describes a convolution as a library computes it, as a product of [rows, depth] and [depth, columns].

    One with groups is as many such products, whose tiles a single launch works through.
    """

    which: ConvolutionPass
    rows: int
    columns: int
    depth: int
    groups: int = 1


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
        """Return how many tiles each program works through, one after the other.

        A tile of a thin convolution is a row of a strip; what begins a unit of its rows counts as one more.
        """
        of = self.arguments
        if "rows_per_program" in of:
            return int(of["rows_per_program"]) + int(of["KERNEL"]) - 1
        if "units_per_program" in of:
            return int(of["units_per_program"]) * (int(of["rows_per_unit"]) + 1)
        if self.kernel.fn.__name__ == "conv2d_3x3_edge_gradients":  # three terms, see `most_tiles`
            return 3 * -(-int(of["outputs"]) // int(of["BLOCK_CHANNELS"]))
        if "parts" in of:
            return -(-int(of["parts"]) // int(of["BLOCK_PARTS"]))
        for what in ("pixels", "elements"):
            if of_program := of.get(f"{what}_per_program"):
                return -(-int(of_program) // int(of[f"BLOCK_{what.upper()}"]))
        return 1

    @property
    def most_tiles(self) -> int:
        """Return how many tiles the programs have that begin first and have most of them."""
        if self.kernel.fn.__name__ == "conv2d_3x3_edge_gradients":  # in a corner there are seven terms
            return self.tiles // 3 * 7
        return self.tiles

    @property
    def matrix_operations_of_a_tile(self) -> int:
        """Return the operations of the matrix products of a tile, those of unused columns too."""
        of = self.arguments
        if self.kernel.fn.__name__ == "conv2d_3x3_edge_gradients":
            return 2 * int(of["BLOCK_PIXELS"]) * int(of["BLOCK_CHANNELS"]) * int(of["BLOCK_OUTPUTS"])
        if "COLUMNS" not in of or "BLOCK_PIXELS" not in of:
            return 0
        return 2 * int(of["KERNEL"]) * int(of["BLOCK_PIXELS"]) * int(of["BLOCK_CHANNELS"]) * int(of["COLUMNS"])

    @property
    def tiles_ahead(self) -> int:
        """Return how many tiles a program loads before it needs them; 0 where it loads, waits and then computes."""
        if not self.matrix_operations_of_a_tile:
            return 0
        is_pipelined = "rows_per_program" in self.arguments or self.kernel.fn.__name__ == "conv2d_3x3_edge_gradients"
        return int(self.options["num_stages"]) - 1 if is_pipelined else 1

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
    stream: int = 0
    """0 for the current one, 1 for the one beside it"""
    waits_for: tuple[int, ...] = ()
    """the indices of the nodes that its stream waits for in front of it, on either stream"""

    @property
    def read_bytes(self) -> int:
        return sum(region.moved_bytes for region in self.reads)

    @property
    def written_bytes(self) -> int:
        return sum(region.moved_bytes for region in self.writes)
