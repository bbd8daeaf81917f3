"""Test that a checkpoint is taken whole or not at all: any change of an entry is refused, or changes nothing."""

import copy
import os
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.consistency import check_content
from cyclegan_fast.checkpoint.content import RunCheckpoint
from cyclegan_fast.config.options import Config, DataConfig, LossConfig, OptimizerConfig
from cyclegan_fast.config.values import from_dict
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.formats import NewerFormat
from cyclegan_fast.training.history.resumable import check_resumable
from tests.cyclegan_fast.checkpoint.mutations import Place, mutations_at, places, with_entry
from tests.cyclegan_fast.checkpoints import NARROW, checkpoint_of, narrow_checkpoint, older

HARMLESS = (
    # The run's own configuration and code decide about these, and not the checkpoint's.
    r"config(\.\w+){0,2}(\.\d)?",
    r"step\.\w+\.optimizer\.param_groups\.0(\.(?!params).*)?",
    r"ranks\.0\.schedule\.\w+",
    r"ranks\.0\.random\.cuda",  # the state of a GPU, which the CPU has no use for
    # They count, compare or describe what is shown, and touch no weight.
    r"log\.(elapsed_s|since_s)",
    r"log\.losses\.(finite|lost|in_a_row|sums)",  # as other numbers of the same values
    r"(finished|best|begun_with|written_by|checkpoint_format)(\.\w+)?",
    # They are compared with what is there when the run goes on, which then ends with a line.
    r"(data|content|dtype|prepared)",
    r"ranks",  # another number of processes
)
"""Matches the places whose changes may be taken. `tests/faults/checkpoints.py` holds that the run then ends alike."""


@cache
def whole() -> dict[str, Any]:
    """Return a checkpoint after 3 steps, as it is written, with two images in a pool."""
    config = Config(
        data=DataConfig(load_size=36, crop_size=32), networks=NARROW, loss=LossConfig(pool_size=4), optimizer=_OPTIMIZER
    )
    content: dict[str, Any] = {**checkpoint_of(config, {}, step=3)}
    images = [torch.full((3, 32, 32), shade) for shade in (-1.0, 0.5)]
    content["ranks"][0]["step"]["pool_A"] = {"images": images, "filled": 2}
    content["best"] = {"step": 2, "name": "a2b.truth.ssim", "value": 0.5}
    return {**content, "checkpoint_format": 1, "written_by": "0.1.0"}


_OPTIMIZER = OptimizerConfig(epochs=5, decay_epochs=0)


def taken(content: dict[str, Any]) -> bool:
    """Return whether a training would go on from this content; anything but a UserError of one line is raised."""
    of_run = from_dict(whole()["config"], "")
    try:
        checkpoint.checked_run(Path("x.pt"), content, partial(check_resumable, of_run=of_run, went_back=0))
        return True
    except UserError as error:
        refusal = str(error)
    assert refusal.startswith("x.pt ")
    assert "\n" not in refusal
    return False


def in_words(place: Place) -> str:
    return ".".join(map(str, place))


def test_what_is_written_is_taken() -> None:
    assert taken(whole())
    assert taken({**older(whole(), "content", "prepared", "epochs", "begun_with", "best", "rollbacks")})


def test_a_checkpoint_of_another_version_may_lack_entries_and_have_settings_that_are_unknown() -> None:
    content = {**whole(), "written_by": "0.0.9"}
    content["config"] = {**content["config"], "run": {**content["config"]["run"], "gone": 3}}
    assert taken(older(content, "shares"))
    assert taken({name: value for name, value in content.items() if name != "shares"})
    assert not taken({**content, "written_by": whole()["written_by"]})


def test_a_run_goes_on_where_adam_counts_no_further() -> None:
    """Fails where Adam's float32 count of steps, which stays at 2^24, must be the run's."""
    steps = 2**24 + 1
    content = copy.deepcopy(whole())
    content["log"]["step"] = content["step"]["steps_taken"] = steps
    content["epochs"] = {"steps": 1, "from_step": steps, "from_epoch": 0, "images": [1, 1]}
    for side in ("generators", "discriminators"):
        for moments in content["step"][side]["optimizer"]["state"].values():
            moments["step"] = torch.tensor(float(steps - 1)) + 1
    check_content(content)


PLACES = [*places(whole()), ()]

MANY = ("config", "model", "state")
SCARCE = [place for place in PLACES if not any(name in place[:4] for name in MANY)]
"""The places apart from the many alike of settings, weights and moments."""


@settings(max_examples=150, deadline=None)
@given(place=st.one_of(st.sampled_from(SCARCE), st.sampled_from(PLACES)), data=st.data())
def test_any_change_of_an_entry_is_refused_or_harmless(place: Place, data: st.DataObject) -> None:
    what, changed = data.draw(st.sampled_from([*mutations_at(whole(), place)]), label="change")
    if taken(changed):
        assert any(re.fullmatch(pattern, in_words(place)) for pattern in HARMLESS), f"{in_words(place)}: {what}"


