"""Times, waves and cache hits of known nodes are those that one computes by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.modelling.assumptions import (
    CONVOLUTION_EDGE_US,
    GPU_FACTS,
    KERNEL_FLOOR_US,
    LIBRARY_EFFICIENCY,
    MEMORY_LATENCY_US,
    TILE_EFFICIENCY,
)
from bench.modelling.compiled import ProgramNeeds, count_instructions
from bench.modelling.cost import TileProducts, Waves, costs, kernel_us, product_us
from bench.modelling.kernel_operands import operands_of, operations_of
from bench.modelling.l2_cache import memory_bytes
from bench.modelling.nodes import Launch, MatrixProduct, StepNode, StorageRange
from cyclegan_fast.kernels.checking.runs import run_thin
from cyclegan_fast.kernels.gpus import planning_for
from cyclegan_fast.kernels.launching import Grid, launching_with

H200 = GPU_FACTS["h200"]
NEEDS = ProgramNeeds(warps=8, registers=128, shared_bytes=512, instructions=700, instructions_of_a_tile=350)


@pytest.mark.parametrize(
    ("changes", "resident"),
    [
        ({}, 2),  # 65,536 registers for 256 threads of 128
        ({"registers": 120}, 2),
        ({"registers": 64, "warps": 4}, 8),
        ({"registers": 168, "warps": 4}, 3),  # a quarter of a multiprocessor has room for 3 warps of 168
        ({"registers": 16}, 8),  # 2048 threads
        ({"registers": 16, "warps": 1}, 32),  # programs
        ({"registers": 16, "warps": 1, "shared_bytes": 100 << 10}, 2),
        ({"shared_bytes": 228 << 10}, 0),  # 1 KiB of each program is the system's
    ],
)
def test_registers_threads_and_shared_memory_bound_what_is_resident(changes: dict[str, int], resident: int) -> None:
    assert replace(NEEDS, **changes).resident(H200) == resident


def test_waves_of_a_known_grid() -> None:
    waves = Waves.of(272, 2, H200)
    assert (waves.places, waves.count, waves.last_programs) == (264, 2, 8)
    assert waves.filled == 272 / 528
    assert (Waves.of(264, 2, H200).count, Waves.of(264, 2, H200).last_programs) == (1, 264)


def test_a_last_wave_of_a_few_programs_costs_the_waiting_of_one_of_them() -> None:
    issue_us = 8 * (700 + 4 * 350) / (4 * 1750)
    assert NEEDS.issue_us(4, H200) == pytest.approx(issue_us)
    alone_us = 4 * MEMORY_LATENCY_US + issue_us
    moving_us = 20.0
    assert kernel_us(Waves.of(264, 2, H200), 4, moving_us, NEEDS, H200) == pytest.approx(KERNEL_FLOOR_US + moving_us)
    of_two = KERNEL_FLOOR_US + moving_us * 264 / 272 + alone_us
    assert kernel_us(Waves.of(272, 2, H200), 4, moving_us, NEEDS, H200) == pytest.approx(of_two)
    # Where little moves, the instructions of the two programs on a multiprocessor remain.
    issued_us = KERNEL_FLOOR_US + max(alone_us, 2 * issue_us)
    assert kernel_us(Waves.of(264, 2, H200), 4, 0.0, NEEDS, H200) == pytest.approx(issued_us)


def test_a_program_that_loads_ahead_waits_while_it_multiplies() -> None:
    products = TileProducts(us=0.9, tiles_ahead=2)
    issue_us, multiply_us = NEEDS.issue_us(4, H200), 4 * 0.9
    alone_us = MEMORY_LATENCY_US + issue_us + multiply_us  # more than it waits for two pairs of tiles
    assert kernel_us(Waves.of(132, 2, H200), 4, 0.0, NEEDS, H200, products) == pytest.approx(KERNEL_FLOOR_US + alone_us)
    # Two programs on a multiprocessor multiply one after the other.
    of_two = KERNEL_FLOOR_US + max(alone_us, 2 * multiply_us)
    assert kernel_us(Waves.of(264, 2, H200), 4, 0.0, NEEDS, H200, products) == pytest.approx(of_two)


def test_a_block_s_convolution_of_one_image_takes_the_tile_that_is_best_on_132_multiprocessors() -> None:
    """Expects 128 tiles of 128x64, slower ones than the 64 of 128x128, which leave half of the GPU idle."""
    us, waves = product_us(MatrixProduct("forward", 64 * 64, 256, 256 * 9), H200)
    assert (waves.programs, waves.count) == (128, 1)
    operations = 2 * 128 * 64 * 2304 * 132
    speed = 790e6 * LIBRARY_EFFICIENCY["forward"] * TILE_EFFICIENCY[128, 64]
    assert us == pytest.approx(KERNEL_FLOOR_US + CONVOLUTION_EDGE_US + operations / speed)


def test_two_groups_fill_the_multiprocessors_that_one_leaves_idle() -> None:
    """Expects 2 x 64 tiles of 128x128, which one group of 64 has no use for (the test above)."""
    us, waves = product_us(MatrixProduct("forward", 64 * 64, 256, 256 * 9, groups=2), H200)
    assert (waves.programs, waves.count) == (128, 1)
    operations = 2 * 128 * 128 * 2304 * 132
    speed = 790e6 * LIBRARY_EFFICIENCY["forward"] * TILE_EFFICIENCY[128, 128]
    assert us == pytest.approx(KERNEL_FLOOR_US + CONVOLUTION_EDGE_US + operations / speed)


def test_parts_of_the_sums_of_two_groups_move_twice_the_bytes() -> None:
    """Expects 4 x 9 x 2 tiles and no parts of a sum, or all of them in 3 parts with fewer of the pixels each."""
    one, waves_of_one = product_us(MatrixProduct("wgrad", 256, 2304, 4096), H200)
    both, waves = product_us(MatrixProduct("wgrad", 256, 2304, 4096, groups=2), H200)
    parts_of_one, parts = 7, 3
    assert (waves_of_one.programs, waves.programs) == (18 * parts_of_one, 36 * parts)
    speed = 790e6 * LIBRARY_EFFICIENCY["wgrad"]

    def us(of_parts: int, groups: int) -> float:
        operations = 2 * 256 * 128 * -(-4096 // of_parts) * 132
        added = of_parts * groups * 256 * 2304 * 8 / 6600e3
        return KERNEL_FLOOR_US + CONVOLUTION_EDGE_US + operations / speed + added

    assert one == pytest.approx(us(parts_of_one, 1))
    assert both == pytest.approx(us(parts, 2))


def test_a_weight_s_gradient_is_summed_up_in_parts_and_a_result_is_not() -> None:
    _, forward = product_us(MatrixProduct("forward", 256, 2304, 4096), H200)
    _, wgrad = product_us(MatrixProduct("wgrad", 256, 2304, 4096), H200)
    assert forward.programs < wgrad.programs <= 132


def node(*reads: tuple[int, int], writes: tuple[tuple[int, int], ...] = ()) -> StepNode:
    """Return a node that touches storages, each by number and bytes."""
    made = [tuple(StorageRange(storage, 0, size, size) for storage, size in regions) for regions in (reads, writes)]
    return StepNode("x", "elementwise", "", "", "forward", "", made[0], made[1])


def test_what_was_touched_lately_is_read_from_the_cache() -> None:
    nodes = [
        node(writes=((1, 60),)),
        node((1, 60), writes=((2, 30),)),  # 1 is there
        node((1, 60)),  # 90 bytes were touched since
        node((3, 20)),
        node((2, 30)),  # 2, 1 and 3 are more than fit
        node((2, 30)),
    ]
    assert list(memory_bytes(nodes, 100)) == [60, 30, 0, 20, 30, 0]


def test_an_elementwise_node_moves_its_bytes_at_the_speed_of_copies() -> None:
    size = 1 << 30
    (cost,) = costs([node((1, size), writes=((2, size),))], H200, {})
    assert cost.memory_bytes == 2 * size
    assert cost.us == pytest.approx(KERNEL_FLOOR_US + 2 * size / 4300e3 / 0.9)
    assert cost.memory_share == pytest.approx(0.9, abs=0.01)


def test_instructions_are_counted_once_and_for_each_tile() -> None:
    machine_code = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0020*/              @!P0 BRA `(.L_x_0) ;
.L_x_1:
        /*0030*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0034*/              @!P3 BRA P4, `(.L_x_3) ;
        /*0038*/                   LDG.E.128 R8, desc[UR4][R6.64] ;
        /*003c*/                   FADD R4, R4, R8 ;
.L_x_3:
        /*0040*/                   FADD R4, R4, R5 ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/               @P0 EXIT ;
        /*0070*/                   STG.E desc[UR4][R2.64], R4 ;
        /*0080*/                   EXIT ;
.L_x_2:
        /*0090*/                   BRA `(.L_x_2);
"""
    assert count_instructions(machine_code) == (6, 4)


