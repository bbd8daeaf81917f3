"""Bytes and operations against counts by hand, and against what the kernels' own counter finds."""

import pytest
import torch

from bench.cases import counts
from bench.cases.plain_cyclegan import PlainDiscriminator, PlainGenerator
from bench.measure.limits import Workload
from cyclegan_fast.kernels.checking.sites import NormSite, generator_sites
from cyclegan_fast.kernels.traffic import backward_traffic, forward_traffic
from cyclegan_fast.kernels.triton_language import INTERPRETED

BF16 = torch.bfloat16


def site(name: str) -> NormSite:
    return next(each for each in generator_sites() if each.name == name)


def test_the_second_half_of_a_block_by_hand() -> None:
    """256 channels of 64x64 in bfloat16: x 2,097,152 bytes, y padded by 1 is 66x66, 2,230,272 bytes."""
    x, padded = 2_097_152, 2_230_272
    block = site("blocks, second half")
    # x and the residual are read, y is written; mean 1, variance 3, normalisation 2, residual sum 1.
    assert counts.norm_forward_workload(block, 1, BF16) == Workload(2 * x + padded, 7 * 1_048_576)
    # x, dY and the second gradient are read; dx and the residual's gradient are written.
    assert counts.norm_backward_workload(block, 1, BF16) == Workload(
        4 * x + padded, 10 * 1_048_576 + 256 * (66 * 66 - 64 * 64)
    )


def test_behind_the_stem_by_hand() -> None:
    """64 channels of 256x256 in float32, batch 2: 33,554,432 bytes; a ReLU and nothing else."""
    stem = site("after the stem")
    assert counts.norm_forward_workload(stem, 2, torch.float32) == Workload(2 * 33_554_432, 7 * 8_388_608)
    assert counts.norm_backward_workload(stem, 2, torch.float32) == Workload(3 * 33_554_432, 10 * 8_388_608)


@pytest.mark.skipif(not INTERPRETED, reason="the kernels' counter works in Triton's interpreter")
@pytest.mark.parametrize("index", range(8))
def test_bytes_are_the_floor_that_the_kernels_counter_finds(index: int) -> None:
    small = generator_sites(width=8, side=32)[index]
    assert counts.norm_forward_workload(small, 2, BF16).moved_bytes == forward_traffic(small, 2, BF16).floor.total_bytes
    assert (
        counts.norm_backward_workload(small, 2, BF16).moved_bytes == backward_traffic(small, 2, BF16).floor.total_bytes
    )


def test_a_generator_takes_the_multiply_adds_that_the_design_states() -> None:
    forward = counts.network_workload(PlainGenerator, 1, 256, torch.float32, backward=False)
    assert forward.operations / 2 == pytest.approx(49.6e9, rel=0.002)
    image, weights = 3 * 256 * 256, 11_378_179
    assert forward.moved_bytes == 4 * (2 * image + weights)
    both = counts.network_workload(PlainGenerator, 1, 256, torch.float32, backward=True)
    assert both == Workload(3 * forward.moved_bytes, 3 * forward.operations)


def test_a_discriminator_by_hand() -> None:
    """Multiply-adds: 4x4 kernels on 32x32 outputs of 64x64 images and so on down to 6x6."""
    layers = [(3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 512, 7), (512, 1, 6)]
    by_hand = sum(16 * inputs * outputs * side**2 for inputs, outputs, side in layers)
    assert counts.network_workload(PlainDiscriminator, 1, 64, BF16, backward=False).operations == 2 * by_hand


def test_a_step_is_18_generator_passes_and_16_of_the_discriminators() -> None:
    generator, discriminator = (
        counts.network_workload(kind, 2, 64, BF16, backward=False).operations
        for kind in (PlainGenerator, PlainDiscriminator)
    )
    step = counts.training_step_workload(2, 64, BF16)
    assert step.operations == 18 * generator + 16 * discriminator
    weights = 2 * (11_378_179 + 2_764_737)
    assert step.moved_bytes == 2 * 2 * 2 * 3 * 64 * 64 + 24 * weights