STEM = ("model", "G_A.stem.weight")
POOL = ("ranks", 0, "step", "pool_A", "images", 1)
SQUARES = ("step", "generators", "optimizer", "state", 2, "exp_avg_sq")
WRONG: list[tuple[Place, object, str]] = [
    (("log", "step"), -5, "log.step is -5, not 0 to 10000000000"),
    (("log", "step"), 10**12, "log.step is 1000000000000, not 0 to 10000000000"),
    (("log", "step"), 4, "step.steps_taken is 3, and log.step is 4"),
    (("log",), None, "log is None instead of named entries"),
    (STEM, "x", "model.G_A.stem.weight is 'x' instead of a tensor"),
    (STEM, torch.zeros(5, 3, 7, 7), "G_A.stem.weight is (5, 3, 7, 7) instead of (4, 3, 7, 7)"),
    (STEM, torch.zeros(4, 3, 7, 7).int(), "model.G_A.stem.weight is of int32 instead of float32"),
    (STEM, torch.full((4, 3, 7, 7), torch.nan), "model.G_A.stem.weight has elements that are infinite or NaN"),
    (SQUARES, torch.full((3,), -1.0), "step.generators.optimizer.state.2.exp_avg_sq has elements from -1 to -1"),
    (("ranks", 0, "random", "cpu"), torch.zeros(3).byte(), "ranks[0].random.cpu is no state of PyTorch's generator"),
    (POOL, torch.zeros(3, 32, 28), "images[1] is [3, 32, 28], and crops have 32 pixels"),
    (
        ("config", "data", "crop_size"),
        "big",
        "config cannot be: crop_size must be a multiple of 4 from 24 to 65536, got 'big'",
    ),
    (("epochs", "steps"), 0, "epochs.steps is 0, not 1 to"),
    (POOL[:-2], {"images": [torch.zeros(1, 32, 32)], "filled": 1}, "step.pool_A has images of 1 channel instead of 3"),
]


@pytest.mark.parametrize(("place", "value", "said"), WRONG)
def test_what_is_wrong_is_named(place: Place, value: object, said: str) -> None:
    with pytest.raises(checkpoint.DamagedCheckpoint, match=re.escape(said)):
        checkpoint.checked_run(
            Path("runs/x/last.pt"),
            with_entry(whole(), place, value),
            partial(check_resumable, of_run=from_dict(whole()["config"], ""), went_back=0),
        )


def test_the_one_before_is_used_where_the_newest_has_wrong_content(tmp_path: Path) -> None:
    for _ in range(2):
        checkpoint.save(tmp_path, narrow_checkpoint())
    last = tmp_path / "checkpoints" / "last.pt"
    torch.save(with_entry(checkpoint.load(last), ("log", "step"), -5), last)
    warnings: list[str] = []
    found = checkpoint.find_newest(tmp_path, warnings)
    assert found is not None
    assert found[0].name == "previous.pt"
    assert warnings == [
        f"{last} is damaged or was changed: log.step is -5, not 0 to 10000000000; going back to previous.pt"
    ]


def test_what_would_be_refused_is_not_written(tmp_path: Path) -> None:
    content: RunCheckpoint = {**narrow_checkpoint()}
    content["log"] = {**content["log"], "step": 7}
    with pytest.raises(ValueError, match=r"steps_taken is 0, and log\.step is 7"):
        checkpoint.save(tmp_path, content)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"checkpoint_format": 2, "written_by": "0.3.0"}, "was written by cyclegan-fast 0.3.0 and this is "),
        ({"checkpoint_format": 2}, "pip install --upgrade 'cyclegan-fast>=0.1.0'"),
        ({"checkpoint_format": 2, "written_by": "$(x)"}, "was written by a newer cyclegan-fast and this is "),
        ({"written_by": "77.0", "stranger": 1}, "'cyclegan-fast>=77.0'"),
    ],
)
def test_a_newer_checkpoint_is_not_passed_over(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    for _ in range(2):
        checkpoint.save(tmp_path, narrow_checkpoint())
    last = tmp_path / "checkpoints" / "last.pt"
    torch.save({**checkpoint.load(last), **changes}, last)
    with pytest.raises(NewerFormat, match=re.escape(said)):
        checkpoint.load_newest(tmp_path, [])


def _as_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_as_fifo, "is no file but a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file but a device or a socket"),
        (lambda path: path.symlink_to(path.name), "is cut off or damaged: "),
    ],
)
def test_what_is_no_file_is_not_read(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    for best in (1.0, 2.0):
        checkpoint.save(tmp_path, {**narrow_checkpoint(), "best": {"step": 0, "name": "x", "value": best}})
    last = tmp_path / "checkpoints" / "last.pt"
    last.unlink()
    make(last)
    warnings: list[str] = []
    found = checkpoint.load_newest(tmp_path, warnings)
    assert found is not None
    assert said in warnings[0]
    checkpoint.save(tmp_path, found)
    assert last.is_file()
    assert (tmp_path / "checkpoints" / "previous.pt").is_file(), "the pipe does not take the place of a checkpoint"


def test_a_folder_in_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "last.pt").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder, where a checkpoint is to be: move it away"):
        checkpoint.load_newest(tmp_path, [])
