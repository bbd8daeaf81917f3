"""Runs become longer: to the same bits where their past would have been the same, and else with the user's consent."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cyclegan_fast import sample_photos, train
from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config, OptimizerConfig, RunConfig
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training import loop
from cyclegan_fast.training.extension import check_past
from cyclegan_fast.training.history.epochs import Epochs
from tests.cyclegan_fast.conftest import contents
from tests.cyclegan_fast.training.test_train import assert_same_state, command, final_state, interrupt_at, metrics

EPOCH = 3
"""Steps of an epoch of `data`."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a folder of images; each test trains runs of its own beside it."""
    root = tmp_path_factory.mktemp("extending")
    sample_photos.main([str(root / "data"), "--side", "36", "--count", str(EPOCH)])
    return root


def run(root: Path, name: str, *flags: str, data: str = "data") -> int:
    """Train with dropout, whose masks depend on the state of PyTorch's random numbers, and score one image."""
    quick = ("--workers", "0", "--metrics", "reconstruction", "--evaluate-images", "1")
    return train.main(command(root / data, root, name, "--dropout", *quick, *flags))


def reports(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without clocks, and without the end that was known when they were written."""
    return [{key: value for key, value in line.items() if key != "total_steps"} for line in metrics(folder)]


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def assert_same_run(grown: Path, whole: Path) -> None:
    """Compare all that a checkpoint holds, reports, scores and configurations."""
    assert_same_state(final_state(grown), final_state(whole))
    assert reports(grown) == reports(whole)
    assert results(grown)["rows"] == results(whole)["rows"]
    assert results(grown)["step"] == results(whole)["step"] == final_state(whole)["log"]["step"]
    configs = [values.to_dict(values.load_config(folder / "config.yaml")) for folder in (grown, whole)]
    assert_same_state(*configs)


def test_a_finished_run_with_more_steps_ends_with_the_bits_of_one_at_once(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(root, "whole", "--max-steps", "8") == 0
    assert run(root, "grown", "--max-steps", "4") == 0
    first = results(root / "grown")
    assert first["step"] == 4
    capfd.readouterr()
    assert run(root, "grown", "--max-steps", "8") == 0
    assert f"run: {root / 'grown'}, steps 4 to 8" in capfd.readouterr().out
    assert_same_run(root / "grown", root / "whole")
    page = (root / "grown" / "index.html").read_text()
    assert '"ended":true' in page
    assert '"step":8' in page
    assert '<p class="facts">step 8' in page


@pytest.mark.slow
def test_a_longer_constant_phase_ends_with_the_bits_of_one_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grows a run that was stopped before its decay, and a finished one that had none."""
    longer = ("--max-steps", "100", "--epochs", "3", "--decay-epochs", "1")
    assert run(root, "constant", *longer) == 0
    assert final_state(root / "constant")["log"]["step"] == 4 * EPOCH
    with monkeypatch.context() as patch:
        interrupt_at(5, patch)
        assert run(root, "stopped", "--max-steps", "100", "--epochs", "2", "--decay-epochs", "1") == 130
    assert run(root, "without-decay", "--max-steps", "100", "--epochs", "2", "--decay-epochs", "0") == 0
    for name in ("stopped", "without-decay"):
        assert run(root, name, *longer) == 0
        assert_same_run(root / name, root / "constant")


def test_where_the_decay_had_begun_a_run_needs_consent_to_go_on(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    each_step = ("--report-every", "1", "--max-steps", "100")
    assert run(root, "decayed", *each_step, "--epochs", "1", "--decay-epochs", "1") == 0
    longer = (*each_step, "--epochs", "3", "--decay-epochs", "1")
    before = contents(root / "decayed")
    capfd.readouterr()
    assert run(root, "decayed", *longer) == 2
    assert capfd.readouterr().err == (
        f"error: {root / 'decayed'} has taken 6 steps, and with --epochs 3 --decay-epochs 1 some would have had "
        "another learning rate (0.0002 instead of 0.0001 in epoch 2): --extend-from-here keeps them as they are and "
        "goes on with 0.0002 in epoch 3; or give --name NEW for another run\n"
    )
    assert contents(root / "decayed") == before
    assert run(root, "decayed", *longer, "--extend-from-here") == 0
    note = "the steps so far keep their learning rates, and the run goes on with 0.0002 in epoch 3"
    assert note in capfd.readouterr().out
    rates = [line["learning_rate"] for line in metrics(root / "decayed")]
    assert rates == [2e-4] * EPOCH + [1e-4] * EPOCH + [2e-4] * EPOCH + [1e-4] * EPOCH
    assert results(root / "decayed")["step"] == 4 * EPOCH
    saved = values.load_config(root / "decayed" / "config.yaml")
    assert (saved.optimizer.epochs, saved.run.extend_from_here) == (3, False)


def test_more_steps_than_there_are_epochs_leave_a_finished_run_finished(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for most in ("10", "20"):
        assert run(root, "epochs", "--epochs", "1", "--decay-epochs", "0", "--max-steps", most) == 0
    assert f"{root / 'epochs'} is finished after 3 steps, see its index.html; more" in capfd.readouterr().out
    assert values.load_config(root / "epochs" / "config.yaml").run.max_steps == 10
    # A later end is none of the settings that are in the way.
    assert run(root, "epochs", "--epochs", "1", "--decay-epochs", "0", "--max-steps", "20", "--beta1", "0.4") == 2
    assert "was made with another configuration (beta1: 0.5 -> 0.4); " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max-steps", "3"], "max_steps: 6 -> 3"),
        (["--epochs", "1", "--decay-epochs", "1"], "epochs: 100 -> 1, decay_epochs: 100 -> 1"),
    ],
)
def test_a_run_does_not_become_shorter(
    root: Path, flags: list[str], said: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (root / "kept").exists():
        with monkeypatch.context() as patch:
            interrupt_at(5, patch)
            assert run(root, "kept", "--max-steps", "6") == 130
    before = contents(root / "kept")
    assert run(root, "kept", "--max-steps", "6", *flags) == 2
    assert f"kept can become longer, not shorter ({said}), and has taken 5 steps" in capfd.readouterr().err
    assert contents(root / "kept") == before


@pytest.mark.slow
def test_a_kill_before_the_first_new_checkpoint_loses_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the process when config.yaml says the new end and the checkpoint and results still say the old one."""

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    assert run(root, "at-once", "--max-steps", "5") == 0
    assert run(root, "killed", "--max-steps", "3") == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "train", dies)
        assert run(root, "killed", "--max-steps", "5") == 130
    assert values.load_config(root / "killed" / "config.yaml").run.max_steps == 5
    assert run(root, "killed", "--max-steps", "5") == 0
    assert_same_run(root / "killed", root / "at-once")


@pytest.mark.slow
def test_a_run_without_a_checkpoint_yet_takes_a_later_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "save", dies)
        assert run(root, "early", "--max-steps", "4") == 130
    assert run(root, "early", "--max-steps", "5") == 0
    assert results(root / "early")["step"] == 5
    assert values.load_config(root / "early" / "config.yaml").run.max_steps == 5


@pytest.mark.parametrize(
    ("policy", "before", "now", "step", "differs"),
    [
        ("linear", (2, 3), (2, 5), 6, False),
        ("linear", (2, 3), (5, 0), 6, False),
        ("linear", (2, 3), (2, 4), 7, True),  # a first step of the decay is taken
        ("linear", (2, 3), (3, 3), 7, True),
        ("cosine", (4, 0), (8, 0), 3, False),  # the first epoch has the full rate in any case
        ("cosine", (4, 0), (8, 0), 4, True),
        ("cosine", (4, 0), (4, 4), 12, False),
        ("step", (4, 0), (8, 8), 12, False),
        ("plateau", (4, 0), (8, 8), 12, False),
    ],
)
def test_the_past_differs_where_a_step_of_it_had_another_rate(
    policy: Any, before: tuple[int, int], now: tuple[int, int], step: int, differs: bool
) -> None:
    configs = [
        Config(optimizer=OptimizerConfig(learning_rate_policy=policy, epochs=constant, decay_epochs=decay))
        for constant, decay in (before, now)
    ]
    saved: Any = {"config": values.to_dict(configs[0]), "log": {"step": step}}
    if not differs:
        assert check_past(configs[1], saved, Epochs(EPOCH), Path("x")) is None
        return
    with pytest.raises(UserError, match="--extend-from-here keeps them"):
        check_past(configs[1], saved, Epochs(EPOCH), Path("x"))
    agreed = Config(optimizer=configs[1].optimizer, run=RunConfig(extend_from_here=True))
    assert "goes on with" in (check_past(agreed, saved, Epochs(EPOCH), Path("x")) or "")


# --- the data moved --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(root: Path) -> Path:
    """Trains `before` for 4 steps, and copies its images to `elsewhere`, and to `altered` but for one photograph."""
    assert run(root, "before", "--max-steps", "4") == 0
    for name in ("elsewhere", "altered"):
        shutil.copytree(root / "data", root / name)
    path = root / "altered" / "trainA" / "0001.png"
    with Image.open(path) as image:
        image.rotate(90).save(path)
    return root


def test_a_finished_run_goes_on_with_the_same_images_from_another_place(
    moved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(moved / "before", moved / "follows")
    assert run(moved, "follows", "--max-steps", "4", data="elsewhere") == 0
    assert f"{moved / 'follows'} is finished after 4 steps" in capfd.readouterr().out
    assert run(moved, "follows", "--max-steps", "6", data="elsewhere") == 0
    output = capfd.readouterr().out
    assert f"the data moved from {moved / 'data'} to {moved / 'elsewhere'}" in output
    assert "steps 4 to 6" in output
    saved = values.load_config(moved / "follows" / "config.yaml")
    assert (saved.data.data, saved.run.max_steps) == (moved / "elsewhere", 6)
    assert run(moved, "stays", "--max-steps", "6") == 0
    states = [final_state(moved / name) for name in ("follows", "stays")]
    assert states[0]["config"]["data"].pop("data") != states[1]["config"]["data"].pop("data")
    assert_same_state(*states)
    assert run(moved, "follows", "--max-steps", "6", data="elsewhere") == 0
    assert "is finished after 6 steps" in capfd.readouterr().out


@pytest.mark.parametrize("steps", ["4", "6"])
def test_a_finished_run_is_not_taken_for_one_of_other_images(
    moved: Path, steps: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(moved / "before")
    assert run(moved, "before", "--max-steps", steps, data="altered") == 2
    assert "the images changed since" in capfd.readouterr().err
    assert contents(moved / "before") == before
