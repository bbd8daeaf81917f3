"""Decides with which variant, tile shape and grid a kernel runs: a pure function of shape, dtype and GPU.

Nothing is autotuned at run time, and nothing is launched here (see `launching`). Plans that were measured on a GPU
stand in `kernels/tuned/<gpu>.json`, which `bench.tune` writes (there is none yet), and override the rules below, which
follow from byte counts and from what fits into registers. Image sides are run-time arguments of every kernel: a new
size compiles nothing, unless it moves a plane over one of the bounds of `ON_CHIP`, or a batch over what runs at once
there.
"""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch

from .gpus import MOST_REGISTERS, REGISTERS_OF_A_MULTIPROCESSOR, SECTOR_BYTES, Gpu, file_name

Variant = Literal["two_phase", "on_chip", "cooperative"]
NormPass = Literal["forward", "backward"]
"""the pass of the network that a norm runs in; this is not the direction of a translation"""
Shape = tuple[int, int, int, int]

TUNED = Path(__file__).parent / "tuned"

# These arguments change with image and batch size. Triton would compile again where their divisibility by 16 changes.
RUN_TIME_SIZES = [
    "height",
    "width",
    "splits",
    "pixels_per_program",
    "x_image_stride",
    "x_row_stride",
    "x_channel_stride",
    "residual_image_stride",
    "residual_row_stride",
    "residual_channel_stride",
    "dy_image_stride",
    "dy_row_stride",
    "dy_channel_stride",
    "skip_image_stride",
    "skip_row_stride",
    "skip_channel_stride",
]


