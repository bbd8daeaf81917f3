"""`kernels.traffic` counts what can be computed by hand."""

import subprocess
import sys

import pytest
import torch

from cyclegan_fast.kernels import plans as launch, triton_language
from cyclegan_fast.kernels.checking.sites import NormSite, generator_sites
from cyclegan_fast.kernels.gpus import GPUS
from cyclegan_fast.kernels.plans import NormPass
from cyclegan_fast.kernels.traffic import (
    SiteTraffic,
    backward_traffic,
    counting_kernels,
    forward_traffic,
    plain_forward,
    total,
)

pytestmark = pytest.mark.skipif(not triton_language.INTERPRETED, reason="bytes are counted in Triton's interpreter")

BF16 = torch.bfloat16


def bytes_by_hand(direction: NormPass, site: NormSite, dtype: torch.dtype) -> int:
    """Return what the kernels' loads and stores add up to for one image, from the plan alone."""
    pixels, channels, size = site.side**2, site.channels, dtype.itemsize
    padded = (site.side + 2 * site.pad) ** 2
    x, y = pixels * channels * size, padded * channels * size
    skip, residual = x * site.feeds_block, site.residual
    plan = launch.norm_plan(direction, site.shape(1), site.pad, dtype, GPUS[90])
    programs, per_channel = plan.programs(pixels), channels * 4
    if direction == "forward" and plan.variant == "on_chip":
        frame = y - x  # is read back from the interior
        return x + x * residual + y + frame + 3 * per_channel
    if direction == "forward":
        partials, pivot, programs_of_y = 3 * programs * per_channel, 3 * channels * size, plan.writers(padded)
        first = x + programs * pivot + partials
        # Every pixel of the padded result gathers its own x and residual.
        return first + programs_of_y * (partials + pivot) + y + y * residual + y + 3 * per_channel
    stored = x if residual else 0
    remade = y * site.remade
    if plan.variant == "on_chip":
        return x + y + skip + 3 * per_channel + x + stored + remade
    sums, statistics = 2 * programs * per_channel, 3 * programs * per_channel
    first = x + y + skip + statistics + sums + stored
    return first + x + (stored or y + skip) + plan.writers(pixels) * (3 * per_channel + sums) + x + remade


SITES = [
    NormSite("on chip", 16, 12, "none", pad=1, residual=True),
    NormSite("feeds a block", 16, 48, "relu", pad=1, feeds_block=True),
    NormSite("first half", 16, 48, "relu", pad=1, remade=True),
    NormSite("second half", 8, 70, "none", pad=1, residual=True, feeds_block=True),
    NormSite("last", 16, 48, "none", residual=True),
    NormSite("head", 16, 80, "relu", pad=3),
]


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_counted_bytes_are_those_that_follow_from_the_plan(site: NormSite) -> None:
    """Takes the dtypes in turn: nothing but the size of an element and the plan hangs on them."""
    dtype = (BF16, torch.float32)[SITES.index(site) % 2]
    assert forward_traffic(site, 1, dtype).fused.total_bytes == bytes_by_hand("forward", site, dtype)
    assert backward_traffic(site, 1, dtype).fused.total_bytes == bytes_by_hand("backward", site, dtype)


@pytest.mark.parametrize(("direction", "limit"), [("forward", 1.45), ("backward", 1.7)])
def test_the_norms_of_the_256x256_generator_move_little_more_than_they_must(direction: NormPass, limit: float) -> None:
    moved = floor = 0
    for site in generator_sites():
        tensors = site.operands(1, BF16, "meta")
        x, y = tensors.x.nbytes, tensors.dy.nbytes
        moved += site.times * bytes_by_hand(direction, site, BF16)
        if direction == "forward":
            floor += site.times * (x + x * site.residual + y)
        else:
            stored = site.residual and site.pad
            floor += site.times * (2 * x + y + x * site.feeds_block + (x if stored else 0) + y * site.remade)
    assert moved <= limit * floor


def test_rows_of_half_a_sector_move_twice_as_much_as_they_hold() -> None:
    whole = forward_traffic(NormSite("8 warps, 16 channels a program", 16, 32, "none"), 1, BF16).fused
    half = forward_traffic(NormSite("16 warps, 8 channels a program", 16, 40, "none"), 1, BF16).fused
    statistics = 3 * 16 * 4
    assert whole.total_bytes == whole.sectors * 32 == 2 * 16 * 32 * 32 * 2 + statistics
    assert half.total_bytes == 2 * 16 * 40 * 40 * 2 + statistics
    assert half.sectors * 32 == 2 * half.total_bytes - statistics  # 8 channels in float32 are a whole sector


@pytest.mark.slow
def test_no_norm_takes_more_than_two_launches() -> None:
    for site in SITES:
        assert forward_traffic(site, 1, BF16).fused.launches <= 2
        assert backward_traffic(site, 1, BF16).fused.launches <= 2


def test_a_middle_activation_is_remade_without_another_launch_or_read() -> None:
    site = NormSite("block", 16, 12, "relu", pad=1, remade=True)
    plain = NormSite("block", 16, 12, "relu", pad=1)
    with_it, without = backward_traffic(site, 1, BF16).fused, backward_traffic(plain, 1, BF16).fused
    assert with_it.launches == without.launches == 1
    assert with_it.read_bytes == without.read_bytes
    assert with_it.written_bytes - without.written_bytes == 16 * 14 * 14 * 2


def test_plain_pytorch_launches_what_its_profiler_shows_for_channels_last() -> None:
    site = NormSite("block", 4, 8, "relu", pad=1, residual=True)
    counted = forward_traffic(site, 1, torch.float32).eager
    # A copy to NCHW in front of the norm, the norm, ReLU, the sum, the pad.
    assert counted.launches == 5
    operands = site.operands(1, torch.float32, "cpu")
    _, padded = plain_forward(site, operands)
    assert padded.shape == (1, 4, 10, 10)


def test_totals_weigh_a_site_by_how_often_it_stands_in_the_network() -> None:
    rows = [forward_traffic(NormSite("a", 16, 4, "relu", times=times), 1, BF16) for times in (1, 3)]
    assert total(rows).fused.launches == 4
    assert total(rows).floor.total_bytes == 4 * rows[0].floor.total_bytes
    assert isinstance(total(rows), SiteTraffic)


def test_counting_ends_with_its_context() -> None:
    site = NormSite("a", 4, 4, "relu")
    with counting_kernels() as counted:
        pass
    forward_traffic(site, 1, BF16)
    assert (counted.launches, counted.total_bytes) == (0, 0)


@pytest.mark.slow
def test_the_command_prints_both_tables() -> None:
    command = [sys.executable, "-m", "kernels.traffic", "--network", "discriminator", "--width", "8", "--side", "32"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.count("| discriminator 2, 16 x 8 x 8 | 1 | 1 | ") == 2
    assert result.stdout.count("| all | 3 | ") == 2
