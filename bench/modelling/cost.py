"""Predicts how long each node of a step takes by itself, by roofline and by waves of programs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.modelling.assumptions import (
    CONVOLUTION_EDGE_US,
    ELEMENTS_OF_A_BLOCK,
    ELEMENTWISE_EFFICIENCY,
    KERNEL_FLOOR_US,
    L2_SHARE,
    LIBRARY_EFFICIENCY,
    MEMORY_LATENCY_US,
    MOST_PARTS_OF_A_SUM,
    OWN_MATRIX_EFFICIENCY,
    THREADS_OF_A_BLOCK,
    TILE_EFFICIENCY,
    GpuFacts,
)
from bench.modelling.compiled import ProgramNeeds
from bench.modelling.l2_cache import memory_bytes
from bench.modelling.nodes import Launch, MatrixProduct, StepNode
from cyclegan_fast.kernels.checking.specialisations import Specialisation


@dataclass(frozen=True)
class Waves:
    """Describes how the programs of a launch go through a GPU."""

    programs: int
    resident: int
    """programs that a multiprocessor holds at once"""
    places: int
    """programs that the GPU holds at once"""

    @property
    def count(self) -> int:
        return -(-self.programs // self.places)

    @property
    def last_programs(self) -> int:
        """Return the number of programs in the last wave."""
        return self.programs - (self.count - 1) * self.places

    @property
    def filled(self) -> float:
        """Return the share of the places of all waves that programs fill."""
        return self.programs / (self.count * self.places)

    @staticmethod
    def of(programs: int, resident: int, facts: GpuFacts) -> "Waves":
        return Waves(programs, resident, resident * facts.gpu.multiprocessors)


@dataclass(frozen=True)
class NodeCost:
    """Holds the time that a node takes by itself, without the gap in front of it, and what of the GPU it uses.

    Shares are of what the GPU could do in that time; together with another node's they may not exceed 1.
    """

    us: float
    memory_bytes: int
    """bytes that L2 doesn't hold; all of them move between L2 and the multiprocessors"""
    waves: Waves
    compute_share: float
    memory_share: float
    l2_share: float

    @property
    def shares(self) -> tuple[float, ...]:
        return self.compute_share, self.memory_share, self.l2_share, self.waves.filled


def costs(nodes: Sequence[StepNode], facts: GpuFacts, needs: Mapping[Specialisation, ProgramNeeds]) -> list[NodeCost]:
    """Return the cost of each node; `needs` has those of every variant that is launched."""
    moved = memory_bytes(nodes, L2_SHARE * facts.gpu.l2_bytes)
    return [_cost(node, from_memory, facts, needs) for node, from_memory in zip(nodes, moved, strict=True)]


