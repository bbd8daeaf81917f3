"""Test runs whose images change: refused without the flag, and with it the epochs are counted as is said."""

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from cyclegan_fast import sample_photos, train
from cyclegan_fast.checkpoint.content import RunCheckpoint
from cyclegan_fast.config import values
from cyclegan_fast.data.training_images import open_data
from cyclegan_fast.system.distributed import ALONE
from cyclegan_fast.training.history.epochs import Epochs
from cyclegan_fast.training.state import TrainingState
from tests.cyclegan_fast.checkpoints import older
from tests.cyclegan_fast.conftest import contents
from tests.cyclegan_fast.training.test_train import assert_same_state, command, final_state, interrupt_at, metrics

BEGUN = 5
"""The steps that are taken on 4 images: an epoch, and one of the second."""
TOTAL = ["--epochs", "2", "--decay-epochs", "1", "--max-steps", "100", "--report-every", "1", "--workers", "0"]


def run(root: Path, name: str, *flags: str) -> int:
    return train.main(command(root / "data", root, name, *TOTAL, *flags))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """Writes a folder `data` with 4 images of each domain, 2 more of A in `more`, and a run `x` of 5 steps."""
    sample_photos.main([str(tmp_path / "data"), "--side", "36", "--count", "6"])
    (tmp_path / "more").mkdir()
    for name in ("testA", "testB"):
        shutil.rmtree(tmp_path / "data" / name)
    for index in (4, 5):
        (tmp_path / "data" / "trainA" / f"{index:04d}.png").rename(tmp_path / "more" / f"{index:04d}.png")
        (tmp_path / "data" / "trainB" / f"{index:04d}.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(BEGUN, patch)
        assert run(tmp_path, "x") == 130
    return tmp_path


def by_hand(root: Path, name: str, epochs: list[int]) -> dict[str, Any]:
    """Train `x` from its checkpoint through whole epochs of the images of now; returns the model's state."""
    saved = cast(RunCheckpoint, final_state(root / name))
    config = values.from_dict(saved["config"], name)
    images = open_data(config.data, config.run.seed).training
    same_images: Any = {**saved, "data": images.fingerprint, "content": images.content}
    state = TrainingState(config, images, torch.device("cpu"), torch.float32, ALONE)
    state.restore(same_images, root / name)
    for epoch in epochs:
        state.step.set_learning_rate(state.schedule.rate(epoch))
        for batch in images.epoch(epoch):
            state.step(*batch.to(torch.device("cpu")))
    return dict(state.model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("change", ["grows", "shrinks"])
def test_a_run_goes_on_with_other_images_where_its_user_agrees(
    begun: Path, change: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compares with the second epoch begun anew and a third one, computed by hand, also after another interruption."""
    images = begun / "data" / "trainA"
    if change == "grows":
        for path in (begun / "more").iterdir():
            shutil.copy(path, images)
    else:
        for folder in ("trainA", "trainB"):
            (begun / "data" / folder / "0002.png").unlink()
    now = 6 if change == "grows" else 3
    counts = "4 A and 4 B then, 6 A and 4 B now" if change == "grows" else "4 A and 4 B then, 3 A and 3 B now"
    before = contents(begun / "x")
    assert run(begun, "x") == 2
    assert (
        f"error: the images changed since {begun / 'x'} was saved ({counts}): bring them back, or go on with those of "
        "now (--data-may-change), or give --name NEW for another run\n"
    ) in capfd.readouterr().err
    assert contents(begun / "x") == before

    expected = by_hand(begun, "x", [2, 3])
    shutil.copytree(begun / "x", begun / "stopped")
    assert run(begun, "x", "--data-may-change", "--keep-every-epochs", "1") == 2, "other settings stay refused"
    assert run(begun, "x", "--data-may-change") == 0
    output = capfd.readouterr().out
    assert f"steps {BEGUN} to {BEGUN + 2 * now}\n" in output
    assert f"the images changed ({counts}): epoch 2 begins anew with them, {now} steps an epoch\n" in output
    state = final_state(begun / "x")
    assert_same_state(state["model"], expected)
    assert state["finished"]
    assert [line["epoch"] for line in metrics(begun / "x")] == [1] * 4 + [2] * (1 + now) + [3] * now
    assert not values.load_config(begun / "x" / "config.yaml").data.data_may_change

    with monkeypatch.context() as patch:
        interrupt_at(BEGUN + now + 1, patch)
        assert run(begun, "stopped", "--data-may-change") == 130
    assert run(begun, "stopped") == 0, "no consent is needed once the change is saved"
    assert_same_state(final_state(begun / "stopped"), {**state, "config": final_state(begun / "stopped")["config"]})
    assert metrics(begun / "stopped") == metrics(begun / "x")


def test_a_checkpoint_that_does_not_say_how_long_epochs_were_is_not_changed(
    begun: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(older(final_state(begun / "x"), "epochs"), begun / "x/checkpoints/last.pt")
    shutil.copytree(begun / "x", begun / "same")
    (begun / "data" / "trainA" / "0000.png").rename(begun / "0000.png")
    assert run(begun, "x", "--data-may-change") == 2
    assert "did not note how long its epochs were" in capfd.readouterr().err
    (begun / "0000.png").rename(begun / "data" / "trainA" / "0000.png")
    assert run(begun, "same") == 0
    assert final_state(begun / "same")["epochs"] == {"steps": 4, "from_step": 0, "from_epoch": 0, "images": [4, 4]}


@pytest.mark.parametrize("changes", [[], [(7, 3)], [(8, 3), (20, 6)], [(7, 3), (8, 5), (9, 2)]])
def test_epochs_are_counted_as_they_are_taken(changes: list[tuple[int, int]]) -> None:
    """Compares with steps taken one after another, of epochs that begin anew where images change."""
    epochs, lengths = Epochs(4), dict(changes)
    whole, rest = 0, 0
    for step in range(40):
        if step in lengths:
            epochs, rest = epochs.changed(step, Epochs(lengths[step])), 0
        assert epochs.at(step) == (whole, rest)
        assert epochs.begun_by(step) == whole + (rest > 0)
        if rest == 0:
            assert epochs.end_of(whole) == step
        rest += 1
        if rest == epochs.steps:
            whole, rest = whole + 1, 0