def ceil_div(dividend: int, divisor: int) -> int:
    """Return the quotient, rounded up."""
    return -(-dividend // divisor)


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
    """pixels of a program in each phase of "two_phase"; a multiple of block_pixels"""
    images_per_launch: int
    """number of images that both phases run over before the next ones follow, so that the second read comes from L2"""

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
        if self.pixels_per_program < 1 or self.pixels_per_program % self.block_pixels:
            raise ValueError(f"pixels_per_program must be a multiple of block_pixels, got {self.pixels_per_program}")
        if self.images_per_launch < 1:
            raise ValueError(f"images_per_launch must be positive, got {self.images_per_launch}")

    @functools.cached_property
    def options(self) -> dict[str, int]:
        """Triton's launch options. The assembler is told how many registers there are, else it spills to have fewer."""
        programs = PROGRAMS_PER_MULTIPROCESSOR if self.variant == "two_phase" else 1
        registers = REGISTERS_OF_A_MULTIPROCESSOR // (programs * 32 * self.num_warps)
        return {"num_warps": self.num_warps, "maxnreg": min(MOST_REGISTERS, registers)}

    def programs(self, pixels: int) -> int:
        """Return how many programs share a plane of `pixels`."""
        return ceil_div(pixels, self.pixels_per_program if self.variant == "two_phase" else self.block_pixels)

    def chunks(self, batch: int) -> Iterator[slice]:
        """Yield the slices of a batch that are launched one after the other."""
        for start in range(0, batch, self.images_per_launch):
            yield slice(start, min(start + self.images_per_launch, batch))


@dataclass(frozen=True)
class OnChip:
    """Describes a tile that holds a plane, or a program's share of it, in registers: [pixels, channels]."""

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
PROGRAMS_PER_MULTIPROCESSOR = 2  # with 8 warps each, hence at most 128 registers a thread
MOST_IMAGES = 65535  # in one launch: the bound on the third dimension of CUDA's grid
MOST_SPLITS = 32  # the rule aims at fewer: every program of phase 2 reads the partials of all splits
TENSORS_IN_FLIGHT: Mapping[NormPass, int] = {"forward": 3, "backward": 4}
TENSORS_READ_AGAIN: Mapping[NormPass, int] = {"forward": 1, "backward": 2}
CHUNK_PAYS_US = 6.0  # time that two more launches take to fill and drain a GPU, with a margin; not measured yet


_forced: list["NormPlan | ConvPlan"] = []
_Kind = TypeVar("_Kind", NormPlan, "ConvPlan")


@contextmanager
def forcing(plan: "NormPlan | ConvPlan") -> Iterator[None]:
    """Run every fused norm, or every convolution of this package, by `plan`, for tests and tuning.

    A plane that a norm's tile cannot hold raises AssertionError.
    """
    _forced.append(plan)
    try:
        yield
    finally:
        _forced.pop()


def forced(kind: type[_Kind]) -> _Kind | None:
    """Return the plan of that kind that the innermost `forcing` asks for, or None."""
    return next((plan for plan in reversed(_forced) if isinstance(plan, kind)), None)


def norm_plan(
    which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu, *, channels_last: bool = True
) -> NormPlan:
    """Return the plan for x of `shape` [N, C, H, W] and a result padded by `pad`: the GPU's tuned one, else by rule.

    Tuned tables and `norm_rule` are for tensors that are channels last. Others run in two phases: nothing is gained by
    keeping a plane on chip that was read element by element.
    """
    return forced(NormPlan) or _norm_plan(which_pass, shape, pad, dtype, gpu, channels_last)


@functools.lru_cache(maxsize=4096)
def _norm_plan(
    which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu, channels_last: bool
) -> NormPlan:
    if not channels_last:
        return two_phase_rule(which_pass, shape, pad, dtype, gpu)
    tuned = tuned_table(gpu.name).get(norm_key(which_pass, shape, pad, dtype))
    return NormPlan(**tuned) if tuned else norm_rule(which_pass, shape, pad, dtype, gpu)


def norm_rule(which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu) -> NormPlan:
    """Plan by rule: on chip where a program can hold a plane, because it reads x once; else in two phases.

    A number of channels that is no multiple of 16 is read element by element, which takes more registers than a plane
    leaves. A tile whose rows are half a sector moves each sector twice, more than two phases do: it pays only while it
    saves a launch, that is where all programs run at once.
    """
    batch, channels, height, width = shape
    for tile in () if channels % 16 else ON_CHIP[which_pass, dtype.itemsize]:
        whole_sectors = tile.channels * dtype.itemsize >= SECTOR_BYTES
        programs = batch * ceil_div(channels, tile.channels)
        if height * width <= tile.pixels and (whole_sectors or programs <= gpu.multiprocessors):
            images = min(max(1, batch), MOST_IMAGES)
            return NormPlan("on_chip", tile.pixels, tile.channels, tile.num_warps, tile.pixels, images)
    return two_phase_rule(which_pass, shape, pad, dtype, gpu)


def two_phase_rule(which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu) -> NormPlan:
    """Plan two phases by rule: for every shape, and for an x whose statistics were gathered already."""
    _, channels, height, width = shape
    pixels = height * width
    images = _images_per_launch(which_pass, shape, dtype, gpu)
    programs_wanted = PROGRAMS_PER_MULTIPROCESSOR * gpu.multiprocessors
    # Wide blocks read long rows; narrow blocks, down to a memory sector of 32 bytes, need fewer splits of a plane.
    for block_channels in (64, 32, 16):
        splits = ceil_div(programs_wanted, images * ceil_div(channels, block_channels))
        if splits <= MOST_SPLITS:
            break
    block_pixels = _two_phase_tile(which_pass, pad) // block_channels
    pixels_per_program = block_pixels * ceil_div(pixels, splits * block_pixels)
    return NormPlan("two_phase", block_pixels, block_channels, TWO_PHASE_WARPS, pixels_per_program, images)


def cooperative_plan(which_pass: NormPass, shape: Shape, dtype: torch.dtype, gpu: Gpu) -> NormPlan | None:
    """Plan programs that share a plane and keep x on chip, or return None where they would not all be resident at once.

    No rule asks for this plan, only a tuned table. One program fills a multiprocessor's registers.
    """
    _, channels, height, width = shape
    for tile in COOPERATIVE[which_pass, dtype.itemsize]:
        plan = NormPlan("cooperative", tile.pixels, tile.channels, tile.num_warps, tile.pixels, 1)
        if plan.programs(height * width) * ceil_div(channels, tile.channels) <= gpu.multiprocessors:
            return plan
    return None


def _images_per_launch(which_pass: NormPass, shape: Shape, dtype: torch.dtype, gpu: Gpu) -> int:
    """Return how many images fit into the L2 cache, where reading them again from memory takes longer than a launch.

    Elsewhere return the whole batch, as far as a launch takes it.
    """
    batch = shape[0]
    tensor_bytes = math.prod(shape[1:]) * dtype.itemsize
    fitting = gpu.l2_bytes // max(1, tensor_bytes * TENSORS_IN_FLIGHT[which_pass])
    if 0 < fitting < batch:
        images = ceil_div(batch, ceil_div(batch, min(fitting, MOST_IMAGES)))
        if images * tensor_bytes * TENSORS_READ_AGAIN[which_pass] >= CHUNK_PAYS_US * 1e3 * gpu.memory_gbps:
            return images
    return min(max(1, batch), MOST_IMAGES)


def _two_phase_tile(which_pass: NormPass, pad: int) -> int:
    """Return the elements of a tile.

    A thread has 32 forward, 16 backward, and 8 where backward folds a pad, which takes 3 to 9 loads for each.
    """
    return 8192 if which_pass == "forward" else 2048 if pad else 4096


def norm_key(which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype) -> str:
    """Return a site's key in a tuned table, such as "forward 1x256x64x64 pad 1 bfloat16"."""
    return f"{which_pass} {'x'.join(map(str, shape))} pad {pad} {str(dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class ConvPlan:
    """Describes the tile of the implicit GEMM: pixels of y, channels of y, and channels of x in each step."""

    block_pixels: int
    block_outputs: int
    block_channels: int
    num_warps: int
    num_stages: int

    @functools.cached_property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "maxnreg": MOST_REGISTERS}