def _cost(node: StepNode, from_memory: int, facts: GpuFacts, needs: Mapping[Specialisation, ProgramNeeds]) -> NodeCost:
    all_bytes = node.read_bytes + node.written_bytes
    moving_us = max(from_memory / facts.copy_gbps, all_bytes / facts.gpu.l2_gbps) * 1e-3
    if node.product:
        us, waves = product_us(node.product, facts)
        us = max(us, KERNEL_FLOOR_US + moving_us)
    elif node.launch:
        needed = needs[node.launch.variant]
        waves = Waves.of(node.launch.programs, needed.resident(facts), facts)
        us = kernel_us(waves, node.launch.tiles, moving_us, needed, facts, _products_of(node.launch, facts))
    else:
        blocks = -(-max(all_bytes // 4, 1) // ELEMENTS_OF_A_BLOCK)
        waves = Waves.of(blocks, facts.threads // THREADS_OF_A_BLOCK, facts)
        us = KERNEL_FLOOR_US + moving_us / ELEMENTWISE_EFFICIENCY
    return NodeCost(
        us,
        from_memory,
        waves,
        node.operations / (facts.matrix_tflops * 1e6) / us,
        from_memory / (facts.copy_gbps * 1e3) / us,
        all_bytes / (facts.gpu.l2_gbps * 1e3) / us,
    )


@dataclass(frozen=True)
class TileProducts:
    """Describes the matrix products of a program's tiles."""

    us: float = 0.0
    """of a tile, alone on a multiprocessor"""
    tiles_ahead: int = 0
    """that are loaded while others are multiplied"""
    longest: float = 1.0
    """tiles of the programs that have most of them, as a multiple of the others'"""


def _products_of(launch: Launch, facts: GpuFacts) -> TileProducts:
    of_a_multiprocessor = facts.matrix_tflops * OWN_MATRIX_EFFICIENCY * 1e6 / facts.gpu.multiprocessors
    return TileProducts(
        launch.matrix_operations_of_a_tile / of_a_multiprocessor, launch.tiles_ahead, launch.most_tiles / launch.tiles
    )


def kernel_us(
    waves: Waves,
    tiles: int,
    moving_us: float,
    needed: ProgramNeeds,
    facts: GpuFacts,
    products: TileProducts = TileProducts(),
) -> float:
    """Predict a kernel whose programs each load `tiles` tiles, one after the other, and compute in between.

    A wave takes as long as one program waits for its loads and computes, as a multiprocessor issues the instructions or
    multiplies the tiles of all programs that it holds, or as the bytes of the wave take to move, whichever is most. A
    program that loads tiles ahead waits for them while it computes. `moving_us` is the time that all bytes of the
    launch take. The last wave has fewer programs. Where there is one wave, it takes as long as the programs
    with most tiles; behind others these have begun early.
    """
    issue_us, multiply_us = needed.issue_us(tiles, facts), tiles * products.us
    waiting_us, computing_us = tiles * MEMORY_LATENCY_US, issue_us + multiply_us
    if products.tiles_ahead:
        alone_us = MEMORY_LATENCY_US + max(waiting_us / products.tiles_ahead, computing_us)
    else:
        alone_us = waiting_us + computing_us

    def wave_us(programs: int) -> float:
        held = -(-programs // facts.gpu.multiprocessors)
        first_us = alone_us * (products.longest if programs == waves.programs else 1.0)
        return max(first_us, held * issue_us, held * multiply_us, moving_us * programs / waves.programs)

    return KERNEL_FLOOR_US + (waves.count - 1) * wave_us(waves.places) + wave_us(waves.last_programs)


def product_us(product: MatrixProduct, facts: GpuFacts) -> tuple[float, Waves]:
    """Predict a convolution of the library: by the best tile of `TILE_EFFICIENCY`, one program on a multiprocessor.

    A weight's gradient, whose sum is long and whose result is small, may be summed up in parts, and either of its sides
    may be the tile's long one.
    """
    is_wgrad = product.which == "wgrad"
    tflops = facts.matrix_tflops * LIBRARY_EFFICIENCY[product.which]
    best_us, best_waves = math.inf, Waves(1, 1, facts.gpu.multiprocessors)
    for (rows, columns), of_tile in TILE_EFFICIENCY.items():
        for tile_rows, tile_columns in [(rows, columns), (columns, rows)][: 1 + is_wgrad]:
            tiles = product.groups * -(-product.rows // tile_rows) * -(-product.columns // tile_columns)
            for parts in range(1, MOST_PARTS_OF_A_SUM + 1 if is_wgrad else 2):
                waves = Waves.of(tiles * parts, 1, facts)
                operations = 2 * rows * columns * -(-product.depth // parts) * facts.gpu.multiprocessors
                us = KERNEL_FLOOR_US + CONVOLUTION_EDGE_US + waves.count * operations / (tflops * of_tile * 1e6)
                if parts > 1:  # each part writes its sums in float32, and they are read and added up
                    results = product.groups * product.rows * product.columns
                    us += parts * results * 8 / (facts.gpu.l2_gbps * 1e3)
                if us < best_us:
                    best_us, best_waves = us, waves
    return best_us, best_waves
