"""Divisions of thin convolutions cover every pixel once, and tables say where the kernels run."""

import json
from pathlib import Path

import pytest
import torch

from cyclegan_fast.kernels import plans
from cyclegan_fast.kernels.gpus import GPUS, file_name
from cyclegan_fast.kernels.plans import ThinPlan
from cyclegan_fast.kernels.thin_convolution.convolution import beats_library
from cyclegan_fast.kernels.thin_convolution.planning import divided_forward, divided_wgrad

SIZES = [(1, 1, 256, 256), (2, 1, 262, 262), (16, 2, 256, 256), (32, 1, 1, 5), (1, 2, 1024, 37)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("capability", GPUS)
def test_every_row_and_column_is_in_one_unit(size: tuple[int, int, int, int], capability: int) -> None:
    batch, groups, height, width = size
    gpu, tile = GPUS[capability], plans.thin_rule(GPUS[capability])
    forward = divided_forward(tile.forward_pixels, batch, groups, height, width, 7, gpu)
    useful = forward.block_pixels - 6
    assert (forward.strips - 1) * useful < width <= forward.strips * useful
    wgrad = divided_wgrad(tile.wgrad_pixels, batch, groups, height, width, gpu)
    assert (wgrad.strips - 1) * wgrad.block_pixels < width <= wgrad.strips * wgrad.block_pixels
    for divided in (forward, wgrad):
        assert (divided.chunks - 1) * divided.rows < height <= divided.chunks * divided.rows
    programs = plans.ceil_div(batch * wgrad.strips * wgrad.chunks, wgrad.units_per_program)
    assert programs * groups <= max(2 * gpu.multiprocessors, groups)


def test_one_image_fills_an_h200_and_many_repeat_few_rows() -> None:
    """Rows above a chunk are computed twice."""
    one, many = (divided_forward(64, batch, 1, 256, 256, 7, GPUS[90]) for batch in (1, 32))
    assert one.strips * one.chunks >= 0.9 * 132
    assert many.rows >= 64


SHAPE = (1, 3, 256, 256)
KEY = "conv2d_to_thin 1 x 65536 pixels, 64 to 3 channels, kernel 7, bfloat16"


def test_only_a_table_that_says_so_switches_the_kernels_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = GPUS[90]
    monkeypatch.setattr(plans, "TUNED", tmp_path)
    assert plans.thin_key("conv2d_to_thin", SHAPE, (3, 64, 7, 7), torch.bfloat16) == KEY
    x, weight = torch.empty(1, 64, 262, 262, dtype=torch.bfloat16), torch.empty(3, 64, 7, 7, dtype=torch.bfloat16)
    try:
        for entry in ({}, {"beats_library": False}, {"beats_library": True}):
            plans.forget_tuned()
            table = {KEY: {"forward_pixels": 32, "wgrad_pixels": 16, **entry}}
            (tmp_path / f"{file_name(gpu.name)}.json").write_text(json.dumps(table))
            assert plans.thin_plan(KEY, gpu) == ThinPlan(32, 16)
            assert beats_library("conv2d_to_thin", x, weight) == entry.get("beats_library", False)
            assert not beats_library("conv2d_from_thin", x, weight)
            assert not beats_library("conv2d_to_thin", x.float(), weight.float())
    finally:
        plans.forget_tuned()
    with plans.forcing(plans.thin_rule(gpu)):
        assert beats_library("conv2d_to_thin", x, weight)
