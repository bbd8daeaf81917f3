"""Plans of the paper's tables run on tiny networks, killed and continued, and reports show hand-made scores."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast import street_scenes
from cyclegan_fast.checkpoint.files import load
from cyclegan_fast.config.options import Config
from cyclegan_fast.evaluation.fcn.scores import Counts, SegmentationScores
from cyclegan_fast.experiments.__main__ import main
from cyclegan_fast.experiments.agreement import leads, order
from cyclegan_fast.experiments.paper_tables import DEFAULT, GROUPS, ROWS, RowName
from cyclegan_fast.experiments.plan import PLAN_PRESETS, Tables, config_of, schedule
from cyclegan_fast.experiments.report import REFERENCES, write_report
from cyclegan_fast.experiments.store import REFERENCE, Scored, Store, facts_of
from cyclegan_fast.experiments.tables import Progress

STEPS = 8
TINY = [
    *("--size", "32", "--load-size", "32", "--ngf", "2", "--ndf", "2", "--steps", str(STEPS), "--device", "cpu"),
    *("--checkpoint-every", "2", "--segmentation-epochs", "2", "--segmentation-width", "2", "--test-images", "2"),
]
TWO = ["--methods", "cyclegan", "gan-alone", "--seeds", "0"]
CLOCKS = ("training_s", "step_ms", "peak_gib", "judge", "config")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a folder with small streets, and tables of two rows that nothing interrupted."""
    root = tmp_path_factory.mktemp("experiments")
    assert street_scenes.main([str(root / "streets"), "--size", "32", "--count", "4", "--test-count", "3"]) == 0
    assert main(command(root, "whole")) == 0
    return root


def command(root: Path, out: str, *flags: str) -> list[str]:
    return ["tables", "--data", str(root / "streets"), "--out", str(root / out), *TINY, *TWO, *flags]


def stamps(out: Path) -> dict[str, int]:
    """Return when each file was written, but for the report and what lies ready for the next reader."""
    return {
        str(path.relative_to(out)): path.stat().st_mtime_ns
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.startswith(("report.", "."))
    }


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def without_clocks(path: Path) -> dict[str, Any]:
    return {key: value for key, value in content(path).items() if key not in CLOCKS}


def test_a_plan_runs_to_its_end(place: Path) -> None:
    out = place / "whole"
    for name in ("cyclegan-seed0", "gan-alone-seed0"):
        scores = content(out / "scores" / f"{name}.json")
        assert scores["steps"] == STEPS
        for matrix in scores["confusion"].values():
            assert np.array(matrix).sum() == 2 * 32 * 32  # of the two test images asked for
        assert content(out / "runs" / name / "results.json")["step"] == STEPS
        assert (out / "runs" / name / "index.html").exists()
    losses = content(out / "scores" / "gan-alone-seed0.json")["config"]["loss"]
    assert (losses["lambda_cycle"], losses["lambda_identity"], losses["lambda_gan"]) == (0, 0, 1)
    report = (out / "report.md").read_text()
    for words in ("| CycleGAN | 1 |", "| GAN alone | 1 |", "0.58 *", "real photographs", "Not run: CoGAN"):
        assert words in report
    assert (out / "report.jpg").stat().st_size < 600_000


def test_a_report_names_no_place_of_the_machine_that_made_it(place: Path) -> None:
    for name in ("report.md", "report.json"):
        assert str(place) not in (place / "whole" / name).read_text()
    assert content(place / "whole" / "report.json")["plan"]["data"] == "streets"


def test_nothing_is_done_twice_and_the_report_has_the_same_bytes(place: Path) -> None:
    out = place / "whole"
    before = stamps(out)
    reports = {path: path.read_bytes() for path in out.glob("report.*")}
    assert len(reports) == 3
    for path in reports:
        path.unlink()
    assert main(command(place, "whole")) == 0
    assert stamps(out) == before
    assert {path: path.read_bytes() for path in out.glob("report.*")} == reports