def conv_plan(shape: Shape, outputs: int, dtype: torch.dtype, gpu: Gpu) -> ConvPlan:
    """Return the plan for y [N, outputs, H, W] = conv(x), x [N, C, H, W] of `shape`: the tuned one, else by rule."""
    return forced(ConvPlan) or _conv_plan(shape, outputs, dtype, gpu)


@functools.lru_cache(maxsize=4096)
def _conv_plan(shape: Shape, outputs: int, dtype: torch.dtype, gpu: Gpu) -> ConvPlan:
    tuned = tuned_table(gpu.name).get(conv_key(shape, outputs, dtype))
    if tuned:
        return ConvPlan(**{name: value for name, value in tuned.items() if name != "beats_library"})
    return conv_rule(dtype, gpu)


def conv_rule(dtype: torch.dtype, gpu: Gpu) -> ConvPlan:
    """Return the plan for a GPU on which nothing was measured."""
    if dtype == torch.float32:
        return ConvPlan(64, 64, 16, 4, 2)
    # A stage takes (pixels + outputs) * channels * 2 bytes of shared memory; the gaming GPUs have 99 KiB of it.
    if gpu.capability in (86, 89, 120):
        return ConvPlan(128, 128, 32, 8, 3)
    return ConvPlan(128, 128, 64, 8, 3)


def conv_beats_library(shape: Shape, outputs: int, dtype: torch.dtype, gpu: Gpu) -> bool:
    """Return whether this package's convolution was measured to be faster than the library's, each with its norm."""
    return bool(tuned_table(gpu.name).get(conv_key(shape, outputs, dtype), {}).get("beats_library", False))


def conv_key(shape: Shape, outputs: int, dtype: torch.dtype) -> str:
    """Return a convolution's key in a tuned table, such as "conv2d_reflect 1x256x64x64 256 bfloat16"."""
    return f"conv2d_reflect {'x'.join(map(str, shape))} {outputs} {str(dtype).removeprefix('torch.')}"


@functools.cache
def tuned_table(gpu_name: str) -> dict[str, dict[str, Any]]:
    """Return the plans that were measured on this GPU model, by key; empty where nothing was measured."""
    return read_tuned(tuned_path(gpu_name))


def tuned_path(gpu_name: str, folder: Path | None = None) -> Path:
    """Return the path of a GPU model's plans, in `kernels/tuned` unless `folder` is given."""
    return (folder or TUNED) / f"{file_name(gpu_name)}.json"


def read_tuned(path: Path) -> dict[str, dict[str, Any]]:
    """Read the plans in a file by `norm_key` and `conv_key`; none where there is no file.

    Raises ValueError that names the file where it is not JSON, or holds no object.
    """
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); restore it, or delete it to plan by rule") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path} must hold an object of plans by shape, got {type(table).__name__}")
    return table


def forget_tuned() -> None:
    """Forget all tables and plans, so that files that this process wrote are read."""
    for cache in (tuned_table, _norm_plan, _conv_plan):
        cache.cache_clear()


@dataclass(frozen=True)
class PadPlan:
    """Describes the tile of the padding operator."""

    block_pixels: int
    block_channels: int
    num_warps: int


def pad_plan(channels: int) -> PadPlan:
    """Return the plan of the padding operator: few wide tiles.

    The 3-channel image is small, and its rows of 3 elements cannot be read 16 bytes at a time.
    """
    block_channels = min(64, 1 << (channels - 1).bit_length())
    return PadPlan(max(32, 512 // block_channels), block_channels, 4)
