"""Plans the launches of the fused instance norm by rule: which variant, which tile, and how planes are divided.

The rules follow from byte counts and from what fits into registers: nothing is measured here, and nothing launched.
`plans.norm_plan` asks a GPU's tuned table first.

How many programs run at once is not guessed. A plan says how many it wants on a multiprocessor, and the assembler is
given no more registers than they leave, on any architecture and by any version of the compiler. `kernels.aot` fails
where the shared memory of a compiled variant leaves room for fewer; `kernels.checking.waves` tells where its registers
leave so much room for more that a launch fills it badly.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from ..gpus import SECTOR_BYTES, Gpu, most_registers, resident_programs
from .division import Division, in_whole_waves, is_whole, reading_gbps

Variant = Literal["two_phase", "on_chip", "cooperative"]
NormPass = Literal["forward", "backward"]
"""the pass of the network that a norm runs in; this is not the direction of a translation"""
Shape = tuple[int, int, int, int]


def ceil_div(dividend: int, divisor: int) -> int:
    """Return the quotient, rounded up."""
    return -(-dividend // divisor)


def power_of_two(value: int) -> int:
    """Return the smallest power of two that is not smaller than the value."""
    return 1 << max(0, value - 1).bit_length()


@dataclass(frozen=True)
class NormPlan:
    """Says how the fused norm runs on one shape: the variant, the tile of a program, and how the work is divided.

    "on_chip" launches one program for each block of channels of each image, which reads the plane once and keeps it in
    registers. "cooperative" divides the plane among programs that run at the same time and exchange their statistics.
    "two_phase" launches two kernels, of which the second reads x again; it works for every shape.
    """

    variant: Variant
    block_pixels: int
    block_channels: int
    num_warps: int
    pixels_per_program: int
    """pixels of a program in phase 1 of "two_phase"; its last tile may be partial"""
    images_per_launch: int
    """number of images that both phases run over before the next ones follow, so that the second read comes from L2"""
    pixels_per_writer: int | None = None
    """pixels of a program in phase 2, of the result that it writes; None: as many as in phase 1"""
    residents: int = 1
    """programs that a multiprocessor holds at once: the assembler has the registers that they leave"""
    resident_writers: int = 1
    """the same in phase 2"""

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant must be one of {', '.join(get_args(Variant))}, got {self.variant!r}")
        for name in ("block_pixels", "block_channels", "num_warps"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} must be a power of two, got {value}")
        if self.num_warps < 2:
            # The lanes of one warp exchange sums in pairs, each fusing its own product: they differ in the last bit.
            raise ValueError(f"num_warps must be at least 2, got {self.num_warps}")
        for name in ("pixels_per_program", "images_per_launch", "residents", "resident_writers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.pixels_per_writer is not None and self.pixels_per_writer < 1:
            raise ValueError(f"pixels_per_writer must be positive, got {self.pixels_per_writer}")

    @functools.cached_property
    def options(self) -> dict[str, int]:
        """Triton's launch options. The assembler is told how many registers there are, else it spills to have fewer."""
        return {"num_warps": self.num_warps, "maxnreg": most_registers(self.num_warps, self.residents)}

    @functools.cached_property
    def writer_options(self) -> dict[str, int]:
        """Triton's launch options in phase 2."""
        return {"num_warps": self.num_warps, "maxnreg": most_registers(self.num_warps, self.resident_writers)}

    @property
    def writer_pixels(self) -> int:
        """Return the pixels of a program in phase 2."""
        return self.pixels_per_writer or self.pixels_per_program

    def programs(self, pixels: int) -> int:
        """Return how many programs share a plane of `pixels`, in two phases those of phase 1."""
        return ceil_div(pixels, self.pixels_per_program if self.variant == "two_phase" else self.block_pixels)

    def writers(self, pixels: int) -> int:
        """Return how many programs of phase 2 share a plane of a result of `pixels`."""
        return ceil_div(pixels, self.writer_pixels)

    def blocks(self, channels: int) -> int:
        """Return how many programs share the channels."""
        return ceil_div(channels, self.block_channels)

    def chunks(self, batch: int) -> Iterator[slice]:
        """Yield the slices of a batch that are launched one after the other."""
        for start in range(0, batch, self.images_per_launch):
            yield slice(start, min(start + self.images_per_launch, batch))


@dataclass(frozen=True)
class OnChip:
    """Describes a tile that holds a plane, or a program's share of it, in registers: [pixels, channels].

    A multiprocessor holds one such program at a time.
    """

    pixels: int
    channels: int
    num_warps: int


