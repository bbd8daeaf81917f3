"""Crops of a small made scene are measured against files by the command, which removes what it made."""

from pathlib import Path

import pytest

from bench.scene_crops import main


@pytest.mark.slow
def test_crops_of_a_small_scene_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--side", "600", "--crop", "64", "--crops", "4", "--rounds", "2"]
    assert main([*sizes, "--folder", str(tmp_path)]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["JPEG", "deflate"]
    assert all(float(number) > 0 for row in rows for number in row[1:4])
    assert not list(tmp_path.iterdir()), "what was made is removed"
