"""Formats are made in processes of their own: one that crashes, raises or fills the disk leaves the others alone."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from export import to_formats
from export.formats.export_format import ExportFormat
from tests.export.formats import stand_ins

GENERATOR = "latest_net_G"


@pytest.fixture
def with_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets --format name the formats of stand_ins.py, in the order in which they are given."""
    of_name = {
        kind.name: kind()
        for kind in vars(stand_ins).values()
        if isinstance(kind, type) and issubclass(kind, ExportFormat) and kind is not ExportFormat
    }

    def chosen(names: str) -> Sequence[ExportFormat]:
        return [of_name[name] for name in names.split(",")]

    monkeypatch.setattr(to_formats, "chosen_formats", chosen)


@pytest.mark.slow
@pytest.mark.usefixtures("with_stand_ins")
def test_what_one_format_does_ends_none_of_the_others(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    names = "crashes,raises,fills-the-disk,lacks-its-package,differs,runs-elsewhere,whole"
    arguments = [str(weights), "--format", names, "--out", str(out), "--size", "32", "--rounds", "1", "--threads", "1"]
    assert to_formats.main(arguments) == 1
    printed = capsys.readouterr()
    rows = {row["format"]: row for row in json.loads((out / "formats.json").read_text())["rows"]}
    assert list(rows) == names.split(",")
    assert rows["crashes"]["failure"] == "could not be made: its process ended by SIGSEGV"
    log = f"{GENERATOR}-raises.log"
    assert rows["raises"]["failure"] == (
        f"could not be made: KeyError: 'no such operator'; {log} has the converter's words"
    )
    assert "the converter's own words" in (out / log).read_text()
    assert "No space left on device" in rows["fills-the-disk"]["failure"]
    assert rows["lacks-its-package"]["failure"] == (
        "no_such_package_at_all is not installed: pip install no-such-package"
    )
    assert rows["differs"]["failure"].startswith("differs by up to")
    assert rows["runs-elsewhere"]["not_run"] == "it is for another machine"
    assert rows["runs-elsewhere"]["size_mb"] == 10 / 1e6
    assert (rows["whole"]["psnr_db"], rows["whole"]["largest"], rows["whole"]["failure"]) == ("inf", 0, None)
    # Nothing is left but whole files, the table, and the log of what went wrong in words of its own.
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["formats.json", "formats.md", log]
        + [f"{GENERATOR}.{ending}" for ending in ("differs", "elsewhere", "elsewhere.package", "whole")]
    )
    # The printed table has a line for each, and the errors name those that are not right.
    for name in names.split(","):
        assert f"\n{name} " in printed.out
    assert [line.split(":")[1].split(", ")[1] for line in printed.err.splitlines() if line.startswith("error")] == (
        names.split(",")[:5]
    )
    assert "| whole | latest_net_G |" in (out / "formats.md").read_text()

    # The same command again, for one of them, keeps what is still there.
    (out / f"{GENERATOR}.differs").unlink()
    assert to_formats.main([str(weights), "--format", "whole", "--size", "32", "--rounds", "1", "--out", str(out)]) == 0
    rows = {row["format"]: row for row in json.loads((out / "formats.json").read_text())["rows"]}
    assert list(rows) == ["whole", "runs-elsewhere"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--format", "onx"], "--format: no format is called 'onx'; did you mean onnx?"),
        (["--format", "tensorrt_rtx"], "did you mean tensorrt-rtx?"),
        (["--format", "jpeg,onnx"], "no format is called 'jpeg'; there are onnx, openvino, "),
        (["--format", "onnx,ncnn,onnx"], "--format names onnx twice: give each name once"),
        (["--format", "all,onnx"], "--format all stands by itself"),
        (["--format", ""], "no format is called ''"),
        (["--rounds", "0"], "--rounds must be a whole number from 1 to 10^6, got 0"),
        (["--size", "62"], "--size must be a multiple of 4"),
        (["--format", "onnx", "--out", "FILE"], "a-file"),
        (["--format", "onnx", "--out", "FILE/inside"], "a-file"),
        (["--format", "onnx", "--threads", "4000"], "--threads must be between 1 and"),
    ],
)
def test_bad_arguments_get_one_line_and_write_nothing(
    arguments: list[str], reason: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a-file").write_text("mine")
    given = [word.replace("FILE", str(tmp_path / "a-file")) for word in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    assert to_formats.main([str(weights), *given, *out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reason in line
    assert (tmp_path / "a-file").read_text() == "mine"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "rows": [{}]}', '{"format": 99, "rows": []}'])
def test_a_foreign_table_is_left_alone(
    content: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "formats.json"
    table.write_text(content)
    assert to_formats.main([str(weights), "--format", "onnx", "--out", str(tmp_path)]) == 2
    assert "formats.json" in capsys.readouterr().err
    assert table.read_text() == content
