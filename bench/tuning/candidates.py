"""Lists plans worth measuring on a GPU for one shape, the most promising first; `bench.tune` measures them.

A plan is bounded by what a kernel keeps in registers and in shared memory. A plan that spills or does not fit all the
same is found by running it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TypeVar

import torch

from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.aot import SHARED_BYTES
from cyclegan_fast.kernels.gpus import Gpu
from cyclegan_fast.kernels.norm.planning import (
    COOPERATIVE,
    MOST_IMAGES,
    ON_CHIP,
    TENSORS_IN_FLIGHT,
    divided,
    places,
    power_of_two,
)
from cyclegan_fast.kernels.plans import (
    ConvPlan,
    EdgePlan,
    NormPass as Direction,
    NormPlan,
    Shape,
    ThinPlan,
    ceil_div,
)

AnyPlan = TypeVar("AnyPlan", bound=NormPlan | ConvPlan | ThinPlan)

# Elements of a tile and warps of a program. A pad is folded by 3 to 9 loads: backward has smaller tiles.
TWO_PHASE_TILES = {
    "forward": ((8192, 8), (4096, 8), (8192, 16), (4096, 4), (4096, 16), (2048, 4), (2048, 8)),
    "backward": ((4096, 8), (2048, 8), (4096, 16), (2048, 4), (8192, 16), (1024, 4)),
}
TWO_PHASE_CHANNELS = (64, 32, 16)
_RESIDENT_WARPS = 16  # of a multiprocessor, whose threads then have 128 registers each
_RESIDENTS = (1, 3, 4)  # programs of the rule's tile on a multiprocessor, in both phases
ON_CHIP_CHANNELS = (8, 16, 4, 32, 64)
WARPS = (16, 8, 4)
FEWEST_ROW_BYTES = 16  # in a row of a tile on chip: one load of a thread
# Elements that a thread keeps: x forward; xhat and g backward. Beside them it needs registers for addresses and sums.
MOST_KEPT = {"forward": 128, "backward": 64}
FEWEST_KEPT = 8
COOPERATIVE_PIXELS = (2048, 1024, 512, 256)
COOPERATIVE_CHANNELS = (16, 32, 64)
COOPERATIVE_WARPS = (16, 8)
COOPERATIVE_KEPT = {"forward": (64, 32), "backward": (32, 16)}

CONV_TILES = ((128, 128), (64, 128), (128, 64), (64, 64), (128, 256), (256, 128), (64, 256))  # pixels of y, channels
CONV_STEP_BYTES = (128, 64)  # of a pixel's channels in a step; the second one where the first does not fit
CONV_STAGES = (4, 3)
EDGE_TILES = ((64, 64), (64, 32), (32, 64), (32, 32), (16, 64))  # places next to an edge, channels of x
CONV_SUMS = (32, 64, 128)  # sums that a thread keeps, float32
THIN_FORWARD_PIXELS, THIN_WGRAD_PIXELS = (64, 32), (32, 16)
SMALLEST_DOT = 16  # elements, each side of a product in Triton


def norm_candidates(direction: Direction, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu) -> list[NormPlan]:
    """Return each plan of a norm once, the built-in one first.

    Each is divided for the shape as a tuned table's plans are when they are read: what is measured is what will run.
    """
    plans = [
        launch.norm_rule(direction, shape, pad, dtype, gpu),
        *_on_chip(direction, shape, dtype),
        *_cooperative(direction, shape, dtype, gpu),
        *_two_phase(direction, shape, pad, dtype, gpu),
    ]
    found = (divided(plan, direction, shape, pad, dtype, gpu) for plan in plans)
    return list(dict.fromkeys(plan for plan in found if plan is not None))


def _on_chip(direction: Direction, shape: Shape, dtype: torch.dtype) -> Iterator[NormPlan]:
    """Yield plans with a plane in a program: the tiles of the rule, then all that hold it and leave registers."""
    batch, channels, height, width = shape
    images = min(max(1, batch), MOST_IMAGES)
    for tile in ON_CHIP[direction, dtype.itemsize]:
        if height * width <= tile.pixels:
            yield NormPlan("on_chip", tile.pixels, tile.channels, tile.num_warps, tile.pixels, images)
    pixels = power_of_two(height * width)
    for block_channels in ON_CHIP_CHANNELS:
        if block_channels > power_of_two(channels) or block_channels * dtype.itemsize < FEWEST_ROW_BYTES:
            continue
        for warps in WARPS:
            if FEWEST_KEPT <= pixels * block_channels / (32 * warps) <= MOST_KEPT[direction]:
                yield NormPlan("on_chip", pixels, block_channels, warps, pixels, images)


def _cooperative(direction: Direction, shape: Shape, dtype: torch.dtype, gpu: Gpu) -> Iterator[NormPlan]:
    """Yield plans whose programs share planes, of as many images as are resident at once: the rule's tile first."""
    batch, channels, height, width = shape
    tiles = [(tile.pixels, tile.channels, tile.num_warps) for tile in COOPERATIVE[direction, dtype.itemsize]]
    tiles += [
        (pixels, block_channels, warps)
        for warps in COOPERATIVE_WARPS
        for pixels in COOPERATIVE_PIXELS
        for block_channels in COOPERATIVE_CHANNELS
        if pixels * block_channels / (32 * warps) in COOPERATIVE_KEPT[direction]
        and block_channels <= power_of_two(channels)
    ]
    for pixels, block_channels, warps in tiles:
        plan = NormPlan("cooperative", pixels, block_channels, warps, pixels, 1)
        programs = plan.programs(height * width)
        images = places(plan, gpu) // (programs * plan.blocks(channels))
        if images and programs > 1:
            yield replace(plan, images_per_launch=min(images, max(1, batch)))


