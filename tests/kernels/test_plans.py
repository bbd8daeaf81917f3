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
from cyclegan_fast.kernels.gpus import GPUS, Gpu, most_registers, resident_programs
from cyclegan_fast.kernels.norm.backward import (
    instance_norm_backward_apply,
    instance_norm_backward_on_chip,
    instance_norm_backward_sums,
)
from cyclegan_fast.kernels.norm.division import filled, in_whole_waves, is_whole, last_wave
from cyclegan_fast.kernels.norm.forward import instance_norm_apply, instance_norm_on_chip, instance_norm_statistics
from cyclegan_fast.kernels.norm.planning import ON_CHIP, cooperative_plan, divided, places
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
            continue
        written = (height + 2 * pad) * (width + 2 * pad) if direction == "forward" else height * width
        writers = plan.writers(written)
        assert (writers - 1) * plan.writer_pixels < written <= writers * plan.writer_pixels


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("direction", PASSES)
def test_a_batch_is_divided_only_into_equal_launches_that_fit_in_the_l2_cache(direction: NormPass, gpu: Gpu) -> None:
    in_flight = {"forward": 3, "backward": 4}[direction]
    for site, dtype, batch in itertools.product(all_sites(), DTYPES, (1, 2, 6, 16)):
        images = two_phase_rule(direction, site.shape(batch), site.pad, dtype, gpu).images_per_launch
        assert batch % images == 0
        assert images == batch or in_flight * images * math.prod(site.shape(1)) * dtype.itemsize <= gpu.l2_bytes


def test_a_batch_is_divided_where_memory_is_slower_than_the_cache_by_more_than_the_launches_take() -> None:
    def images(name: NormPass, shape: launch.Shape, gpu: Gpu) -> int:
        return two_phase_rule(name, shape, 0, torch.bfloat16, gpu).images_per_launch

    # 8.4 MB an image, of which phase 2 reads one tensor again: 8.3 us from memory of 1008 GB/s, 1.7 us from the cache.
    assert images("forward", (16, 64, 256, 256), GPUS[89]) == 2  # 3 tensors of 2 images in 72 MiB
    assert images("forward", (16, 64, 256, 256), GPUS[86]) == 16  # not one image fits in 6 MiB
    # The H200's memory is nearly as fast as its cache.
    assert images("forward", (16, 64, 256, 256), H200) == 16
    assert images("backward", (32, 256, 64, 64), H200) == 32
    assert images("backward", (31, 256, 64, 64), GPUS[89]) == 31  # a prime: nothing but single images


def test_waves_by_hand() -> None:
    assert last_wave(264, 264) == last_wave(528, 264) == 1
    assert last_wave(272, 264) == 8 / 264
    assert filled(8, 264) == last_wave(8, 264) == 8 / 264
    assert filled(272, 264) == 272 / 528
    assert is_whole(8, 264)
    assert not is_whole(272, 264)
    assert is_whole(4 * 264 + 8, 264)  # 1064 of 1320
    assert not is_whole(3 * 264 + 8, 264)  # 800 of 1056
    # 64 planes on 264 places: 4 splits of each are 256 programs, where rounding up makes 320.
    one = in_whole_waves(4096, 32, 64, 264, pixel_us=0.01)
    assert (one.pixels_per_program, one.us) == (1024, 3 + 1 + 1024 * 0.01)
    # 128 planes on 216 places: one wave is 59% full, two waves of 3 splits each are 89%, three of 5 splits 99%.
    assert in_whole_waves(4096, 32, 128, 216, 0.01).pixels_per_program == math.ceil(4096 / 5)
    assert in_whole_waves(4096, 1024, 128, 216, 0.01).pixels_per_program == math.ceil(4096 / 3)
    # More planes than places: two waves of whole planes.
    assert in_whole_waves(4096, 32, 512, 264, 0.01).pixels_per_program == 4096
    # Planes too small to divide for all places: as far as it pays, a wave that is not full.
    assert in_whole_waves(900, 450, 16, 264, 0.01).pixels_per_program == 450


def test_programs_that_a_multiprocessor_holds_by_hand() -> None:
    """Follow CUDA's occupancy calculator: a quarter of the registers is for a quarter of the warps."""
    assert resident_programs(90, num_warps=8, registers=128) == 2
    assert resident_programs(90, 8, 129) == 1
    assert resident_programs(90, 8, 80) == 3
    assert resident_programs(90, 8, 81) == 2
    assert resident_programs(90, 8, 32) == 8  # 64 warps
    assert resident_programs(89, 8, 32) == 6  # 48 warps
    assert resident_programs(90, 16, 128) == resident_programs(90, 8, 255) == 1
    assert resident_programs(90, 1, 16) == 32
    assert resident_programs(89, 1, 16) == 24
    assert resident_programs(90, 4, 32, shared_bytes=99 << 10) == 2
    assert resident_programs(89, 4, 32, 99 << 10) == 1
    assert resident_programs(103, 8, 128) == resident_programs(75, 8, 128) == 2  # by the nearest that is known


