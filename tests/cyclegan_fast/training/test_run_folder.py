"""Holds what a run's folder does when somebody else changes it: it is removed, emptied, or left between two renames."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyclegan_fast import train
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.log import RunLog
from cyclegan_fast.training.run_folder import GoneRun, RunFolder
from tests.cyclegan_fast.training.test_train import assert_same_state, command, final_state, metrics


@pytest.fixture
def opened(tmp_path: Path) -> RunFolder:
    """Writes a run's folder with a checkpoint, and opens it as its first rank does."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.pt").write_bytes(b"weights")
    (run / "config.yaml").write_text("")
    lock = open(run / ".lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return RunFolder(run, None, [], lock)


def removed(run: Path) -> None:
    shutil.rmtree(run)


def moved(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def made_again(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()
    (run / ".lock").touch()
    (run / "config.yaml").touch()


def emptied(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "config.yaml").unlink()


def without_its_settings(run: Path) -> None:
    (run / "config.yaml").unlink()


def without_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removed, "run was removed or moved while it was trained: at its place nothing of it is kept; the same"),
        (moved, "run was removed or moved while it was trained: at its place nothing of it is kept; the same"),
        (made_again, "run was removed while it was trained, and another process has made it again"),
        (emptied, "config.yaml was removed while the run was trained: nothing of it is kept; the same command begins"),
        (without_its_settings, "config.yaml was removed while the run was trained: its checkpoints are: bring config"),
        (without_checkpoints, "checkpoints was removed or emptied while the run was trained: nothing is kept; bring"),
    ],
)
def test_what_is_gone_is_told_with_what_is_kept(opened: RunFolder, change: Callable[[Path], None], said: str) -> None:
    opened.raise_if_gone(saved_step=5)
    change(opened.path)
    with pytest.raises(GoneRun, match=said):
        opened.raise_if_gone(saved_step=5)


def test_a_lock_that_was_removed_alone_ends_no_training(opened: RunFolder) -> None:
    (opened.path / ".lock").unlink()
    opened.raise_if_gone(saved_step=5)


def test_a_run_whose_folder_goes_away_ends_without_a_claim_and_begins_anew(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = RunLog.add
    arguments = command(folder, tmp_path / "runs", "gone", "--max-steps", "12")

    def removing(log: RunLog, losses: Any) -> None:
        if log.step == 7:
            shutil.rmtree(log.run)
        add(log, losses)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "add", removing)
        assert train.main(arguments) == 2
    (error,) = (line for line in capfd.readouterr().err.splitlines() if "error:" in line)
    assert error.endswith(
        "gone was removed or moved while it was trained: at its place nothing of it is kept; the same "
        "command begins it anew"
    )
    assert not (tmp_path / "runs" / "gone").exists()
    assert train.main(arguments) == 0
    assert train.main(command(folder, tmp_path / "runs", "whole", "--max-steps", "12")) == 0
    assert_same_state(final_state(tmp_path / "runs" / "gone"), final_state(tmp_path / "runs" / "whole"))
    assert metrics(tmp_path / "runs" / "gone") == metrics(tmp_path / "runs" / "whole")


@pytest.mark.parametrize("moment", ["before the first rename", "between the renames"])
def test_the_newest_checkpoint_gets_its_name_where_an_earlier_start_was_ended_before(
    moment: str, folder: Path, tmp_path: Path
) -> None:
    arguments = command(folder, tmp_path, "run", "--max-steps", "6")
    assert train.main(arguments) == 0
    kept = tmp_path / "run" / "checkpoints"
    last, previous = checkpoint.load(kept / "last.pt"), checkpoint.load(kept / "previous.pt")
    assert (last["log"]["step"], previous["log"]["step"]) == (6, 5)
    (kept / "last.pt").rename(kept / "incoming.pt")
    if moment == "before the first rename":
        (kept / "previous.pt").rename(kept / "last.pt")
    assert train.main(arguments) == 0  # finished
    assert not (kept / "incoming.pt").exists()
    assert_same_state(checkpoint.load(kept / "last.pt"), last)
    assert_same_state(checkpoint.load(kept / "previous.pt"), previous)


def test_a_file_whose_folder_is_gone_is_not_called_unharmed(tmp_path: Path) -> None:
    from cyclegan_fast.system.files import write_atomically

    with pytest.raises(UserError, match=r"could not write .*index.html: No such file or directory; .*gone is gone$"):
        write_atomically(tmp_path / "gone" / "index.html", b"")
