"""Launches of norms fill their waves nearly, and programs that wait for others all run at once."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch

from cyclegan_fast.kernels import plans as launch, triton_language
from cyclegan_fast.kernels.checking.sites import NormSite, generator_sites, run_backward, run_forward
from cyclegan_fast.kernels.checking.specialisations import Specialisation
from cyclegan_fast.kernels.checking.waves import SiteLaunch, main
from cyclegan_fast.kernels.gpus import GPUS, Gpu, planning_for
from cyclegan_fast.kernels.launching import Grid, launching_with
from cyclegan_fast.kernels.norm import cooperation
from cyclegan_fast.kernels.norm.planning import COOPERATIVE, divided, places
from cyclegan_fast.kernels.plans import NormPass, NormPlan

COMPILING = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
BF16 = torch.bfloat16


def waves(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kernels.checking.waves", *arguments]
    return subprocess.run(command, env=COMPILING, capture_output=True, text=True, check=False)


def rows(printed: str) -> dict[str, list[str]]:
    """Return the cells of each row of the tables in what was printed, by GPU and row."""
    found, gpu = {}, ""
    for line in printed.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            name, *cells = [cell.strip() for cell in line.split("|")[1:-1]]
            gpu = name.partition(":")[0] if ": norm" in name else gpu
            found[f"{gpu}: {name}"] = cells
    return found


@pytest.mark.slow
def test_no_norm_leaves_its_waves_less_than_80_percent_full_by_the_registers_that_variants_are_promised() -> None:
    result = waves("--promised")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "\n0 launches leave their waves less than 80% full" in result.stdout
    table = rows(result.stdout)
    for gpu in ("NVIDIA H200", "NVIDIA A100", "NVIDIA GeForce RTX 4090"):
        assert table[f"{gpu}: {gpu}: norm, pass, launch"] == [f"N = {batch}" for batch in (1, 2, 8, 16, 32)]
        for name, cells in table.items():
            if not name.startswith(gpu) or "norm" in name:
                continue
            for batch, cell in zip((1, 2, 8, 16, 32), cells, strict=True):
                together = re.search(r"/\d+ (\d+)%", cell)
                assert cell == "-" or (together and int(together[1]) >= 80) or (cell.endswith("*") and batch <= 2)
    # By hand: 16 images of 4 blocks of 64 channels are 64 planes; 264 and 396 places take 4 and 6 splits of each.
    assert table["NVIDIA H200: blocks, first half, forward, 1"][3] == "256/264 97%"
    assert table["NVIDIA H200: blocks, first half, forward, 2"][3] == "384/396 97%"
    # By hand: 32 blocks of 16 channels of 32 images hold a plane of 31x31 each: 7 waves of 132, and 100 programs.
    assert table["NVIDIA H200: discriminator 4, forward, 1"][4] == "1024/132 97%, last 76%"
    # Two images of 8.4 MB in a launch, whose three tensors fit into 72 MiB of L2 cache.
    assert table["NVIDIA GeForce RTX 4090: after the stem, forward, 1"][4] == "16 x 256/256 100%"
    assert table["NVIDIA H200: launches of all norms"] == ["80", "80", "99", "100", "100"]


@pytest.mark.slow
def test_compiled_variants_leave_room_for_as_many_programs_as_their_plans_say() -> None:
    compiled, promised = (waves("--sm", "90", "--batches", "1", "16", *extra) for extra in ([], ["--promised"]))
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    assert compiled.stdout == promised.stdout


def test_in_the_interpreter_the_command_says_what_to_unset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(triton_language, "INTERPRETED", True)
    assert main(["--promised"]) == 2
    assert "unset TRITON_INTERPRET" in capsys.readouterr().err


def site_launch(kernel: str, programs: int, times: int = 1) -> SiteLaunch:
    variant = Specialisation(90, f"module:{kernel}", (), (), (), ())
    return SiteLaunch(NormSite("a site", 16, 8, "relu"), "forward", 1, 1, variant, programs, times)


def test_a_gap_is_what_a_last_wave_leaves_of_the_whole_launch_or_planes_that_could_have_been_divided() -> None:
    whole = site_launch("instance_norm_on_chip", 32)
    assert not whole.leaves_a_gap(132)  # there are no more planes
    assert whole.described(132) == "32/132 24%*"
    behind = site_launch("instance_norm_on_chip", 140)
    assert behind.leaves_a_gap(132)
    assert behind.ends_nearly_empty(132)
    assert behind.described(132) == "140/132 53%, last 6%"
    behind_many = site_launch("instance_norm_on_chip", 8 * 132 + 8)
    assert not behind_many.leaves_a_gap(132)
    assert behind_many.ends_nearly_empty(132)
    assert behind_many.described(132) == "1064/132 90%, last 6%"
    divided_in_few = site_launch("instance_norm_statistics", 128, times=2)
    assert divided_in_few.leaves_a_gap(264)
    assert divided_in_few.described(264) == "2 x 128/264 48%*"
    assert not site_launch("instance_norm_statistics", 212).leaves_a_gap(264)


# --- programs that wait for each other -------------------------------------------------------------------------------


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the cooperative variant be launched, by whoever records it."""
    monkeypatch.setattr(cooperation, "INTERPRETED", False)


def launched(site: NormSite, which_pass: NormPass, batch: int, gpu: Gpu) -> Iterator[tuple[int, Any]]:
    """Yield the programs and the options of each launch at a site."""
    found: list[tuple[int, Any]] = []

    def record(kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        found.append((math.prod(grid), options))

    operands = site.operands(batch, BF16, "meta")
    with planning_for(gpu), launching_with(record):
        if which_pass == "forward":
            run_forward(site, operands)
        else:
            run_backward(site, operands, torch.empty((batch, 3, site.channels), device="meta"))
    yield from found


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("which_pass", get_args(NormPass))
def test_every_launch_of_programs_that_cooperate_is_of_at_most_as_many_as_run_at_once(
    which_pass: NormPass, gpu: Gpu
) -> None:
    launches = 0
    for batch in (1, 3, 16):
        for site in generator_sites()[2:6]:
            for tile in COOPERATIVE[which_pass, 2]:
                made = NormPlan("cooperative", tile.pixels, tile.channels, tile.num_warps, tile.pixels, 1)
                plan = divided(made, which_pass, site.shape(batch), site.pad, BF16, gpu)
                if plan is None:
                    assert made.programs(site.side**2) * made.blocks(site.channels) > places(made, gpu)
                    continue
                with launch.forcing(plan):
                    for programs, options in launched(site, which_pass, batch, gpu):
                        launches += 1
                        assert options["launch_cooperative_grid"]
                        assert programs <= gpu.multiprocessors
    assert launches or gpu.multiprocessors < 128


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("which_pass", get_args(NormPass))
def test_a_launch_of_more_programs_that_wait_for_each_other_is_refused(which_pass: NormPass) -> None:
    site = generator_sites()[3]
    plan = NormPlan("cooperative", 1024, 16, 16, 1024, 3)  # 4 programs for 16 blocks of channels of 3 images
    with (
        launch.forcing(plan),
        pytest.raises(ValueError, match=r"needs 192 programs at once .* NVIDIA H200 holds 132: take it out"),
    ):
        list(launched(site, which_pass, 3, GPUS[90]))
