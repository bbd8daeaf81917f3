"""Run logs average losses between reports, and end the run where losses are not finite."""

import json
from pathlib import Path

import pytest
import torch

from cyclegan_fast.training.log import PERSISTENT, NonFiniteLoss, RunLog

NAMES = ("G_A", "G_B", "cycle_A", "cycle_B", "D_A", "D_B")
INFINITE = float("inf")


def losses(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(values.get(name, 1.0)) for name in NAMES}


def report(log: RunLog) -> None:
    log.report(epoch=1, learning_rate=1e-4, batch_size=1, peak_gib=0.0)


def lines(run: Path) -> list[dict[str, dict[str, float]]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_means_are_over_the_steps_since_the_last_report(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 10, None)
    for values in ([1.0, 2.0, 6.0], [4.0, 8.0]):
        for value in values:
            log.add(losses(G_A=value))
        report(log)
    assert [line["losses"]["G_A"] for line in lines(tmp_path)] == [3.0, 6.0]
    assert [line["losses"]["D_B"] for line in lines(tmp_path)] == [1.0, 1.0]
    log.close()


@pytest.mark.parametrize("value", [INFINITE, -INFINITE, float("nan")])
def test_without_a_scaler_one_value_that_is_not_finite_ends_the_run(tmp_path: Path, value: float) -> None:
    log = RunLog(tmp_path, 10, None)
    log.add(losses())
    log.add(losses(cycle_B=value))
    log.add(losses())
    with pytest.raises(NonFiniteLoss, match="loss cycle_B became infinite or NaN within the 3 steps up to 3"):
        report(log)
    assert lines(tmp_path) == []
    log.close()


def test_with_a_scaler_overflows_now_and_then_are_left_out_of_the_means(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 10, None, scaled=True)
    for value in (2.0, INFINITE, 4.0, float("nan")):
        log.add(losses(D_A=value))
    report(log)
    assert lines(tmp_path)[0]["losses"]["D_A"] == 3.0
    log.close()


def test_with_a_scaler_a_loss_that_stays_infinite_ends_the_run_also_over_reports_and_a_resume(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 100, None, scaled=True)
    log.add(losses())
    report(log)
    for _ in range(PERSISTENT - 2):
        log.add(losses(G_B=INFINITE))
    report(log)  # nothing was finite: it is put off
    assert len(lines(tmp_path)) == 1
    resumed = RunLog(tmp_path, 100, log.state_dict(), scaled=True)
    log.close()
    resumed.add(losses(G_B=INFINITE))
    resumed.check_finite()
    resumed.add(losses(G_B=INFINITE))
    with pytest.raises(NonFiniteLoss, match=f"loss G_B is not finite any more, for {PERSISTENT} steps up to 21"):
        resumed.check_finite()
    resumed.close()


def test_a_finite_value_ends_the_count(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 100, None, scaled=True)
    for _ in range(2):
        for _ in range(PERSISTENT - 1):
            log.add(losses(G_B=INFINITE))
        log.add(losses(G_B=5.0))
    report(log)
    assert lines(tmp_path)[0]["losses"]["G_B"] == 5.0
    log.close()


def test_losses_of_float64_are_summed_in_float64(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 10, None)
    log.add({name: torch.tensor(1 / 3, dtype=torch.float64) for name in NAMES})
    report(log)
    assert lines(tmp_path)[0]["losses"]["G_A"] == 1 / 3
    log.close()