@pytest.mark.slow
def test_a_plan_that_was_killed_in_its_second_run_ends_with_the_same_scores(place: Path) -> None:
    out = place / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "cyclegan_fast.experiments", *command(place, out.name)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    saved = out / "runs" / "gan-alone-seed0" / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if saved.exists():
            break
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert_continued(place, out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_plan_after_the_step(
    place: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / f"stopped{number}"
    advance = Progress.advance

    def interrupted(progress: Progress, steps: int) -> None:
        advance(progress, steps)
        if progress.bar.n == STEPS + 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupted)
        assert main(command(place, out.name)) == 128 + number
    assert "the same command continues" in capsys.readouterr().out
    assert load(out / "runs" / "gan-alone-seed0" / "checkpoints" / "last.pt")["log"]["step"] == 3
    assert "Not run: CoGAN, BiGAN/ALI" in (out / "report.md").read_text()
    if number == signal.SIGTERM:  # what is there after the other one is the same
        assert_continued(place, out)


def assert_continued(place: Path, out: Path) -> None:
    """Continues after the first run by the same command, and ends as if nothing had happened."""
    first = stamps(out / "scores")
    assert "cyclegan-seed0.json" in first
    assert main(command(place, out.name)) == 0
    assert {name: stamps(out / "scores")[name] for name in first} == first
    for path in sorted((place / "whole" / "scores").iterdir()):
        other = out / "scores" / path.name
        if path.suffix == ".json":
            assert without_clocks(path) == without_clocks(other), path.name
        else:
            assert path.read_bytes() == other.read_bytes(), path.name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "6"], "holds runs of another plan (steps: 8 -> 6)"),
        (["--ngf", "4", "--amp"], "(amp: False -> True, ngf: 2 -> 4)"),
        (["--seeds", "0", "0"], "--seeds needs one or more, none of them twice"),
        (["--size", "30"], "--size must be a multiple of 4"),
        (["--steps", "0"], "--steps must be a whole number from 1"),
        (["--out", "."], "is there already and holds no experiments"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--data", "."], "needs the folders trainA and trainB"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    place: Path, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = stamps(place)
    try:
        status = main(command(place, "whole", *flags))
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert stamps(place) == before


def test_data_without_labels_is_refused_before_anything_is_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "streets").symlink_to(place / "streets")
    bare = tmp_path / "bare"
    bare.mkdir()
    for folder in ("trainA", "trainB", "testA", "testB"):
        (bare / folder).symlink_to(place / "streets" / folder)
    assert main(command(tmp_path, "out", "--data", str(bare))) == 2
    assert "has no labels of its training photographs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_names_the_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "experiments tables --data DATA --out OUT" in capsys.readouterr().out
    assert main(["table"]) == 2


# --- the plan ------------------------------------------------------------------------------------------------------


def test_the_schedule_halves_the_epochs_and_ends_at_the_step_asked_for() -> None:
    assert schedule(2000, 500) == (2, 2, 2000)
    assert schedule(2100, 500) == (3, 2, 2100)
    assert schedule(7, 500) == (1, 0, 7)
    assert schedule(None, 10) == (100, 100, 2000)


def test_rows_differ_in_their_losses_alone() -> None:
    plan = Tables(Path("data"), Path("out"), PLAN_PRESETS["quick"])
    configs = {row: config_of(plan, row, 3, 500) for row in ROWS}
    for config in configs.values():
        assert isinstance(config, Config)
        for section in ("data", "networks", "optimizer", "evaluation"):
            assert getattr(config, section) == getattr(configs["cyclegan"], section)
    assert len({repr(config.loss) for config in configs.values()}) == len(ROWS)
    assert {row for row, config in configs.items() if config.loss.pool_size != 50} == {"pix2pix"}
    # The forward cycle of the paper's X = labels is B -> A -> B.
    assert configs["gan-forward"].loss.cycle_from == "B"
    assert configs["gan-backward"].loss.cycle_from == "A"
    given = replace(plan, feature_network=Path("vgg16.pth"))
    changed = {row for row in ROWS if config_of(given, row, 3, 500) != configs[row]}
    assert changed == {"feature-loss"}
    assert config_of(given, "feature-loss", 3, 500).loss.feature_network == Path("vgg16.pth").resolve()
    assert {row for group in GROUPS.values() for row in group} == {*ROWS}
    assert {*DEFAULT} == {row for row in ROWS if ROWS[row].paper}


# --- reports of hand-made scores -----------------------------------------------------------------------------------


def matrix(right: int, wrong: int) -> Counts:
    """Return scores of two equal classes: `right` pixels are read rightly, and `wrong` of the first as the second."""
    counts = np.zeros((19, 19), np.int64)
    counts[0, 0], counts[1, 1], counts[0, 1] = right, right + wrong, wrong
    return counts


