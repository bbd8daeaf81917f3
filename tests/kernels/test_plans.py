"""Plans are pure functions of shape, dtype and GPU; what they promise can be computed."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.checking.sites import all_sites
from cyclegan_fast.kernels.conv2d import conv2d_3x3
from cyclegan_fast.kernels.gpus import GPUS, Gpu
from cyclegan_fast.kernels.norm.backward import (
    instance_norm_backward_apply,
    instance_norm_backward_on_chip,
    instance_norm_backward_sums,
)
from cyclegan_fast.kernels.norm.forward import instance_norm_apply, instance_norm_on_chip, instance_norm_statistics
from cyclegan_fast.kernels.plans import NormPass, norm_rule, two_phase_rule
from cyclegan_fast.kernels.reflection_pad import reflection_pad_backward, reflection_pad_forward

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PASSES: tuple[NormPass, ...] = ("forward", "backward")
H200 = GPUS[90]
SHAPES = [
    (1, 64, 256, 256),
    (16, 64, 256, 256),
    (1, 256, 64, 64),
    (3, 5, 7, 9),
    (1, 1, 2, 1),
    (2, 512, 31, 31),
    (1, 64, 1080, 1920),
    (70, 3, 90, 50),
]
CASES = list(itertools.product(PASSES, SHAPES, (0, 1, 3), DTYPES, GPUS.values()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_plan_covers_every_pixel_of_every_image_once(
    case: tuple[NormPass, tuple[int, int, int, int], int, torch.dtype, Gpu],
) -> None:
    direction, shape, pad, dtype, gpu = case
    batch, _, height, width = shape
    for plan in (norm_rule(direction, shape, pad, dtype, gpu), two_phase_rule(direction, shape, pad, dtype, gpu)):
        covered = [image for images in plan.chunks(batch) for image in range(images.start, images.stop)]
        assert covered == list(range(batch))
        share = plan.pixels_per_program if plan.variant == "two_phase" else plan.block_pixels
        programs = plan.programs(height * width)
        assert (programs - 1) * share < height * width <= programs * share
        if plan.variant == "on_chip":
            assert programs == 1


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("direction", PASSES)
def test_a_batch_is_divided_only_into_chunks_that_fit_in_the_l2_cache_and_are_worth_two_launches(
    direction: NormPass, gpu: Gpu
) -> None:
    in_flight, read_again = {"forward": (3, 1), "backward": (4, 2)}[direction]
    for site, dtype in itertools.product(all_sites(), DTYPES):
        images = two_phase_rule(direction, site.shape(16), site.pad, dtype, gpu).images_per_launch
        tensor_bytes = math.prod(site.shape(1)) * dtype.itemsize
        if images < 16:
            assert in_flight * images * tensor_bytes <= gpu.l2_bytes
            assert read_again * images * tensor_bytes / gpu.memory_gbps >= 6e3  # bytes / GB/s are nanoseconds
        elif in_flight * 16 * tensor_bytes > gpu.l2_bytes:
            images = gpu.l2_bytes // (in_flight * tensor_bytes)
            assert read_again * images * tensor_bytes / gpu.memory_gbps < 6e3 * 1.5  # even chunks are a little smaller


def test_chunks_pay_where_memory_is_slow_and_the_cache_is_large() -> None:
    shape = (16, 64, 256, 256)
    images = {
        gpu.name: two_phase_rule("forward", shape, 0, torch.bfloat16, gpu).images_per_launch for gpu in GPUS.values()
    }
    assert images["NVIDIA GeForce RTX 4090"] < 16
    assert images["NVIDIA GeForce RTX 3090"] == images["NVIDIA H200"] == 16


def test_another_image_size_compiles_nothing_unless_a_plane_crosses_a_bound_of_the_on_chip_tiles() -> None:
    def tile(side: int) -> tuple[object, ...]:
        plan = norm_rule("forward", (1, 128, side, side), 0, torch.bfloat16, H200)
        return plan.variant, plan.block_pixels, plan.block_channels, plan.num_warps

    bounds = [bound.pixels for bound in launch.ON_CHIP["forward", 2]]
    tiles = {side: tile(side) for side in range(8, 300)}
    changes = [side for side in range(9, 300) if tiles[side] != tiles[side - 1]]
    assert changes == [math.isqrt(bound) + 1 for bound in bounds]


def test_rows_of_half_a_sector_are_read_only_where_all_programs_run_at_once() -> None:
    def block_channels(batch: int, channels: int, dtype: torch.dtype, gpu: Gpu) -> int | None:
        plan = norm_rule("forward", (batch, channels, 64, 64), 1, dtype, gpu)
        return plan.block_channels if plan.variant == "on_chip" else None

    assert block_channels(1, 256, torch.bfloat16, H200) == 8  # 32 programs, 132 multiprocessors
    assert block_channels(4, 256, torch.bfloat16, H200) == 8
    assert block_channels(5, 256, torch.bfloat16, H200) is None
    assert block_channels(16, 64, torch.float16, H200) == 8
    assert block_channels(3, 256, torch.bfloat16, GPUS[86]) is None
    assert block_channels(3, 256, torch.float32, H200) is None  # 4 channels a program
    assert norm_rule("forward", (16, 256, 32, 32), 1, torch.bfloat16, H200).variant == "on_chip"  # whole sectors


def test_run_time_sizes_name_every_stride_and_side_that_kernels_take() -> None:
    kernels = [
        conv2d_3x3,
        instance_norm_apply,
        instance_norm_backward_apply,
        instance_norm_backward_on_chip,
        instance_norm_backward_sums,
        instance_norm_on_chip,
        instance_norm_statistics,
        reflection_pad_backward,
        reflection_pad_forward,
    ]
    for kernel in kernels:
        sizes = {name for name in kernel.arg_names if name.islower() and not name.endswith("_ptr")}
        assert sizes - set(launch.RUN_TIME_SIZES) <= {"channels", "outputs", "eps", "slope"}


def test_a_tuned_table_overrides_the_rule_for_its_gpu_and_shape_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (1, 256, 64, 64)
    tuned = {
        "variant": "cooperative",
        "block_pixels": 512,
        "block_channels": 32,
        "num_warps": 8,
        "pixels_per_program": 512,
        "images_per_launch": 1,
    }
    monkeypatch.setattr(launch, "TUNED", tmp_path)
    (tmp_path / "a_tuned_gpu.json").write_text(json.dumps({"forward 1x256x64x64 pad 1 bfloat16": tuned}))
    gpu = Gpu("A tuned-GPU", 90, 132, 60 << 20, 4800)
    assert launch.norm_plan("forward", shape, 1, torch.bfloat16, gpu) == launch.NormPlan(**tuned)  # type: ignore[arg-type]
    assert launch.norm_plan("backward", shape, 1, torch.bfloat16, gpu).variant != "cooperative"
    assert launch.norm_plan("forward", shape, 0, torch.bfloat16, gpu).variant == "on_chip"
    assert launch.norm_plan("forward", shape, 1, torch.float16, gpu).variant == "on_chip"
    assert launch.norm_plan("forward", shape, 1, torch.bfloat16, H200).variant == "on_chip"


def test_our_convolution_runs_only_where_a_table_says_that_it_beats_the_library() -> None:
    assert not any(
        launch.conv_beats_library((batch, 256, 64, 64), 256, dtype, gpu)
        for batch, dtype, gpu in itertools.product((1, 16), DTYPES, GPUS.values())
    )


def test_launch_options_leave_the_registers_that_the_programs_of_a_multiprocessor_share() -> None:
    for direction, site, dtype in itertools.product(PASSES, all_sites(), DTYPES):
        plan = norm_rule(direction, site.shape(1), site.pad, dtype, H200)
        programs = 2 if plan.variant == "two_phase" else 1
        assert plan.options["maxnreg"] * 32 * plan.num_warps * programs <= 65536
        assert plan.options["maxnreg"] <= 255
