"""Decides with which variant, tile shape and grid a kernel runs: a pure function of shape, dtype and GPU.

Nothing is autotuned at run time, and nothing is launched here (see `launching`). Plans that were measured on a GPU
stand in `kernels/tuned/<gpu>.json`, which `bench.tune` writes (there is none yet), and override the rules, `norm_rule`
of `norm.planning`, `conv_rule` and `thin_rule` below. Image sides are run-time arguments of every kernel: a new size
compiles nothing, unless it moves a plane over one of the bounds of `ON_CHIP`, or a batch over what runs at once there.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from .gpus import MOST_REGISTERS, Gpu, file_name
from .norm.planning import (
    NormPass,
    NormPlan,
    Shape,
    Variant,
    ceil_div,
    cooperative_plan,
    divided,
    norm_rule,
    power_of_two,
    two_phase_rule,
)

__all__ = [
    "RUN_TIME_SIZES",
    "TUNED",
    "ConvPlan",
    "EdgePlan",
    "NormPass",
    "NormPlan",
    "PadPlan",
    "Shape",
    "ThinPlan",
    "Variant",
    "ceil_div",
    "conv_beats_library",
    "conv_key",
    "conv_plan",
    "conv_rule",
    "cooperative_plan",
    "divided",
    "edge_key",
    "edge_plan",
    "edge_rule",
    "edges_beat_padding",
    "forced",
    "forcing",
    "forget_tuned",
    "norm_key",
    "norm_plan",
    "norm_rule",
    "pad_plan",
    "power_of_two",
    "read_tuned",
    "thin_beats_library",
    "thin_key",
    "thin_plan",
    "thin_rule",
    "tuned_norm_plan",
    "tuned_path",
    "tuned_table",
    "two_phase_rule",
]

TUNED = Path(__file__).parent / "tuned"

# These arguments change with image and batch size. Triton would compile again where their divisibility by 16 changes.
RUN_TIME_SIZES = [
    "height",
    "images",
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

_forced: list["NormPlan | ConvPlan | ThinPlan"] = []
_Kind = TypeVar("_Kind", NormPlan, "ConvPlan", "EdgePlan", "ThinPlan")


@contextmanager
def forcing(plan: "NormPlan | ConvPlan | ThinPlan") -> Iterator[None]:
    """Run every fused norm, or every convolution of this package, by `plan`, for tests and tuning.

    An `EdgePlan` has blocks' gradients computed without their frames, a `ThinPlan` a network's convolutions from and to
    an image by this package. A plane that a norm's tile cannot hold raises AssertionError.
    """
    _forced.append(plan)
    try:
        yield
    finally:
        _forced.pop()


def forced(kind: type[_Kind]) -> _Kind | None:
    """Return the plan of that kind that the innermost `forcing` asks for, or None."""
    return next((plan for plan in reversed(_forced) if type(plan) is kind), None)


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
    return tuned_norm_plan(tuned_table(gpu.name), which_pass, shape, pad, dtype, gpu)


def tuned_norm_plan(
    table: Mapping[str, dict[str, Any]], which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype, gpu: Gpu
) -> NormPlan:
    """Return a table's plan, divided for the shape; the plan by rule where there is none that the shape can run by."""
    entry = table.get(norm_key(which_pass, shape, pad, dtype))
    plan = divided(NormPlan(**entry), which_pass, shape, pad, dtype, gpu) if entry else None
    return plan or norm_rule(which_pass, shape, pad, dtype, gpu)


def norm_key(which_pass: NormPass, shape: Shape, pad: int, dtype: torch.dtype) -> str:
    """Return a site's key in a tuned table, such as "forward 1 x 4096 pixels, 256 channels, pad 1, bfloat16".

    It names what a plan depends on: the channels, and how many images and pixels there are at most, in powers of two. A
    plan's tile serves all batches and image sizes of a key; `divided` divides each by itself.
    """
    return f"{which_pass} {_size_class(shape)}, {shape[1]} channels, pad {pad}, {_dtype_name(dtype)}"


def _size_class(shape: Shape) -> str:
    """Return the number of images and that of their pixels, each rounded up to a power of two."""
    batch, _, height, width = shape
    return f"{power_of_two(batch)} x {power_of_two(height * width)} pixels"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
    return _tuned(ConvPlan, conv_key(shape, outputs, dtype), gpu) or conv_rule(dtype, gpu)


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
    return _won(conv_key(shape, outputs, dtype), gpu)


def conv_key(shape: Shape, outputs: int, dtype: torch.dtype) -> str:
    """Return a convolution's key in a tuned table: "conv2d_reflect 1 x 4096 pixels, 256 to 256 channels, bfloat16".

    As in `norm_key`, images and pixels are rounded up to powers of two: what the tiles are good for.
    """
    return f"conv2d_reflect {_size_class(shape)}, {shape[1]} to {outputs} channels, {_dtype_name(dtype)}"


@dataclass(frozen=True)
class EdgePlan(ConvPlan):
    """Describes the tile of what passes through the frame of a padded x: places, channels of x, channels of dy."""


