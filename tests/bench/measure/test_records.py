"""Results are kept as data that others can read, and nothing recorded is lost."""

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench.measure.limits import Limits
from bench.measure.machine import ROOT, Stamp
from bench.measure.records import (
    RESULTS_FOLDER,
    Comparison,
    RecordedRun,
    ResultRecorder,
    Timing,
    newest,
    path_for,
    read,
)
from bench.measure.timing import Spread
from tests.bench.result_samples import CPU, LIMITS, comparison, cpu_run, gpu_run, stamp, store

ADDED_LATER = {"absent", "kernels_ms"}
"""Fields that the results recorded first do not have."""
SCHEMA = json.loads((RESULTS_FOLDER / "schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PARTS = {
    "stamp": Stamp,
    "limits": Limits,
    "comparison": Comparison,
    "timing": Timing,
    "spread": Spread,
    "run": RecordedRun,
}


def two_runs(folder: Path) -> tuple[Path, RecordedRun, RecordedRun]:
    first = RecordedRun(
        stamp(date="2026-11-26T10:00:00+00:00"), LIMITS[CPU], [comparison({"plain PyTorch": 3.0, "ours": 2.0})]
    )
    second = RecordedRun(
        stamp(date="2026-11-27T10:00:00+00:00"), LIMITS[CPU], [comparison({"plain PyTorch": 3.0, "ours": 1.0})]
    )
    store(folder, first, second)
    return path_for(CPU, folder), first, second


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path, first, second = two_runs(tmp_path)
    assert read(path) == [first, second]
    # Five digits are kept.
    store(tmp_path, RecordedRun(stamp(), LIMITS[CPU], [comparison({"ours": 1 / 3})]))
    assert read(path)[0].comparisons[0].contenders["ours"].ms.median == 0.33333


def test_the_newest_of_each_task_wins_and_the_older_stays_in_the_file(tmp_path: Path) -> None:
    path, first, second = two_runs(tmp_path)
    runs = read(path)
    assert list(newest(runs)) == [(second, second.comparisons[0])]
    assert runs[0] == first
    other = comparison({"ours": 1.0}, dtype="float32")
    assert list(newest([RecordedRun(first.stamp, first.limits, [other]), *runs])) == [
        (RecordedRun(first.stamp, first.limits, [other]), other),
        (second, second.comparisons[0]),
    ]


def test_a_recorder_keeps_earlier_runs(tmp_path: Path) -> None:
    path, first, second = two_runs(tmp_path)
    added = [comparison({"ours": 5.0}), comparison({"ours": 6.0}, batch=2)]
    recorder = ResultRecorder(path, stamp(commit="89abcde"), LIMITS[CPU])
    assert read(path) == [first, second]
    for each in added:
        recorder.add(each)
    assert read(path) == [first, second, RecordedRun(stamp(commit="89abcde"), LIMITS[CPU], added)]


KILLED = """
import os, signal, sys
from pathlib import Path
from bench.measure.records import ResultRecorder
from tests.bench.result_samples import CPU, LIMITS, comparison, stamp
recorder = ResultRecorder(Path(sys.argv[1]), stamp(), LIMITS[CPU])
for ms in (5.0, 6.0):
    recorder.add(comparison({"ours": ms}))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_between_comparisons_loses_none(tmp_path: Path) -> None:
    path, first, second = two_runs(tmp_path)
    finished = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert finished.returncode == -signal.SIGKILL
    measured = [comparison({"ours": ms}) for ms in (5.0, 6.0)]
    assert read(path) == [first, second, RecordedRun(stamp(), LIMITS[CPU], measured)]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"format": 1}', '{"format": 99, "runs": []}', '{"format": 1, "runs": [3]}']
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"{path} is no file of results: .*; move it away"):
        read(path)


def test_a_file_cut_short_is_named_and_not_written_over(tmp_path: Path) -> None:
    path, *_ = two_runs(tmp_path)
    cut = path.read_bytes()[:-20]
    path.write_bytes(cut)
    with pytest.raises(ValueError, match=path.name):
        ResultRecorder(path, stamp(), LIMITS[CPU])
    assert path.read_bytes() == cut


def test_the_schema_is_one_and_has_the_fields_of_the_records() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name, part in PARTS.items():
        fields = {field.name for field in dataclasses.fields(part)}
        definition = SCHEMA["$defs"][name]
        assert set(definition["properties"]) == fields, name
        assert set(definition["required"]) == fields - ADDED_LATER, name
        assert definition["additionalProperties"] is False


def test_recorded_results_match_the_schema() -> None:
    for path in RESULTS_FOLDER.glob("*.json"):
        if path.name != "schema.json":
            VALIDATOR.validate(json.loads(path.read_text()))


@pytest.fixture
def content(tmp_path: Path) -> Any:
    store(tmp_path, gpu_run(), cpu_run())
    return json.loads(path_for(CPU, tmp_path).read_text())


def test_the_samples_match_the_schema(content: Any, tmp_path: Path) -> None:
    for path in tmp_path.glob("*.json"):
        VALIDATOR.validate(json.loads(path.read_text()))


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "another format": (lambda content: content.update(format=2), "1 was expected"),
    "a field too many": (lambda content: content.update(note=""), "'note' was unexpected"),
    "no date": (lambda content: content["runs"][0]["stamp"].pop("date"), "'date' is a required property"),
    "a date without a zone": (
        lambda content: content["runs"][0]["stamp"].update(date="2026-11-27T10:00:00"),
        "does not match",
    ),
    "no limit": (lambda content: _first(content).pop("limit_ms"), "'limit_ms' is a required property"),
    "a limit in words": (lambda content: _first(content).update(limit_ms="2 ms"), "'2 ms' is not of type"),
    "a batch of none": (lambda content: _first(content).update(batch=0), "0 is less than the minimum of 1"),
    "a mean in a spread": (lambda content: _first(content)["again"].update(mean=1.0), "'mean' was unexpected"),
    "a contender without a time": (lambda content: _timing(content).pop("ms"), "'ms' is a required property"),
    "a time of nothing": (
        lambda content: _timing(content)["ms"].update(median=0.0),
        "less than or equal to the minimum of 0",
    ),
    "a refusal without a reason": (lambda content: _first(content).update(refused={"one": ""}), "should be non-empty"),
}


def _first(content: Any) -> Any:
    return content["runs"][0]["comparisons"][0]


def _timing(content: Any) -> Any:
    return _first(content)["contenders"]["ours"]


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses(name: str, content: Any) -> None:
    damage, message = WRONG[name]
    damage(content)
    with pytest.raises(jsonschema.ValidationError, match=message):
        VALIDATOR.validate(content)
