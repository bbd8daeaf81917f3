"""Tuning tries plans for the keys that a step really launches, the most important first."""

import itertools
from collections import Counter
from typing import Any, get_args

import pytest
import torch

from bench.tuning import trials
from bench.tuning.candidates import (
    conv_candidates,
    most_promising,
    norm_candidates,
    plan_text,
    tile_of,
)
from bench.tuning.trials import batches_of_a_step, tasks
from cyclegan_fast.config.options import Config, DataConfig, NetworkConfig
from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.aot import SHARED_BYTES
from cyclegan_fast.kernels.checking.sites import NormSite, all_sites, discriminator_sites, generator_sites
from cyclegan_fast.kernels.gpus import GPUS, Gpu
from cyclegan_fast.kernels.launching import launching_with
from cyclegan_fast.kernels.norm.planning import places
from cyclegan_fast.kernels.plans import ConvPlan, NormPass, NormPlan
from cyclegan_fast.methods.model import Model
from cyclegan_fast.training.step import TrainingStep

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
CONV_FAST, CONV_SLOW = ConvPlan(16, 16, 16, 4, 2), ConvPlan(32, 16, 16, 4, 2)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("direction", get_args(NormPass))
def test_norm_candidates_can_run_and_hold_the_built_in_plan_first(direction: NormPass, gpu: Gpu) -> None:
    for site, dtype, batch in itertools.product(all_sites(), DTYPES, (1, 16)):
        shape, pixels = site.shape(batch), site.side**2
        plans = norm_candidates(direction, shape, site.pad, dtype, gpu)
        assert plans[0] == launch.norm_rule(direction, shape, site.pad, dtype, gpu)
        assert len(set(plans)) == len({plan_text(plan) for plan in plans}) == len(plans)
        assert {plan.block_channels for plan in plans if plan.variant == "two_phase"} >= {16, 32, 64}
        assert {plan.num_warps for plan in plans} >= {4, 8, 16}
        for plan in plans:
            programs = plan.programs(pixels) * plan.blocks(site.channels)
            if plan.variant == "on_chip":
                assert plan.programs(pixels) == 1
            elif plan.variant == "cooperative":
                assert programs * plan.images_per_launch <= places(plan, gpu)
            assert 1 <= plan.images_per_launch <= batch
            if dtype == torch.bfloat16:  # what a table's plan becomes when it is read is what was measured
                assert launch.divided(plan, direction, shape, site.pad, dtype, gpu) == plan


def test_of_many_plans_those_known_to_be_fast_come_first_then_variants_take_turns() -> None:
    def plan(variant: launch.Variant, pixels: int, images: int = 1) -> NormPlan:
        return NormPlan(variant, pixels, 16, 8, pixels, images)

    plans = [
        *(plan("on_chip", pixels) for pixels in (256, 512)),
        *(plan("two_phase", pixels) for pixels in (32, 64, 128)),
        plan("two_phase", 32, images=4),
    ]
    on_chip, two_phase = plans[:2], plans[2:]
    in_turn = [on_chip[0], two_phase[0], on_chip[1], *two_phase[1:]]
    assert most_promising(plans, 10, []) == in_turn
    assert most_promising(plans, 3, []) == in_turn[:3]
    # For another batch, so many images a launch make no difference.
    fastest = [tile_of(plan("two_phase", 128, images=2)), tile_of(plan("cooperative", 8)), tile_of(on_chip[1])]
    assert most_promising(plans, 4, fastest) == [two_phase[2], on_chip[1], on_chip[0], two_phase[0]]
    convolutions = [CONV_SLOW, CONV_FAST]
    assert most_promising(convolutions, 2, [tile_of(CONV_FAST)]) == [CONV_FAST, CONV_SLOW]