@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize("num_warps", [4, 8, 16])
def test_as_many_programs_are_held_as_registers_were_left_for(num_warps: int, capability: int) -> None:
    for programs in range(1, (48 if capability in (86, 89, 120) else 64) // num_warps + 1):
        registers = most_registers(num_warps, programs)
        assert resident_programs(capability, num_warps, registers) >= programs
        if registers < 255:
            assert resident_programs(capability, num_warps, registers + 1) < programs


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("direction", PASSES)
def test_a_plan_for_one_shape_is_divided_for_others(direction: NormPass, gpu: Gpu) -> None:
    made = norm_rule(direction, (16, 256, 64, 64), 1, torch.bfloat16, gpu)
    for shape in ((16, 256, 64, 64), (13, 256, 60, 68), (9, 256, 33, 64)):
        plan = divided(made, direction, shape, 1, torch.bfloat16, gpu)
        assert plan is not None
        assert plan.variant == made.variant == "two_phase"
        assert (plan.block_pixels, plan.block_channels, plan.options) == (
            made.block_pixels,
            made.block_channels,
            made.options,
        )
        assert launch.norm_key(direction, shape, 1, torch.bfloat16) == launch.norm_key(
            direction, (16, 256, 64, 64), 1, torch.bfloat16
        )
    assert divided(made, direction, (16, 256, 64, 64), 1, torch.bfloat16, gpu) == made


def test_a_plan_on_chip_serves_no_larger_plane_and_one_that_cooperates_no_more_than_runs_at_once() -> None:
    on_chip = launch.NormPlan("on_chip", 1024, 16, 8, 1024, 2)
    assert divided(on_chip, "forward", (4, 64, 32, 32), 0, torch.bfloat16, H200) == launch.NormPlan(
        "on_chip", 1024, 16, 8, 1024, 4
    )
    assert divided(on_chip, "forward", (4, 64, 32, 33), 0, torch.bfloat16, H200) is None
    together = launch.NormPlan("cooperative", 1024, 16, 16, 1024, 1)
    for batch in (1, 2, 3, 16):
        plan = divided(together, "forward", (batch, 256, 64, 64), 1, torch.bfloat16, H200)
        assert plan is not None
        assert plan.images_per_launch * 4 * 16 <= 132  # 4 programs for each of 16 blocks of channels
    assert divided(together, "forward", (1, 256, 128, 128), 1, torch.bfloat16, H200) is None  # 256 programs


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
def test_no_plan_that_cooperates_launches_more_programs_than_run_at_once(gpu: Gpu) -> None:
    """They wait for each other: one that is not there would be waited for without end."""
    for direction, site, dtype in itertools.product(PASSES, all_sites(), DTYPES):
        plan = cooperative_plan(direction, site.shape(1), dtype, gpu)
        if plan is not None:
            programs = plan.programs(site.side**2) * plan.blocks(site.channels) * plan.images_per_launch
            assert programs <= places(plan, gpu) == gpu.multiprocessors


def test_another_image_size_compiles_nothing_unless_a_plane_crosses_a_bound_of_the_on_chip_tiles() -> None:
    def tile(side: int) -> tuple[object, ...]:
        plan = norm_rule("forward", (1, 128, side, side), 0, torch.bfloat16, H200)
        return plan.variant, plan.block_pixels, plan.block_channels, plan.num_warps

    bounds = [bound.pixels for bound in ON_CHIP["forward", 2]]
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
        "block_pixels": 1024,
        "block_channels": 16,
        "num_warps": 16,
        "pixels_per_program": 1024,
        "images_per_launch": 1,
    }
    monkeypatch.setattr(launch, "TUNED", tmp_path)
    (tmp_path / "a_tuned_gpu.json").write_text(
        json.dumps({"forward 1 x 4096 pixels, 256 channels, pad 1, bfloat16": tuned})
    )
    gpu = Gpu("A tuned-GPU", 90, 132, 60 << 20, 4800, 6600)
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


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
def test_launch_options_leave_the_registers_that_the_programs_of_a_multiprocessor_share(gpu: Gpu) -> None:
    for direction, site, dtype in itertools.product(PASSES, all_sites(), DTYPES):
        plan = norm_rule(direction, site.shape(1), site.pad, dtype, gpu)
        for options, wanted in ((plan.options, plan.residents), (plan.writer_options, plan.resident_writers)):
            assert options["maxnreg"] <= 255
            assert resident_programs(gpu.capability, plan.num_warps, options["maxnreg"]) == wanted