# These tiles compile without spills for every architecture, by pass and bytes of an element, smallest first.
ON_CHIP: Mapping[tuple[NormPass, int], tuple[OnChip, ...]] = {
    ("forward", 2): (OnChip(1024, 16, 8), OnChip(4096, 8, 16)),
    ("forward", 4): (OnChip(1024, 16, 8), OnChip(4096, 4, 16)),
    ("backward", 2): (OnChip(1024, 16, 16),),
    ("backward", 4): (OnChip(1024, 16, 16),),
}
# These are the tiles of programs that share a plane. Forward, the tile of 2048 pixels spills 176 bytes with a pad on
# sm_90, which only a measurement can weigh. Backward in float32, no tile with rows of 16 bytes compiles without spills.
COOPERATIVE: Mapping[tuple[NormPass, int], tuple[OnChip, ...]] = {
    ("forward", 2): (OnChip(1024, 16, 16), OnChip(2048, 16, 16)),
    ("forward", 4): (OnChip(1024, 16, 16), OnChip(2048, 16, 16)),
    ("backward", 2): (OnChip(512, 16, 8),),
    ("backward", 4): (),
}
TWO_PHASE_WARPS = 8
RESIDENTS = 2  # programs of phase 1 on a multiprocessor, with 8 warps each: at most 128 registers a thread
RESIDENT_WRITERS: Mapping[tuple[NormPass, int], int] = {  # of phase 2, by pass and bytes of an element
    ("forward", 2): 3,  # at most 80 registers
    ("forward", 4): 2,
    ("backward", 2): 2,
    ("backward", 4): 2,
}
MOST_IMAGES = 65535  # in one launch: the bound on the third dimension of CUDA's grid
MOST_SPLITS = 32  # the rule aims at fewer: every program of phase 2 reads the partials of all splits
LEAST_ELEMENTS = 8  # of a thread: dividing a plane further gains nothing
PARTS_PAY = 1.1  # the least ratio of times for which a batch is divided: the times are assumed, the launches are not
TENSORS_IN_FLIGHT: Mapping[NormPass, int] = {"forward": 3, "backward": 4}
TENSORS_READ_AGAIN: Mapping[NormPass, int] = {"forward": 1, "backward": 2}


def norm_rule(which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu) -> NormPlan:
    """Plan by rule: on chip where a program can hold a plane, because it reads x once; else in two phases.

    A number of channels that is no multiple of 16 is read element by element, which takes more registers than a plane
    leaves. A tile whose rows are half a sector moves each sector twice, more than two phases do: it pays only while it
    saves a launch, that is where all programs run at once. Planes on chip cannot be divided into whole waves: where a
    last one would leave much of the whole launch empty, two phases do it.
    """
    batch, channels, height, width = shape
    for tile in () if channels % 16 else ON_CHIP[which_pass, dtype.itemsize]:
        whole_sectors = tile.channels * dtype.itemsize >= SECTOR_BYTES
        programs = batch * ceil_div(channels, tile.channels)
        runs_well = is_whole(programs, gpu.multiprocessors) if whole_sectors else programs <= gpu.multiprocessors
        if height * width <= tile.pixels and runs_well:
            images = min(max(1, batch), MOST_IMAGES)
            return NormPlan("on_chip", tile.pixels, tile.channels, tile.num_warps, tile.pixels, images)
    return two_phase_rule(which_pass, shape, pad, dtype, gpu)


def two_phase_rule(which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu) -> NormPlan:
    """Plan two phases by rule: for every shape, and for an x whose statistics were gathered already.

    The batch is divided into equal launches where these are thought to take clearly less time than one: where what fits
    into the L2 cache is read from there again, faster than from memory by more than the further launches take.
    """
    batch, channels, height, width = shape
    tensor_bytes = channels * height * width * dtype.itemsize
    fitting = gpu.l2_bytes // max(1, tensor_bytes * TENSORS_IN_FLIGHT[which_pass])
    whole = ceil_div(batch, ceil_div(max(1, batch), MOST_IMAGES)) or 1
    parts = [images for images in range(min(fitting, whole - 1), 0, -1) if batch % images == 0]
    (plan, us), *in_parts = (
        _timed_two_phases(images, which_pass, shape, pad, dtype, gpu) for images in (whole, *parts)
    )
    fastest, fastest_us = min(in_parts, key=lambda pair: pair[1], default=(plan, us))
    return fastest if us >= PARTS_PAY * fastest_us else plan


