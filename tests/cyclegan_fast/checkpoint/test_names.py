"""Test names of trained weights: which file each of them stands for, and what is said where there is none."""

from pathlib import Path

import pytest

from cyclegan_fast.checkpoint.names import find_weights, kept_in_words, kept_under
from cyclegan_fast.system.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Makes a run's folder with empty files in the place of checkpoints."""
    folder = tmp_path / "runs" / "x"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("last", "previous", "best", "epoch_0005", "epoch_0120", "epoch_12345", "epoch_of_another"):
        (folder / "checkpoints" / f"{name}.pt").touch()
    return folder


@pytest.mark.parametrize(
    ("which", "file"),
    [
        ("latest", ""),
        ("best", "checkpoints/best.pt"),
        ("5", "checkpoints/epoch_0005.pt"),
        ("0120", "checkpoints/epoch_0120.pt"),
        ("12345", "checkpoints/epoch_12345.pt"),
    ],
)
def test_a_name_stands_for_a_file_that_a_run_keeps(run: Path, which: str, file: str) -> None:
    found = find_weights(Path(f"{run}@{which}"))
    assert found == run / file
    assert kept_under(found) == ("" if which == "latest" else which.lstrip("0"))
    assert find_weights(Path(f"{run}/@{which}")) == run / file


def test_what_exists_is_meant_itself_also_with_an_at_in_its_name(run: Path) -> None:
    other = run.with_name("x@120")
    assert find_weights(other) == run / "checkpoints" / "epoch_0120.pt"
    (other / "checkpoints").mkdir(parents=True)
    assert find_weights(other) == other
    (other / "checkpoints" / "epoch_0007.pt").touch()
    assert find_weights(Path(f"{other}@7")) == other / "checkpoints" / "epoch_0007.pt"
    file = run / "photo@2.pth"
    file.touch()
    for name in (file, run, run / "nothing.pth", run / "no@thing.pth"):
        assert find_weights(name) == name


def test_an_epoch_that_is_not_kept_is_answered_with_those_that_are(run: Path) -> None:
    with pytest.raises(UserError) as refused:
        find_weights(Path(f"{run}@7"))
    assert str(refused.value) == (
        f"{run} keeps no checkpoint @7, but @latest, @best, @5, @120, @12345; --keep-every-epochs N of the training "
        "keeps more"
    )
    for nowhere in (f"{run.parent}/y@7", f"{run.parent}/y@best"):
        with pytest.raises(UserError, match="y is no run with a checkpoint"):
            find_weights(Path(nowhere))
    with pytest.raises(UserError, match="hub:b@120 is no name on the hub"):
        find_weights(Path("hub:b@120"))


def test_of_many_kept_checkpoints_the_middle_is_left_out(run: Path) -> None:
    for epoch in range(1, 201):
        (run / "checkpoints" / f"epoch_{epoch:04d}.pt").touch()
    assert kept_in_words(run, most=6) == "@latest, @best, @1, ..., @199, @200, @12345"
    assert kept_in_words(run.parent) == ""
    assert kept_under(run / "checkpoints" / "last.pt") == kept_under(run / "best.pt") == ""
