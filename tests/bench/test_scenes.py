"""Measures a small scene by the command, which removes what it made."""

from pathlib import Path

import pytest

from bench.scenes import main


@pytest.mark.slow
def test_a_small_scene_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sides", "300", "--width", "4", "--blocks", "1", "--empty", "50", "--folder", str(tmp_path)]) == 0
    row = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    side, time_s, computed_s, peak_mib, scratch_gib, written_gib, difference = row
    assert 0 <= float(computed_s) <= float(time_s) + 1
    assert int(difference.split()[0]) <= 1
    assert side == "300"
    assert 0 <= float(time_s) < 100
    assert 1 < float(peak_mib) < 2000
    assert float(scratch_gib) == pytest.approx((2 * 150 * 300 * 4 * 4 + 150 * 150 * 3) / 2**30, rel=0.01)
    assert 0 < float(written_gib) < 0.001
    assert not list(tmp_path.iterdir()), "what was made is removed"