def test_every_variant_is_tried_where_it_can_run_and_batches_are_divided() -> None:
    plans = norm_candidates("forward", (16, 256, 64, 64), 1, torch.bfloat16, GPUS[90])
    assert {plan.variant for plan in plans} == {"on_chip", "cooperative", "two_phase"}
    two_phase = [plan for plan in plans if plan.variant == "two_phase"]
    assert len({plan.images_per_launch for plan in two_phase}) >= 2
    assert len({(plan.residents, plan.num_warps) for plan in two_phase}) >= 5
    cooperative = launch.cooperative_plan("forward", (1, 256, 64, 64), torch.bfloat16, GPUS[90])
    assert cooperative in norm_candidates("forward", (1, 256, 64, 64), 1, torch.bfloat16, GPUS[90])


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
def test_conv_candidates_fit_into_shared_memory_and_hold_the_built_in_plan_first(gpu: Gpu) -> None:
    for dtype in DTYPES:
        plans = conv_candidates((1, 256, 64, 64), 256, dtype, gpu)
        assert plans[0] == launch.conv_rule(dtype, gpu)
        assert len(set(plans)) == len(plans) > 8
        for plan in plans:
            stage_bytes = (plan.block_pixels + plan.block_outputs) * plan.block_channels * dtype.itemsize
            assert plan.num_stages * stage_bytes <= SHARED_BYTES[gpu.capability]


def test_each_key_is_tuned_once_for_all_its_sites_the_most_important_first() -> None:
    steps = [batches_of_a_step(1), batches_of_a_step(16)]
    found = list(tasks(list(all_sites()), [torch.float32, torch.bfloat16], steps))
    keys = [task.key for task in found]
    assert len(set(keys)) == len(keys)
    assert [task.dtype for task in found] == sorted((task.dtype for task in found), key=DTYPES.index)
    first = [task for task in found if task.dtype == torch.bfloat16 and task.batch in (1, 2)]
    assert found[: len(first)] == first
    blocks = first[0]
    assert blocks.key == "backward 2 x 4096 pixels, 256 channels, pad 1, bfloat16"  # 18 of a generator's 23 norms
    assert len(first) == 36 + 4
    assert len(found) == 2 * 2 * 36 + 2 * 4  # no convolution from or to an image is ours in float32
    assert [site.name for site in blocks.sites] == ["after down 2", "blocks, first half", "blocks, second half"]
    assert blocks.times == 18
    # Convolutions, after the norms: those of all blocks together, and the generators' last and first ones.
    convolutions = first[-8:]
    assert sorted(task.key for task in convolutions) == sorted(
        f"{what}, bfloat16"
        for n in (1, 2)
        for what in (
            f"conv2d_reflect {n} x 4096 pixels, 256 to 256 channels",
            f"edge gradients {n} x 4096 pixels, 256 from 256 channels",
            f"conv2d_to_thin {n} x 65536 pixels, 64 to 3 channels, kernel 7",
            f"conv2d_from_thin {n} x 65536 pixels, 3 to 64 channels, kernel 7",
        )
    )
    assert not any("conv" in task.key or "edge" in task.key for task in first[:-8])
    assert sorted(task.times for task in convolutions) == [1, 1, 1, 1, 18, 18, 18, 18]
    moved = [task.moved_bytes for task in first[:-8]]
    assert moved == sorted(moved, reverse=True)


def test_a_step_launches_every_norm_twice_for_its_batch_and_twice_for_double_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen in a training step: which norms run, for how many images, and how often."""
    planned: Counter[tuple[str, launch.Shape, int]] = Counter()
    plan = launch.norm_plan

    def norm_plan(direction: NormPass, shape: launch.Shape, pad: int, *rest: Any, **options: Any) -> NormPlan:
        planned[direction, shape, pad] += 1
        return plan(direction, shape, pad, *rest, **options)

    monkeypatch.setattr(launch, "norm_plan", norm_plan)
    config = Config(
        data=DataConfig(load_size=32, crop_size=32, batch_size=3),
        networks=NetworkConfig(generator="resnet_6", ngf=4, ndf=4, impl="triton"),
    )
    step = TrainingStep(Model(config), config, torch.float32)
    with launching_with(lambda *_: None):  # what is computed has no meaning
        step(torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32))
    expected: Counter[tuple[str, launch.Shape, int]] = Counter()
    for batch in batches_of_a_step(3):
        for site in [*generator_sites(width=4, blocks=6, side=32), *discriminator_sites(width=4, side=32)]:
            for direction in get_args(NormPass):
                expected[direction, site.shape(batch), site.pad] += 2 * site.times
    assert planned == expected


def test_a_site_runs_as_often_as_in_the_network_on_operands_that_alternate() -> None:
    sites = [NormSite("one", 1, 1, "none", times=3), NormSite("other", 1, 1, "none")]
    trial = trials.Trial(sites, [["a", "b"], ["c", "d"]], lambda plan, site, its: its, [])
    assert [call() for call in trial.calls(None)] == ["a", "b", "a", "c", "b", "a", "b", "d"]
