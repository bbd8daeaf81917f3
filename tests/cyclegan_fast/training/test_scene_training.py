"""Trainings on scenes by the command: killed, continued to the same bits, scored, shown, and told of changed files."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from cyclegan_fast import train
from cyclegan_fast.evaluate import main as evaluate
from tests.cyclegan_fast.conftest import TINY
from tests.cyclegan_fast.data.scenes.made import tissue, write_scene
from tests.cyclegan_fast.training.test_train import (
    assert_same_state,
    final_state,
    metrics,
    start,
)


def data_of(root: Path) -> Path:
    for seed, name in enumerate(("trainA", "trainB", "testA", "testB")):
        write_scene(root / "data" / name / "0.tif", tissue(192, seed, radius=70))
    write_scene(root / "data" / "trainA" / "1.svs", tissue(128, 6, radius=50))
    return root / "data"


def command(root: Path, name: str, *flags: str) -> list[str]:
    small = [*TINY, "--report-every", "3", "--checkpoint-every", "5", "--sample-every", "20", "--pool-size", "5"]
    scenes = ["--scenes", "yes", "--crops-per-epoch", "11", "--batch-size", "2"]
    return ["--data", str(root / "data"), "--runs", str(root), "--name", name, *small, *scenes, *flags]


def kill_behind_a_checkpoint(process: subprocess.Popen[str], run: Path) -> None:
    """SIGKILL as soon as there is a checkpoint; the run must be under way then."""
    while process.poll() is None and not (run / "checkpoints" / "last.pt").exists():
        time.sleep(0.005)
    process.kill()
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output


@pytest.mark.slow
def test_a_killed_run_on_scenes_ends_as_the_undisturbed_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data_of(tmp_path)
    assert train.main(command(tmp_path, "whole", "--workers", "0", "--max-steps", "30")) == 0
    assert "note: 11 random crops of 32x32 an epoch, from 2 scenes in" in capfd.readouterr().out
    arguments = command(tmp_path, "killed", "--workers", "3", "--max-steps", "30")
    kill_behind_a_checkpoint(start(arguments), tmp_path / "killed")
    assert 0 < final_state(tmp_path / "killed")["log"]["step"] < 30
    first_line = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()[0]
    assert train.main(arguments) == 0
    kept = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()[0]
    assert kept == first_line, "with the time that it took then: the run was not begun anew"
    assert_same_state(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert (tmp_path / "killed" / "index.html").exists()
    for one in (tmp_path / "whole" / "samples").iterdir():
        assert one.read_bytes() == (tmp_path / "killed" / "samples" / one.name).read_bytes(), one.name
    capfd.readouterr()
    assert evaluate(["--checkpoint", str(tmp_path / "whole"), "--device", "cpu"]) == 0
    said = capfd.readouterr().out
    assert "crops of 32x32 side by side, from 1 scene in" in said
    assert "reconstructed, G_B(G_A(A)) against A" in said


def test_changed_scenes_are_refused_on_the_way_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data_of(tmp_path)
    assert train.main(command(tmp_path, "run", "--max-steps", "2")) == 0
    write_scene(tmp_path / "data" / "trainA" / "0.tif", tissue(192, 8, radius=60))
    assert train.main(command(tmp_path, "run", "--max-steps", "3")) == 2
    assert "the images changed since" in capfd.readouterr().err
    assert train.main(command(tmp_path, "run", "--max-steps", "3", "--data-may-change")) == 0
    assert train.main(command(tmp_path, "run", "--max-steps", "4", "--data-may-change", "--least-data", "0.4")) == 2
    assert "least_data: 0.5 -> 0.4" in capfd.readouterr().err
