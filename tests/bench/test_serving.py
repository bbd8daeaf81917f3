"""Loads a tiny service for moments by the command."""

import pytest

from bench.serving import main


@pytest.mark.slow
def test_a_tiny_service_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--size", "16", "--width", "4", "--blocks", "1", "--seconds", "0.3", "--rounds", "1"]
    assert main([*flags, "--clients", "1", "9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[3:]]
    assert [row[0] for row in rows] == ["engine alone, 1 at once", "engine alone, 8 at once", "1 client", "9 clients"]
    assert rows[0][2] == "1.00"
    for _, images_a_second, ratio, p50, p99 in rows:
        assert float(images_a_second) > 0
        assert float(ratio) > 0
        assert float(p50) <= float(p99)