def _two_phase(direction: Direction, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu) -> Iterator[NormPlan]:
    """Yield the rule's plan, plans that differ from it in one number, and other tiles and warps."""
    rule = launch.two_phase_rule(direction, shape, pad, dtype, gpu)
    yield rule
    for images in _chunks(direction, shape, dtype, gpu):
        yield replace(rule, images_per_launch=images)
    for residents in _RESIDENTS:
        yield replace(rule, residents=residents, resident_writers=residents)
    for elements, warps in TWO_PHASE_TILES[direction]:
        residents = _RESIDENT_WARPS // warps
        for block_channels in TWO_PHASE_CHANNELS:
            if block_channels <= max(16, power_of_two(shape[1])):
                yield replace(
                    rule,
                    block_pixels=min(elements // block_channels, power_of_two(shape[2] * shape[3])),
                    block_channels=block_channels,
                    num_warps=warps,
                    residents=residents,
                    resident_writers=residents,
                )


def _chunks(direction: Direction, shape: Shape, dtype: torch.dtype, gpu: Gpu) -> Iterator[int]:
    """Yield numbers of images of a launch: the whole batch, as many as the L2 cache holds, half of these."""
    batch = max(1, shape[0])
    yield min(batch, MOST_IMAGES)
    image_bytes = shape[1] * shape[2] * shape[3] * dtype.itemsize * TENSORS_IN_FLIGHT[direction]
    fitting = gpu.l2_bytes // max(1, image_bytes)
    for images in (fitting, fitting // 2):
        if 0 < images < batch:
            yield ceil_div(batch, ceil_div(batch, images))  # even chunks


def conv_candidates(shape: Shape, outputs: int, dtype: torch.dtype, gpu: Gpu) -> list[ConvPlan]:
    """Return each plan of a convolution once for x of `shape`, the built-in one first."""
    shared_bytes = SHARED_BYTES[max((known for known in SHARED_BYTES if known <= gpu.capability), default=86)]
    plans = [launch.conv_rule(dtype, gpu)]
    for pixels, block_outputs in CONV_TILES:
        if block_outputs > max(SMALLEST_DOT, power_of_two(outputs)):
            continue
        for step_bytes in CONV_STEP_BYTES:
            block_channels = max(SMALLEST_DOT, min(step_bytes // dtype.itemsize, power_of_two(shape[1])))
            stage_bytes = (pixels + block_outputs) * block_channels * dtype.itemsize
            stages = [each for each in CONV_STAGES if each * stage_bytes <= shared_bytes]
            if stages:
                break
        plans += [
            ConvPlan(pixels, block_outputs, block_channels, warps, each)
            for warps in (8, 4)
            if pixels * block_outputs / (32 * warps) in CONV_SUMS
            for each in stages
        ]
    return list(dict.fromkeys(plans))


def edge_candidates(shape: Shape, dtype: torch.dtype) -> list[EdgePlan]:
    """Return each plan of a gradient's edges once for x of `shape`, the one by rule first."""
    most = max(SMALLEST_DOT, power_of_two(shape[1]))  # channels
    plans = [launch.edge_rule(dtype, shape[0])]
    for pixels, outputs in EDGE_TILES:
        for block_channels in (64, 32):
            if outputs <= most and block_channels <= most and pixels * outputs * dtype.itemsize <= 8192:
                plans += [EdgePlan(pixels, outputs, block_channels, 4, stages) for stages in CONV_STAGES]
    return list(dict.fromkeys(plans))


def thin_candidates(gpu: Gpu) -> list[ThinPlan]:
    """Return each plan of a convolution from or to a few channels once, the built-in one first."""
    plans = [ThinPlan(forward, wgrad) for forward in THIN_FORWARD_PIXELS for wgrad in THIN_WGRAD_PIXELS]
    return list(dict.fromkeys([launch.thin_rule(gpu), *plans]))


Tile = tuple[object, ...]


def tile_of(plan: NormPlan | ConvPlan | ThinPlan | None) -> Tile:
    """Return what a plan has in common with those for another batch: all but how the work is divided."""
    if isinstance(plan, NormPlan):
        return (
            *(plan.variant, plan.block_pixels, plan.block_channels, plan.num_warps),
            *(plan.residents, plan.resident_writers),
        )
    return (plan,)


def most_promising(plans: Sequence[AnyPlan], most: int, fastest: Sequence[Tile]) -> list[AnyPlan]:
    """Return at most so many plans: those with the tiles that were fastest for another batch, then of each variant.

    Variants take turns, each in the order of its plans: which of them wins is what nobody knows beforehand.
    """
    by_tile: dict[Tile, AnyPlan] = {}
    by_variant: dict[object, list[AnyPlan]] = {}
    for plan in plans:
        by_tile.setdefault(tile_of(plan), plan)
        by_variant.setdefault(tile_of(plan)[0] if isinstance(plan, NormPlan) else None, []).append(plan)
    known = [by_tile[tile] for tile in fastest if tile in by_tile]
    in_turn = [plan for row in zip_longest(*by_variant.values()) for plan in row if plan is not None]
    return list(dict.fromkeys([*known, *in_turn]))[:most]


def plan_text(plan: NormPlan | ConvPlan | ThinPlan) -> str:
    """Return every number of a plan: "two_phase 256x16, 8 warps, 1024 and 700 pixels a program, ..."."""
    if isinstance(plan, ThinPlan):
        return f"thin, {plan.forward_pixels} pixels forward and {plan.wgrad_pixels} in sums"
    if isinstance(plan, ConvPlan):
        tile = f"{plan.block_pixels}x{plan.block_outputs}x{plan.block_channels}"
        what = "edges" if isinstance(plan, EdgePlan) else "conv"
        return f"{what} {tile}, {plan.num_warps} warps, {plan.num_stages} stages"
    words = [f"{plan.variant} {plan.block_pixels}x{plan.block_channels}", f"{plan.num_warps} warps"]
    if plan.variant == "two_phase":
        words.append(f"{plan.pixels_per_program} and {plan.writer_pixels} pixels a program")
        words.append(f"{plan.residents} and {plan.resident_writers} programs a multiprocessor")
    return ", ".join([*words, f"{plan.images_per_launch} images a launch"])
