"""Test the callbacks of a training: what they are told and when, how they stop it, and what becomes of their errors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import cyclegan_fast as cf
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.callbacks.callback import Report, TrainingStart

pytestmark = pytest.mark.usefixtures("one_thread")

TINY_FLAGS: dict[str, Any] = {
    "generator": "resnet_6",
    "ngf": 4,
    "ndf": 4,
    "load_size": 36,
    "crop_size": 32,
    "device": "cpu",
    "name": "x",
    "metrics": ["reconstruction"],
    "track": ["none"],
}


class Witness(cf.Callback):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.reports: list[Report] = []
        self.scores: dict[int, Mapping[str, float]] = {}

    def on_start(self, start: TrainingStart) -> None:
        self.heard.append(("start", start.path.name, start.config.run.name, start.step, start.total_steps))

    def on_report(self, report: Report) -> None:
        self.reports.append(report)
        self.heard.append(("report", report.step))

    def on_samples(self, step: int, pictures: Mapping[str, Path]) -> None:
        assert all(picture.is_file() for picture in pictures.values())
        self.heard.append(("samples", step, *(picture.name for picture in pictures.values())))

    def on_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        self.scores[step] = scores
        self.heard.append(("evaluation", step))

    def on_checkpoint(self, step: int, path: Path) -> None:
        assert torch.load(path)["log"]["step"] == step
        self.heard.append(("checkpoint", step))

    def on_epoch_end(self, epoch: int) -> None:
        self.heard.append(("epoch", epoch))

    def on_end(self, finished: bool) -> None:
        self.heard.append(("end", finished))


def train(folder: Path, runs: Path, *callbacks: cf.Callback, **flags: Any) -> Path:
    """Train on the small data set of 6 and 4 images, 6 steps an epoch."""
    return cf.train(data=folder, runs=runs, callbacks=callbacks, **{**TINY_FLAGS, **flags})


def saved_step(run: Path) -> int:
    return int(torch.load(run / "checkpoints" / "last.pt")["log"]["step"])


def test_they_hear_everything_in_its_order(tmp_path: Path, folder: Path) -> None:
    flags = {"report_every": 3, "checkpoint_every": 5, "sample_every": 4, "evaluate_every": 4}
    witness = Witness()
    run = train(folder, tmp_path, witness, max_steps=7, **flags)
    pictures = {step: (f"step_{step:08d}_A.png", f"step_{step:08d}_B.png") for step in (0, 4, 7, 8)}
    # Step 4 is the best evaluation so far, and step 7 may be: such a checkpoint is saved at once.
    assert [event for event in witness.heard if event[0] != "checkpoint"] == [
        ("start", "x", "x", 0, 7),
        ("samples", 0, *pictures[0]),
        ("report", 3),
        ("samples", 4, *pictures[4]),
        ("evaluation", 4),
        ("report", 6),
        ("epoch", 1),
        ("evaluation", 7),
        ("samples", 7, *pictures[7]),
        ("end", True),
    ]
    assert [event[1] for event in witness.heard if event[0] == "checkpoint"] == [4, 5, 7]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [vars(report) for report in witness.reports] == lines
    evaluations = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert {line["step"]: line["values"] for line in evaluations} == witness.scores

    again = Witness()
    train(folder, tmp_path, again, max_steps=8, **flags)
    assert again.heard[0] == ("start", "x", "x", 7, 8)
    assert [event for event in again.heard if event[0] in ("evaluation", "samples")] == [
        ("samples", 8, *pictures[8]),
        ("evaluation", 8),
        ("samples", 8, *pictures[8]),
    ]
    assert ("epoch", 1) not in again.heard
    unheard = Witness()
    train(folder, tmp_path, unheard, max_steps=8, **flags)
    assert unheard.heard == [], "a finished run trains nothing"


def test_scores_at_the_end_are_heard_without_evaluations_before(tmp_path: Path, folder: Path) -> None:
    witness = Witness()
    run = train(folder, tmp_path, witness, max_steps=1)
    rows = {row["name"]: row for row in json.loads((run / "results.json").read_text())["rows"]}
    assert witness.scores.keys() == {1}
    assert witness.scores[1]["a2b.reconstruction.ssim"] == rows["a2b.reconstruction"]["ssim"]


class StopAt(cf.Callback):
    """Stops, or fails, at the report of a step."""

    def __init__(self, step: int, error: Exception) -> None:
        self.step, self.error = step, error

    def on_report(self, report: Report) -> None:
        if report.step == self.step:
            raise self.error


def test_one_stops_a_training_which_goes_on_with_the_same_bits(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    witness = Witness()
    flags = {"report_every": 1, "max_steps": 4}
    run = train(folder, tmp_path / "stopped", StopAt(2, cf.StopTraining("good enough")), witness, **flags)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "interrupted by a callback (good enough) after step 2; the same command continues"
    assert saved_step(run) == 2
    assert not (run / "results.json").exists()
    assert witness.heard[-2:] == [("checkpoint", 2), ("end", False)]
    assert ("report", 2) in witness.heard, "the callbacks behind it are called"
    train(folder, tmp_path / "stopped", **flags)
    whole = train(folder, tmp_path / "whole", **flags)
    ours, theirs = (torch.load(path / "checkpoints" / "last.pt")["model"] for path in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_error_of_one_is_raised_once_the_step_is_saved(tmp_path: Path, folder: Path) -> None:
    witness = Witness()
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        train(folder, tmp_path, StopAt(2, ZeroDivisionError("mine")), witness, report_every=1, max_steps=4)
    assert caught.value.__notes__ == ["raised by StopAt.on_report of a training, at step 2"]
    assert saved_step(tmp_path / "x") == 2
    assert witness.heard[-2:] == [("checkpoint", 2), ("end", False)]
    train(folder, tmp_path, report_every=1, max_steps=4)
    assert saved_step(tmp_path / "x") == 4


@pytest.mark.parametrize("method", ["on_start", "on_samples", "on_checkpoint", "on_epoch_end", "on_end"])
def test_errors_of_every_method_are_raised(
    tmp_path: Path, folder: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    failing = cf.Callback()
    monkeypatch.setattr(failing, method, fail, raising=True)
    with pytest.raises(ZeroDivisionError) as caught:
        train(folder, tmp_path, failing, max_steps=6, checkpoint_every=6)
    assert f"Callback.{method} of a training" in caught.value.__notes__[0]


def test_an_error_of_the_training_is_told_and_stays_what_it_is(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = Witness()

    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("cyclegan_fast.training.log.RunLog.report", fail)
    with pytest.raises(UserError, match="No space left on device; nothing was saved"):
        train(folder, tmp_path, witness, report_every=1, max_steps=2)
    assert witness.heard[-1] == ("end", False)


@pytest.mark.parametrize("given", [print, Witness, {"on_report": print}], ids=["function", "class", "dictionary"])
def test_what_is_no_callback_is_refused(tmp_path: Path, folder: Path, given: Any) -> None:
    with pytest.raises(UserError, match=r"objects of subclasses of cyclegan_fast\.Callback, got"):
        train(folder, tmp_path / "runs", given)
    assert not (tmp_path / "runs").exists()
