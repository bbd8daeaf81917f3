"""Runs that end when their best score has stood: as finished, and to go on where they are given more patience."""

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cyclegan_fast import sample_photos, train
from cyclegan_fast.config.options import EvaluationConfig
from cyclegan_fast.training.validation import Evaluator
from tests.cyclegan_fast.conftest import contents
from tests.cyclegan_fast.training.test_train import assert_same_state, command, final_state, interrupt_at, metrics

SCORES = {2: 0.1, 4: 0.5, 6: 0.4, 8: 0.5, 10: 0.3, 12: 0.9, 14: 0.1, 16: 0.2}
"""The score after each step that is evaluated; the best of step 4 stands until step 12."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a folder of images; each test trains runs of its own beside it."""
    root = tmp_path_factory.mktemp("patience")
    sample_photos.main([str(root / "data"), "--side", "36", "--count", "3"])
    return root


@pytest.fixture(scope="module", autouse=True)
def scores() -> Iterator[None]:
    """Lets the evaluations have the scores above."""
    steps: list[int] = []
    is_best = Evaluator.is_best

    def at(self: Evaluator, step: int, evaluation: Any) -> bool:
        steps.append(step)
        return is_best(self, step, evaluation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "is_best", at)
        patch.setattr(
            "cyclegan_fast.training.validation.scalars", lambda _: {"a2b.reconstruction.ssim": SCORES[steps[-1]]}
        )
        yield


@pytest.fixture(scope="module")
def patient(root: Path, scores: None) -> tuple[Path, str]:
    """Trains a run that nothing interrupts with --patience 3; returns its folder and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert run(root, "patient", "--patience", "3") == 0
    return root / "patient", said.getvalue()


def run(root: Path, name: str, *flags: str) -> int:
    evaluated = ("--evaluate-every", "2", "--metrics", "reconstruction", "--evaluate-images", "1")
    quick = ("--workers", "0", "--lambda-identity", "0", "--max-steps", "16", "--checkpoint-every", "5")
    return train.main(command(root / "data", root, name, *quick, *evaluated, *flags))


def steps_of(folder: Path) -> tuple[int, int, bool]:
    """Return the step that the run ended at, that of its scores, and whether its checkpoint says it is finished."""
    state = final_state(folder)
    return state["log"]["step"], json.loads((folder / "results.json").read_text())["step"], state["finished"]


def test_a_run_ends_as_finished_when_its_best_score_has_stood(
    root: Path, patient: tuple[Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, said = patient
    assert (
        "the run ends at step 10: the best a2b.reconstruction.ssim was 0.5 at step 4, and "
        "3 evaluations since were no better (--patience 3)" in said
    )
    assert steps_of(folder) == (10, 10, True)
    page = (folder / "index.html").read_text()
    assert '"total_steps":10.0,"step":10' in page
    assert '"ended":true' in page
    before = contents(folder)
    assert run(root, folder.name, "--patience", "3") == 0
    assert "is finished after 10 steps" in capfd.readouterr().out
    assert contents(folder) == before


@pytest.mark.slow
def test_more_patience_goes_on_and_ends_with_the_bits_of_as_much_at_once(root: Path) -> None:
    assert run(root, "grown", "--patience", "2") == 0
    assert steps_of(root / "grown")[0] == 8
    shutil.copytree(root / "grown", root / "without")
    assert run(root, "grown", "--patience", "4") == 0
    assert run(root, "at-once", "--patience", "4") == 0
    for name in ("grown", "at-once"):
        assert steps_of(root / name) == (16, 16, True), "step 12 was better, and its score has not stood for long"
    assert_same_state(final_state(root / "grown"), final_state(root / "at-once"))
    assert run(root, "without", "--patience", "0") == 0
    assert steps_of(root / "without")[0] == 16


@pytest.mark.parametrize("step", [7, 9, 10])
def test_a_run_that_was_stopped_ends_at_the_same_step(
    root: Path, patient: tuple[Path, str], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops also in step 10, before its evaluation, which the next start makes up for."""
    name = f"stopped-{step}"
    with monkeypatch.context() as patch:
        interrupt_at(step, patch)
        assert run(root, name, "--patience", "3") == 130
    assert run(root, name, "--patience", "3") == 0
    assert steps_of(root / name) == (10, 10, True)
    assert_same_state(final_state(root / name), final_state(patient[0]))
    assert metrics(root / name) == metrics(patient[0])


def test_more_steps_do_not_give_more_patience(
    root: Path, patient: tuple[Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(patient[0], root / "longer")
    assert run(root, "longer", "--patience", "3", "--max-steps", "20") == 0
    assert steps_of(root / "longer") == (10, 10, True)
    assert "--patience 3" in capfd.readouterr().out


def test_patience_needs_evaluations_and_a_score_that_decides(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="patience 2 has no effect without --evaluate-every"):
        EvaluationConfig(patience=2)
    with pytest.raises(ValueError, match="patience must be a whole number from 0"):
        EvaluationConfig(patience=-1)
    assert run(root, "undecided", "--patience", "3", "--metrics", "lookup") == 2
    assert "--patience 3 needs a metric that says which evaluation is the best" in capfd.readouterr().err
    assert not (root / "undecided").exists()