def _timed_two_phases(
    images: int, which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu
) -> tuple[NormPlan, float]:
    """Plan two phases for so many images a launch, and return the plan and the microseconds it is thought to take."""
    batch, channels, _, _ = shape
    # Wide blocks read long rows; narrow blocks, down to a memory sector of 32 bytes, need fewer splits of a plane.
    for block_channels in (64, 32, 16):
        splits = ceil_div(RESIDENTS * gpu.multiprocessors, images * ceil_div(channels, block_channels))
        if splits <= MOST_SPLITS:
            break
    block_pixels = _two_phase_tile(which_pass, pad) // block_channels
    tile = NormPlan(
        *("two_phase", block_pixels, block_channels, TWO_PHASE_WARPS, block_pixels, images),
        residents=RESIDENTS,
        resident_writers=RESIDENT_WRITERS[which_pass, dtype.itemsize],
    )
    first, second = _phases(tile, which_pass, shape, pad, dtype, gpu)
    plan = replace(tile, pixels_per_program=first.pixels_per_program, pixels_per_writer=second.pixels_per_program)
    return plan, ceil_div(batch, images) * (first.us + second.us)


def divided(
    plan: NormPlan, which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu
) -> NormPlan | None:
    """Divide a shape anew by a plan that was made for a similar one: its variant, its tile, and its warps are kept.

    Return None where the tile cannot hold a plane, or its programs do not all run at once and wait for each other.
    """
    batch, channels, height, width = shape
    if plan.variant == "on_chip":
        holds_a_plane = plan.programs(height * width) == 1
        return replace(plan, images_per_launch=_in_equal_parts(batch, MOST_IMAGES)) if holds_a_plane else None
    if plan.variant == "cooperative":
        images = places(plan, gpu) // (plan.programs(height * width) * plan.blocks(channels))
        return replace(plan, images_per_launch=_in_equal_parts(batch, images)) if images else None
    plan = replace(plan, images_per_launch=_in_equal_parts(batch, plan.images_per_launch))
    first, second = _phases(plan, which_pass, shape, pad, dtype, gpu)
    return replace(plan, pixels_per_program=first.pixels_per_program, pixels_per_writer=second.pixels_per_program)


def _phases(
    plan: NormPlan, which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu
) -> tuple[Division, Division]:
    """Divide the planes of a launch of `plan.images_per_launch` images in both phases, each by its own pixels."""
    _, channels, height, width = shape
    planes = plan.images_per_launch * plan.blocks(channels)
    least = max(1, LEAST_ELEMENTS * 32 * plan.num_warps // plan.block_channels)
    in_flight = math.prod((plan.images_per_launch, *shape[1:])) * dtype.itemsize * TENSORS_IN_FLIGHT[which_pass]
    # Microseconds for a pixel of one tensor, by a program that shares the memory's speed with all others.
    read, read_again = (
        plan.block_channels * dtype.itemsize * gpu.multiprocessors / (1e3 * gbps)
        for gbps in (gpu.memory_gbps, reading_gbps(gpu, in_flight))
    )
    tensors = TENSORS_READ_AGAIN[which_pass]
    first = in_whole_waves(
        height * width, least, planes, plan.residents * gpu.multiprocessors, plan.residents * tensors * read
    )
    second = in_whole_waves(
        (height + 2 * pad) * (width + 2 * pad) if which_pass == "forward" else height * width,
        least,
        planes,
        plan.resident_writers * gpu.multiprocessors,
        plan.resident_writers * (tensors * read_again + read),
    )
    return first, second


def _in_equal_parts(batch: int, most: int) -> int:
    """Return how many images a launch has if a batch is divided into as few equal launches of at most `most` as go."""
    return ceil_div(max(1, batch), ceil_div(max(1, batch), most))


def places(plan: NormPlan, gpu: Gpu) -> int:
    """Return how many programs of a plan, in two phases those of phase 1, are sure to run at once."""
    return gpu.multiprocessors * resident_programs(gpu.capability, plan.num_warps, plan.options["maxnreg"])


def cooperative_plan(which_pass: NormPass, shape: Shape, dtype: torch.dtype, gpu: Gpu) -> NormPlan | None:
    """Plan programs that share a plane and keep x on chip, or return None where they would not all be resident at once.

    No rule asks for this plan, only a tuned table. One program fills a multiprocessor's registers.
    """
    _, channels, height, width = shape
    for tile in COOPERATIVE[which_pass, dtype.itemsize]:
        plan = NormPlan("cooperative", tile.pixels, tile.channels, tile.num_warps, tile.pixels, 1)
        if plan.programs(height * width) * plan.blocks(channels) <= places(plan, gpu):
            return plan
    return None


def _two_phase_tile(which_pass: NormPass, pad: int) -> int:
    """Return the elements of a tile.

    A thread has 32 forward, 16 backward, and 8 where backward folds a pad, which takes 3 to 9 loads for each.
    """
    return 8192 if which_pass == "forward" else 2048 if pad else 4096