def write_store(out: Path, shares: dict[RowName, tuple[int, ...]]) -> Store:
    """Return a store in which a row's generators have so many right pixels of 100 in the first class, by seed."""
    store = Store(out)
    plan = Tables(Path("streets"), out, PLAN_PRESETS["quick"])
    store.claim(plan)
    pictures = {way: np.zeros((2, 8, 8, 3), np.uint8) for way in ("a2b", "b2a")}
    for row, rights in shares.items():
        for seed, right in enumerate(rights):
            facts = facts_of(
                config_of(plan, row, seed, 500),
                "judge",
                device="a machine",
                dtype="float32",
                steps=2000,
                step_ms=100.0,
                training_s=200.0,
                versions={"torch": "2"},
            )
            matrices = {way: matrix(right, 100 - right) for way in ("a2b", "b2a")}
            store.save(f"{row}-seed{seed}", Scored(matrices, pictures, facts))
    store.save(REFERENCE, Scored({kind: matrix(90, 10) for kind in REFERENCES}, pictures, {"images": 2}))
    return store


def test_tables_hold_what_the_confusion_matrices_say(tmp_path: Path) -> None:
    store = write_store(tmp_path / "out", {"cyclegan": (60, 80), "simgan": (50,)})
    write_report(store)
    # Of the first class 60 of 100 are right, of the second all 100, and 40 of the first were read as the second.
    by_hand = {"per_pixel": 160 / 200, "per_class": (0.6 + 1) / 2, "class_iou": (60 / 100 + 100 / 140) / 2}
    assert SegmentationScores(matrix(60, 40)).means() == pytest.approx(by_hand)
    table = content(tmp_path / "out" / "report.json")["tables"]["table 3"]
    assert table["rows"]["cyclegan"]["0"] == pytest.approx(by_hand)
    iou = [np.mean([right / 100, 100 / (200 - right)]) for right in (60, 80)]
    report = (tmp_path / "out" / "report.md").read_text()
    accuracy = "0.850 (0.800 to 0.900)"
    assert f"| CycleGAN | 2 | {accuracy} | {accuracy} | {np.mean(iou):.3f} ({iou[0]:.3f} to {iou[1]:.3f})" in report
    assert "| SimGAN | 1 of 1 seeds; paper: yes, agrees |" in report
    with Image.open(tmp_path / "out" / "report.jpg") as picture:
        assert picture.width > 4 * 192
        assert picture.height > 4 * 192


def test_orders_are_compared_with_the_papers() -> None:
    values = {
        row: {seed: {"class_iou": value} for seed, value in enumerate(seeds)}
        for row, seeds in {
            "cyclegan": (0.3, 0.5),
            "simgan": (0.2, 0.6),
            "bigan": (0.1, 0.1),
            "cyclegan-identity": (0.9, 0.9),
        }.items()
    }
    paper = {"cyclegan": (0.5, 0.5, 0.4), "simgan": (0.5, 0.5, 0.2), "bigan": (0.5, 0.5, 0.3), "cogan": (0.5, 0.5, 0.1)}
    found = order(values, paper, "class_iou")  # type: ignore[arg-type]  # the keys are names of rows
    # CycleGAN and SimGAN have one mean, BiGAN less: of three pairs only that of CycleGAN and BiGAN is as in the paper.
    assert (found.same, found.pairs) == (1, 3)
    assert found.correlation == pytest.approx(0.0)
    ahead = {lead.over: (lead.ahead, lead.seeds, lead.paper, lead.agrees) for lead in leads(values, paper, "class_iou")}  # type: ignore[arg-type]
    assert ahead == {"simgan": (1, 2, True, False), "bigan": (2, 2, True, True)}


def test_scores_of_another_configuration_are_not_taken_over(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "whole" / "scores" / "gan-alone-seed0.json"
    saved = path.read_text()
    changed = content(path)
    changed["config"]["optimizer"]["beta1"] = 0.4
    path.write_text(json.dumps(changed))
    try:
        assert main(command(place, "whole")) == 2
    finally:
        path.write_text(saved)
    assert "is of another configuration (beta1: 0.4 -> 0.5)" in capsys.readouterr().err