def test_the_loop_over_tiles_is_the_inner_one_of_two_that_load() -> None:
    machine_code = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E.U16 R2, desc[UR4][R2.64] ;
.L_x_1:
        /*0030*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0040*/                   FADD R4, R4, R5 ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/              @!P2 BRA `(.L_x_0) ;
        /*0080*/                   EXIT ;
"""
    assert count_instructions(machine_code) == (4, 3)


def test_thin_convolutions_compute_what_one_counts_by_hand() -> None:
    """Expects the operations that count, and those of a tile: 7 products of [64, 64] and [64, 32]."""
    launches: list[Launch] = []

    def record(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        launches.append(Launch(90, kernel, grid, arguments, options))

    with planning_for(H200.gpu), launching_with(record):
        run_thin(2, torch.bfloat16)
    counted = [operations_of(launch.kernel, dict(launch.arguments)) for launch in launches]
    each = 2 * 2 * 256**2 * 64 * 3 * 49
    assert counted == [each, each, 0, each, each, 0]
    assert launches[0].matrix_operations_of_a_tile == 2 * 7 * 64 * 64 * 32
    assert launches[1].matrix_operations_of_a_tile == 2 * 7 * 32 * 64 * 32
    assert [launch.tiles_ahead for launch in launches] == [2, 1, 0, 2, 1, 0]
    assert launches[0].tiles == int(launches[0].arguments["rows_per_program"]) + 6
    kinds = [operands_of(launch.kernel, dict(launch.arguments))[0] for launch in launches]
    assert kinds == ["convolution"] * 6
