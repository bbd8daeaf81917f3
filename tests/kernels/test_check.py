"""`python -m kernels.check`: what is run, what counts as wrong, and what is printed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cyclegan_fast.kernels import check
from cyclegan_fast.kernels.checking import cases as check_cases
from cyclegan_fast.kernels.checking.case import OTHER_CHANNELS, SMALL, OperatorCase, PreparedCase
from cyclegan_fast.kernels.checking.cases import kernel_cases
from cyclegan_fast.kernels.checking.elementwise_cases import SAMPLES
from cyclegan_fast.kernels.checking.sites import generator_sites
from tests.kernels.conftest import DEVICE

FEW = list(kernel_cases(SMALL, [torch.float32], [1]))
HALVES = [case for case in kernel_cases(SMALL, [torch.bfloat16], [1]) if "thin" in case.operator]


def one(operator: str, place: str = "") -> OperatorCase:
    return next(case for case in FEW if case.operator == operator and place in case.place)


@pytest.mark.parametrize("operator", sorted({case.operator for case in (*FEW, *HALVES)}))
def test_every_operator_is_right_and_its_launches_are_counted(operator: str) -> None:
    case = next(case for case in (*FEW, *HALVES) if case.operator == operator)
    result = check.run_case(case, torch.device(DEVICE))
    assert result.failure == ""
    assert 0 <= result.share_of_allowed < 1
    launches = {"residual_block": 6, "conv2d_reflect": 2, "conv2d_to_thin": 3, "conv2d_from_thin": 3}
    launches |= {"bias_activation": 3, "mean_error": 2}
    assert result.launches == launches.get(operator, 1)


def test_every_site_of_both_networks_is_run_both_ways_in_every_dtype_and_batch() -> None:
    everything = list(kernel_cases(SMALL, [torch.float32, torch.bfloat16], [1, 2]))
    # Thin convolutions are for 16 bits, and of other than three channels at one batch size; windows are in float32, and
    # weights know of no batch.
    assert len(everything) == 4 * (2 * 11 + 5 + 6) + 2 * 2 + 2 * 2 + 2 * len(OTHER_CHANNELS) + 2 * len(SAMPLES)
    assert len({(c.operator, c.place, c.dtype, c.batch) for c in everything}) == len(everything)


def wrong(case: OperatorCase, by: float) -> OperatorCase:
    """Return the case with a result that is off by so much of its size."""

    def prepare(device: torch.device) -> PreparedCase:
        prepared = case.prepare(device)
        return replace(prepared, run=lambda: [t * (1 + by) for t in prepared.run()])

    return replace(case, prepare=prepare)


def broken(case: OperatorCase) -> OperatorCase:
    def prepare(device: torch.device) -> PreparedCase:
        def run() -> list[torch.Tensor]:
            raise RuntimeError("ptxas refused\nand said more")

        return replace(case.prepare(device), run=run)

    return replace(case, prepare=prepare)


def test_what_is_wrong_or_does_not_run_is_a_sentence_and_the_others_go_on() -> None:
    case = one("reflection_pad")
    results, failures = check.run_all([wrong(case, 2e-6), broken(case), wrong(case, 1e-7)], torch.device(DEVICE), 1e18)
    assert len(results) == 2
    named = "reflection_pad, in front of the stem, float32, batch 1,"
    assert failures == [
        f"{named} does not run: RuntimeError: ptxas refused",
        f"{named} is off by 2e-06 of its size, 1.62 times what is allowed",
    ]


def test_an_element_that_nobody_writes_is_wrong() -> None:
    case = one("reflection_pad")

    def prepare(device: torch.device) -> PreparedCase:
        prepared = case.prepare(device)
        (shape,) = {t.shape for t in prepared.run()}
        return replace(prepared, run=lambda: [torch.empty(shape, device=device)])

    result = check.run_case(replace(case, prepare=prepare), torch.device(DEVICE))
    assert result.error == float("inf")
    assert "is off by inf" in result.failure


def test_cases_that_time_does_not_suffice_for_are_told() -> None:
    results, failures = check.run_all(FEW, torch.device(DEVICE), 0.0)
    assert results == []
    assert failures == [f"{len(FEW)} of {len(FEW)} cases were not run in time: give more --seconds"]


@pytest.mark.slow
def test_the_table_has_a_row_for_both_batches_and_its_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = generator_sites(width=16, side=16)[2:4]
    monkeypatch.setattr(check_cases, "generator_sites", lambda **sizes: sites)
    monkeypatch.setattr(check, "TRITON_DTYPES", (torch.float32,))
    monkeypatch.setattr(check_cases, "discriminator_sites", lambda **sizes: [])
    status = check.check_kernels(torch.device(DEVICE), check._parser().parse_args(["--out", str(tmp_path / "new")]))
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "new" / "check.json").read_text())
    assert status == 0, found["failures"]
    assert len(found["results"]) == 2 * (2 * 2 + 5 + 10) + 2
    assert sum(line.startswith("| ") for line in printed.splitlines()) == 2 + 2 * 2 + 5 + 10 + 2
    assert "0 failures" in (tmp_path / "new" / "check.md").read_text()


def test_operands_of_a_site_keep_away_from_the_kink_of_its_activation() -> None:
    """Else one gradient on the other side would outweigh the rounding of all others, at the size of real networks."""
    site = replace(generator_sites()[0], channels=2, side=512)
    x = site.operands(1, torch.float32, "cpu").x.double()
    assert (x - x.mean((2, 3), keepdim=True)).abs().min() > 9e-4


def test_a_file_in_the_place_of_the_folder_for_results_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").touch()
    assert check.main(["--out", str(tmp_path / "taken")]) == 2
    assert f"--out {tmp_path / 'taken'} cannot be a folder: File exists; give another" in capsys.readouterr().err