def edge_plan(shape: Shape, outputs: int, dtype: torch.dtype, gpu: Gpu) -> EdgePlan:
    """Return the plan for the edges of the gradient of x [N, C, H, W]: the tuned one, else by rule.

    `shape` and `outputs`, the channels of dy, are those of one group.
    """
    return forced(EdgePlan) or _edge_plan(shape, outputs, dtype, gpu)


@functools.lru_cache(maxsize=4096)
def _edge_plan(shape: Shape, outputs: int, dtype: torch.dtype, gpu: Gpu) -> EdgePlan:
    return _tuned(EdgePlan, edge_key(shape, outputs, dtype), gpu) or edge_rule(dtype, shape[0])


def edge_rule(dtype: torch.dtype, images: int) -> EdgePlan:
    """Return the plan for edges on a GPU on which nothing was measured.

    There are few programs, which wait for each of their loads: so these are long. Of one or two images an H200 holds
    all programs at once also if they have half as many places, which takes three quarters of the time by
    `python -m bench.model` (bench/results/LOG.md, 2026-11-30).
    """
    if dtype == torch.float32:
        return EdgePlan(32, 32, 32, 4, 2)
    return EdgePlan(16 if images <= 2 else 32, 32, 128, 4, 4)


def edges_beat_padding(shape: Shape, outputs: int, dtype: torch.dtype, gpu: Gpu) -> bool:
    """Return whether a gradient without its frame, and edges added, was measured to be faster than a padded one."""
    return forced(EdgePlan) is not None or _won(edge_key(shape, outputs, dtype), gpu)


def edge_key(shape: Shape, outputs: int, dtype: torch.dtype) -> str:
    """Return the key in a tuned table, such as "edge gradients 1 x 4096 pixels, 256 from 256 channels, bfloat16"."""
    return f"edge gradients {_size_class(shape)}, {shape[1]} from {outputs} channels, {_dtype_name(dtype)}"


@dataclass(frozen=True)
class ThinPlan:
    """Describes the tiles of convolutions from and to a few channels: pixels of a row that a program has at a time."""

    forward_pixels: int
    """where the result is thin"""
    wgrad_pixels: int
    """in sums of the weights' gradient"""


def thin_plan(key: str, gpu: Gpu) -> ThinPlan:
    """Return the plan of a thin convolution, whose `thin_key` is given: the tuned one, else by rule."""
    return forced(ThinPlan) or _thin_plan(key, gpu)


@functools.lru_cache(maxsize=4096)
def _thin_plan(key: str, gpu: Gpu) -> ThinPlan:
    return _tuned(ThinPlan, key, gpu) or thin_rule(gpu)


def thin_rule(gpu: Gpu) -> ThinPlan:
    """Return the largest tiles for which the compiler finds enough registers and shared memory.

    Two programs of 64 pixels do not fit into a multiprocessor with 100 KiB of shared memory. Where tensor cores take
    the operands of the weights' gradient from registers, these hold those of 16 pixels.
    """
    return ThinPlan(32 if gpu.capability in (86, 89, 120) else 64, 32 if gpu.capability in (90, 100) else 16)


def thin_beats_library(key: str, gpu: Gpu) -> bool:
    """Return whether a thin convolution was measured to be faster than the library's, forward and backward."""
    return forced(ThinPlan) is not None or _won(key, gpu)


def thin_key(operator: str, shape: Shape, weight: Sequence[int], dtype: torch.dtype) -> str:
    """Return a thin convolution's key: "conv2d_to_thin 1 x 65536 pixels, 64 to 3 channels, kernel 7, bfloat16".

    `shape` is that of the result, [N, C_out, H, W], `weight` that of the weights, whose groups stand side by side as
    channels of the result. Images and pixels are rounded up as in `norm_key`.
    """
    channels = f"{weight[1]} to {shape[1]} channels, kernel {weight[2]}"
    return f"{operator} {_size_class(shape)}, {channels}, {_dtype_name(dtype)}"


def _tuned(kind: type[_Kind], key: str, gpu: Gpu) -> _Kind | None:
    """Return a GPU's tuned plan of a kernel that competes with the library's, or None."""
    entry = tuned_table(gpu.name).get(key)
    return kind(**{name: value for name, value in entry.items() if name != "beats_library"}) if entry else None


def _won(key: str, gpu: Gpu) -> bool:
    """Return whether that plan was measured to beat the library."""
    return bool(tuned_table(gpu.name).get(key, {}).get("beats_library", False))


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
    for cache in (tuned_table, _norm_plan, _conv_plan, _edge_plan, _thin_plan):
        cache.cache_clear()


@dataclass(frozen=True)
class PadPlan:
    """Describes the tile of the padding operator."""

    block_pixels: int
    block_channels: int
    num_warps: int


def pad_plan(channels: int) -> PadPlan:
    """Return the plan of the padding operator: few wide tiles.

    An image is small, and its rows of 3 elements cannot be read 16 bytes at a time. Where rows can, threads have 8
    elements.
    """
    block_channels = min(64, 1 << (channels - 1).bit_length())
    elements = 512 if channels % 8 else 1024
    return PadPlan(max(32, elements // block_channels), block_channels, 4)
