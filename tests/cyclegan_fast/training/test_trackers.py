"""Test the trackers of --track: what each is given, that runs go on in them, and that they cannot end a training."""

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cyclegan_fast as cf
from cyclegan_fast.config.options import Config, TrackerName
from cyclegan_fast.runs import TRACKED
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.train import main
from cyclegan_fast.training.callbacks.callback import TrainingStart
from cyclegan_fast.training.trackers import choice
from cyclegan_fast.training.trackers.on_tensorboard import OnTensorboard
from cyclegan_fast.training.trackers.on_wandb import OnWandb
from tests.cyclegan_fast.conftest import TINY

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")

FLAGS = [*TINY, "--device", "cpu", "--name", "x", "--report-every", "2", "--checkpoint-every", "2"]


def train(folder: Path, *flags: str) -> int:
    return main([*FLAGS, "--data", str(folder), "--runs", str(folder.parent / "runs"), *flags])


def reports(folder: Path) -> dict[int, dict[str, float]]:
    """Return the values of each report of the run by the names that trackers get."""
    lines = (folder.parent / "runs" / "x" / "metrics.jsonl").read_text().splitlines()
    return {
        line["step"]: {f"loss/{name}": value for name, value in line["losses"].items()}
        | {name: line[name] for name in ("learning_rate", "images_per_s")}
        for line in map(json.loads, lines)
    }


def scores(folder: Path) -> dict[str, float]:
    rows = json.loads((folder.parent / "runs" / "x" / "results.json").read_text())["rows"]
    return {
        f"evaluation/{row['name']}.{name}": value
        for row in rows
        for name, value in row.items()
        if isinstance(value, float)
    }


# --- each tracker, with the calls of its library written down --------------------------------------------------------


class Calls:
    """Writes down the calls of a library that is not there, and answers with what they return."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def function(self, name: str, returned: Any = None) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.made.append((name, arguments, named))
            return returned

        return call

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(arguments, named) for made, arguments, named in self.made if made == name]


def install(monkeypatch: pytest.MonkeyPatch, name: str, content: dict[str, Any]) -> None:
    """Let a module of that name be imported, and seem to be installed."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin="made by a test")
    for attribute, value in content.items():
        setattr(module, attribute, value)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_wandb_gets_values_and_pictures_of_one_run(folder: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    run = SimpleNamespace(
        id="abc",
        log=calls.function("log"),
        finish=calls.function("finish"),
        define_metric=calls.function("define_metric"),
    )
    install(monkeypatch, "wandb", {"init": calls.function("init", run), "Image": lambda path: ("picture", path)})
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert train(folder, "--max-steps", "2", "--track", "wandb") == 0
    ((_, first),) = calls.of("init")
    assert (first["project"], first["name"], first["id"], first["resume"]) == ("mine", "x", None, None)
    assert first["dir"] == folder.parent / "runs" / "x"
    assert first["config"]["optimizer.learning_rate"] == 2e-4
    assert first["config"]["run.track"] == ["wandb"]
    logged = [arguments[0] for arguments, _ in calls.of("log")]
    assert {"step": 2, **reports(folder)[2]} in logged
    assert {"step": 2, **scores(folder)} in logged
    pictures = [value for values in logged for value in values.values() if isinstance(value, tuple)]
    assert len(pictures) == 4
    assert all(kind == "picture" and Path(path).is_file() for kind, path in pictures)
    assert calls.of("finish") == [((), {"exit_code": 0})]
    assert json.loads((folder.parent / "runs" / "x" / TRACKED).read_text()) == {"wandb": "abc"}

    assert train(folder, "--max-steps", "4", "--track", "wandb") == 0
    _, (_, second) = calls.of("init")
    assert (second["id"], second["resume"]) == ("abc", "allow")
    assert not (folder.parent / "runs" / "x" / "tensorboard").exists()


def test_mlflow_gets_values_and_pictures_of_one_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    client = SimpleNamespace(
        get_experiment_by_name=calls.function("get_experiment_by_name"),
        create_experiment=calls.function("create_experiment", "7"),
        create_run=calls.function("create_run", SimpleNamespace(info=SimpleNamespace(run_id="abc"))),
        **{name: calls.function(name) for name in ("log_batch", "log_artifact", "set_terminated", "update_run")},
    )
    install(monkeypatch, "mlflow", {"MlflowClient": lambda: client})
    entities = {"Param": lambda name, value: (name, value), "Metric": lambda *values: values}
    install(monkeypatch, "mlflow.entities", entities)
    assert train(folder, "--max-steps", "2", "--track", "mlflow") == 0
    assert calls.of("create_run") == [(("7",), {"run_name": "x"})]
    settings, *batches = [named for _, named in calls.of("log_batch")]
    assert ("optimizer.learning_rate", "0.0002") in settings["params"]
    found = {name: (value, step) for batch in batches for name, value, _, step in batch["metrics"]}
    assert found == {name: (value, 2) for name, value in {**reports(folder)[2], **scores(folder)}.items()}
    assert [arguments[2] for arguments, _ in calls.of("log_artifact")] == ["samples"] * 4
    assert calls.of("set_terminated") == [(("abc", "FINISHED"), {})]

    assert train(folder, "--max-steps", "4", "--track", "mlflow") == 0
    assert calls.of("update_run") == [(("abc",), {"status": "RUNNING"})]
    assert len(calls.of("create_run")) == 1


def test_trackio_gets_values_and_pictures_of_one_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    run = SimpleNamespace(name="x", log=calls.function("log"))
    content = {"init": calls.function("init", run), "finish": calls.function("finish"), "Image": lambda path: path}
    install(monkeypatch, "trackio", content)
    assert train(folder, "--max-steps", "2", "--track", "trackio", "tensorboard") == 0
    assert ((reports(folder)[2],), {"step": 2}) in calls.of("log")
    assert ((scores(folder),), {"step": 2}) in calls.of("log")
    assert train(folder, "--max-steps", "4", "--track", "trackio") == 0
    (_, first), (_, second) = calls.of("init")
    assert [named["resume"] for named in (first, second)] == ["never", "allow"]
    assert [named["name"] for named in (first, second)] == ["x", "x"]
    assert len(calls.of("finish")) == 2
    assert (folder.parent / "runs" / "x" / "tensorboard").exists()


def test_tensorboard_is_the_default_and_is_written_anew_from_the_checkpoint(folder: Path) -> None:
    assert train(folder, "--max-steps", "2") == 0
    assert train(folder, "--max-steps", "4") == 0
    board = EventAccumulator(str(folder.parent / "runs" / "x" / "tensorboard")).Reload()
    for step, values in reports(folder).items():
        for name, value in values.items():
            (found,) = [event.value for event in board.Scalars(name) if event.step == step]
            assert math.isclose(found, value, rel_tol=1e-6)
    assert [event.step for event in board.Scalars("evaluation/a2b.reconstruction.ssim")] == [2, 4]
    assert not (folder.parent / "runs" / "x" / TRACKED).exists()


# --- what is missing, and what fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["none", "wandb"], "track none stands by itself"),
        (["mlflow", "mlflow"], "track has one twice: mlflow, mlflow"),
        ([], "track needs one tracker at least"),
        (["neptune"], "track must be one of"),
    ],
    ids=" ".join,
)
def test_trackers_that_make_no_sense_are_refused(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cf.train(runs=tmp_path / "runs", track=flags)
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets wandb be a package that nobody has."""
    monkeypatch.setattr(OnWandb, "package", "wandb_that_nobody_has")


@pytest.mark.usefixtures("without_wandb")
def test_a_package_that_is_missing_is_named_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "wandb_that_nobody_has").mkdir()  # such as wandb leaves behind, which Python could import
    monkeypatch.syspath_prepend(folder.parent)
    assert train(folder, "--max-steps", "2", "--track", "wandb") == 2
    needs = "--track wandb needs the package wandb_that_nobody_has: pip install wandb_that_nobody_has"
    assert capsys.readouterr().err == f"error: {needs}\n"
    assert not (folder.parent / "runs").exists()


def failing_run(calls: Calls, fails_from: int) -> SimpleNamespace:
    def log(*arguments: Any) -> None:
        calls.function("log")(*arguments)
        if len(calls.of("log")) >= fails_from:
            raise ConnectionError("no route to host\nand many more lines")

    return SimpleNamespace(id="abc", log=log, finish=calls.function("finish"), define_metric=lambda *_, **__: None)


def test_a_tracker_that_fails_in_the_middle_is_noted_once_and_the_training_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: Calls
) -> None:
    run = failing_run(calls, fails_from=3)
    install(monkeypatch, "wandb", {"init": lambda **_: run, "Image": lambda path: path})
    assert train(folder, "--max-steps", "6", "--track", "wandb") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "--track" in line]
    reason = "ConnectionError: no route to host"
    assert said == [f"note: --track wandb failed and is left out from here on, the training goes on: {reason}"]
    assert len(calls.of("log")) == 3
    assert calls.of("finish") == []
    assert reports(folder).keys() == {2, 4, 6}


def test_a_file_that_tensorboard_cannot_write_is_noted_without_a_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    begin = OnTensorboard.start

    def start(self: OnTensorboard, start: TrainingStart, identity: str | None) -> str | None:
        begin(self, start, identity)
        shutil.rmtree(start.path / "tensorboard")  # where a thread of TensorBoard's will write
        return None

    monkeypatch.setattr(OnTensorboard, "start", start)
    hook = threading.excepthook
    try:
        assert train(folder, "--max-steps", "4") == 0
    finally:
        threading.excepthook = hook
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    assert said.out.count("note: --track tensorboard failed and is left out from here on, the training goes on") == 1


def test_a_tracker_that_cannot_start_ends_a_new_run_and_not_one_that_is_continued(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no API key")

    install(monkeypatch, "wandb", {"init": refuse})
    assert train(folder, "--max-steps", "2", "--track", "wandb") == 2
    said = "error: --track wandb could not start: RuntimeError: no API key; mend that, or leave it out"
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert not (folder.parent / "runs" / "x").exists()
    assert train(folder, "--max-steps", "2", "--track", "none") == 0
    assert train(folder, "--max-steps", "4", "--track", "wandb") == 0
    assert "note: --track wandb failed and is left out" in capsys.readouterr().out


def test_a_run_that_goes_back_starts_a_tracker_again_unless_it_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    """Does not end the run where a later start fails, also one from step 0."""
    run = failing_run(calls, fails_from=2)
    install(monkeypatch, "wandb", {"init": calls.function("init", run)})
    said: list[str] = []
    (tracking,) = choice.open_trackers(["wandb"], tell=said.append)
    start = TrainingStart(tmp_path, Config(), step=0, total_steps=8)
    for _ in range(2):
        tracking.on_start(start)
        tracking.on_evaluation(2, {})
        tracking.on_end(False)
    assert len(calls.of("finish")) == 1
    assert len(said) == 1
    tracking.on_start(start)
    assert len(calls.of("init")) == 2, "one that is lost is left out from there on"

    (tracking,) = choice.open_trackers(["wandb"], tell=said.append)
    tracking.on_start(start)
    monkeypatch.delattr(sys.modules["wandb"], "init")
    tracking.on_start(start)
    assert len(said) == 2


def test_every_tracker_that_can_be_named_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in get_args(TrackerName) if name != "none"]
    for name in names:
        if name != "tensorboard":
            install(monkeypatch, name, {})
    found = choice.open_trackers(names, tell=print)
    assert [tracking.tracker.package for tracking in found] == names
    assert choice.open_trackers(["none"], tell=print) == []


# --- the libraries themselves, where they are installed --------------------------------------------------------------


@pytest.mark.slow
def test_wandb_takes_a_run_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for steps in ("2", "4"):
        assert train(folder, "--max-steps", steps, "--track", "wandb") == 0
    run = folder.parent / "runs" / "x"
    identity = json.loads((run / TRACKED).read_text())["wandb"]
    parts = sorted((run / "wandb").glob(f"offline-run-*-{identity}"))
    assert len(parts) == 2
    assert all((part / f"run-{identity}.wandb").stat().st_size > 1000 for part in parts)


@pytest.mark.slow
def test_mlflow_takes_a_run_into_a_database(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(folder.parent)
    mlflow.set_tracking_uri(f"sqlite:///{folder.parent}/mlflow.db")
    for steps in ("2", "4"):
        assert train(folder, "--max-steps", steps, "--track", "mlflow") == 0
    client = mlflow.MlflowClient()
    identity = json.loads((folder.parent / "runs" / "x" / TRACKED).read_text())["mlflow"]
    found = client.get_run(identity)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "x")
    assert found.data.params["optimizer.learning_rate"] == "0.0002"
    history = {point.step: point.value for point in client.get_metric_history(identity, "loss/cycle_A")}
    assert history == {step: values["loss/cycle_A"] for step, values in reports(folder).items()}
    assert len(client.list_artifacts(identity, "samples")) == 6


@pytest.mark.slow
def test_trackio_takes_a_run_into_its_database(folder: Path) -> None:
    pytest.importorskip("trackio")
    # Trackio reads where it keeps its database when it is imported.
    environment = os.environ | {"TRACKIO_DIR": str(folder.parent / "trackio"), "TRACKIO_PROJECT": "dots"}
    command = [sys.executable, "-m", "cyclegan_fast.train", *FLAGS, "--track", "trackio", "--data", str(folder)]
    command += ["--runs", str(folder.parent / "runs"), "--max-steps"]
    for steps in ("2", "4"):
        subprocess.run([*command, steps], env=environment, cwd=ROOT, check=True, capture_output=True)
    with closing(sqlite3.connect(folder.parent / "trackio" / "dots.db")) as database:
        lines = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert {name for name, _, _ in lines} == {"x"}
    tracked = {step: json.loads(metrics) for _, step, metrics in lines if b"loss/cycle_A" in metrics}
    assert tracked == reports(folder)
    assert sum(b"samples/A" in metrics for _, _, metrics in lines) == 3
