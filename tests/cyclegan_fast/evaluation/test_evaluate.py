"""`evaluate` and `evaluate fcn` from the command line, and evaluations while training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast import street_scenes
from cyclegan_fast.checkpoint.files import load
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.evaluate import main
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.train import main as train
from tests.cyclegan_fast.conftest import TINY

RUN = [
    *TINY,
    "--data",
    "streets",
    "--name",
    "tiny",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--epochs",
    "1",
    "--decay-epochs",
    "1",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a folder with small streets and a run of a few steps on them."""
    root = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "caches"))
        assert street_scenes.main(["streets", "--size", "32", "--count", "4", "--test-count", "3"]) == 0
        assert train([*RUN, "--max-steps", "2"]) == 0
    return root


def status_of(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Return the exit status, also where tyro itself refuses a value."""
    try:
        return command(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


def words(text: str) -> str:
    """Return the text without the line breaks of a box."""
    return " ".join(text.split())


@pytest.fixture
def place(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace


def test_a_run_gets_a_table_a_file_and_pictures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "translated, G_A(A) against the truth" in printed
    folder = place / "runs" / "tiny" / "evaluation"
    result = json.loads((folder / "evaluation.json").read_text())
    assert result["images"] == {"a2b": 3, "b2a": 3}
    rows = {row["name"]: row for row in result["rows"]}
    assert rows.keys() == {
        f"{way}.{what}" for way in ("a2b", "b2a") for what in ("truth", "untranslated", "reconstruction")
    }
    A, B = (
        np.stack([np.asarray(Image.open(path)) for path in sorted((place / "streets" / name).glob("*.png"))])
        for name in ("testA", "testB")
    )
    assert rows["a2b.untranslated"]["l1"] == pytest.approx(np.abs(A.astype(float) - B).mean() / 255)
    for name in ("a2b.jpg", "b2a.jpg"):
        with Image.open(folder / name) as sheet:
            assert sheet.width > 3 * 192


def test_training_ends_with_the_same_figures(place: Path) -> None:
    """Scores in results.json are those that the command gives for the last checkpoint."""
    assert main(["--metrics", "truth", "reconstruction", "--out", "again"]) == 0
    rows = json.loads(Path("again/evaluation.json").read_text())["rows"]
    final = {row["name"]: row for row in json.loads((place / "runs/tiny/results.json").read_text())["rows"]}
    for row in rows:
        for key, value in row.items():
            assert final[row["name"]][key] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)


def test_bare_weights_are_scored_in_their_one_direction(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(to_original(ResnetGenerator(width=4, blocks=6).state_dict()), "latest_net_G.pth")
    assert main(["--checkpoint", "latest_net_G.pth", "--size", "32"]) == 2
    assert "give --data FOLDER" in capsys.readouterr().err
    assert (
        main(
            ["--checkpoint", "latest_net_G.pth", "--data", "streets", "--size", "32", "--images", "2", "--out", "bare"]
        )
        == 0
    )
    result = json.loads(Path("bare/evaluation.json").read_text())
    assert result["images"] == {"a2b": 2}
    assert {row["name"] for row in result["rows"]} == {"a2b.truth", "a2b.untranslated"}
    assert Path("bare/a2b.jpg").exists()
    assert not Path("bare/b2a.jpg").exists()


def test_fcn_trains_a_judge_once_and_prints_the_papers_measures(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["fcn", "--segmentation-epochs", "2", "--segmentation-width", "4"]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    assert "training a segmentation network for " in printed
    assert " on 4 real photographs\n" in printed
    for words in (
        "generated photographs, G_B(B)",
        "against the labels of other views",
        "generated label maps, G_A(A)",
        "class IoU",
    ):
        assert words in printed
    (judge,) = (place / "runs" / "segmentation").glob("*.pt")
    written = judge.stat().st_mtime_ns
    assert main(flags) == 0  # not trained again
    assert judge.stat().st_mtime_ns == written
    result = json.loads((place / "runs/tiny/evaluation/fcn.json").read_text())
    for row in result["rows"]:
        matrix = np.array(row["confusion"])
        assert matrix.sum() == 3 * 32 * 32
        assert row["per_pixel"] == pytest.approx(np.trace(matrix) / matrix.sum())
    with Image.open(place / "runs/tiny/evaluation/fcn.jpg") as sheet:
        assert sheet.height > 7 * 192
    # The same figure comes out of a pass with the metric of that name.
    assert main(["--metrics", "fcn", "--segmentation", str(judge), "--out", "fcn"]) == 0
    rows = {row["name"]: row for row in json.loads(Path("fcn/evaluation.json").read_text())["rows"]}
    by_name = {row["name"]: row for row in result["rows"]}
    for name, row in (("b2a.fcn", "generated"), ("a2b.fcn", "maps")):
        assert rows[name]["class_iou"] == pytest.approx(by_name[row]["class_iou"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nowhere"], "no checkpoint at nowhere"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--data", "."], "has no images in testA or testB: nothing to score"),
        (["--metrics", "fcn"], "give --segmentation FILE"),
        (["--images", "-1"], "--images must be a whole number from 0"),
        (["--size", "30"], "--size must be a multiple of 4"),
        (["--out", "runs/tiny/config.yaml"], "--out runs/tiny/config.yaml is a file: give a folder for the results"),
        (["fcn", "--segmentation-epochs", "0"], "--segmentation-epochs must be a whole number from 1"),
        (["--metrics", "fid", "--images", "1", "--features", "x.pt2"], "--features x.pt2: no such file"),
    ],
)
def test_bad_input_gets_a_sentence(
    place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    assert status_of(main, arguments) == 2
    assert message in words(capsys.readouterr().err)
    assert sorted(place.rglob("*")) == before


def test_a_label_map_with_a_strange_colour_is_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert street_scenes.main([str(tmp_path / "odd"), "--size", "32", "--count", "1", "--test-count", "2"]) == 0
    path = tmp_path / "odd" / "testB" / "0001.png"
    with Image.open(path) as image:
        image.putpixel((5, 7), (9, 9, 9))
        image.save(path)
    assert main(["fcn", "--data", str(tmp_path / "odd")]) == 2
    assert "0001.png: the colour (9, 9, 9) in row 7, column 5 is no class of Cityscapes" in capsys.readouterr().err


# --- while training ------------------------------------------------------------------------------------------------

EVERY = ["--evaluate-every", "2", "--metrics", "truth", "--checkpoint-every", "3", "--max-steps", "6"]


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def test_evaluations_are_logged_and_the_best_checkpoint_is_kept(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*RUN, *EVERY[:-1], "5", "--name", "watched"]) == 0
    run = place / "runs" / "watched"
    found = evaluations(run)
    assert [line["step"] for line in found] == [2, 4, 5]  # the last step is always one of them
    ssim = [line["values"]["a2b.truth.ssim"] for line in found]
    assert [line["best"] for line in found] == [
        value > max(ssim[:index], default=-1) for index, value in enumerate(ssim)
    ]
    best = load(run / "checkpoints" / "best.pt")
    step = found[int(np.argmax(ssim))]["step"]
    assert best["log"]["step"] == step
    assert best["best"] == {"step": step, "name": "a2b.truth.ssim", "value": max(ssim)}
    assert f"the best a2b.truth.ssim was {max(ssim):.4g}, at step {step}" in capsys.readouterr().out
    page = (run / "index.html").read_text()
    assert "Test images: SSIM" in page
    assert f'"best":{step}' in page


def test_evaluations_change_nothing_in_a_training_and_survive_a_resume(place: Path) -> None:
    flags = [*RUN, "--checkpoint-every", "3", "--max-steps", "6"]
    assert train([*flags, "--name", "plain"]) == 0
    assert train([*RUN, *EVERY, "--name", "whole"]) == 0
    plain, whole = (load(place / "runs" / name / "checkpoints" / "last.pt") for name in ("plain", "whole"))
    for name, value in plain["model"].items():
        assert torch.equal(value, whole["model"][name]), name
    # As after a kill behind the evaluation of step 4, of which the checkpoint of step 3 knows nothing.
    cut = place / "runs" / "cut"
    assert train([*RUN, *EVERY[:-1], "3", "--name", "cut"]) == 0
    with open(cut / "evaluations.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 4, "best": true, "values": {"a2b.truth.ssim": 9}}\n')
    (cut / "results.json").unlink()
    text = (cut / "config.yaml").read_text()
    (cut / "config.yaml").write_text(text.replace("max_steps: 3", "max_steps: 6"))
    assert train([*RUN, *EVERY, "--name", "cut"]) == 0
    lines = [line for line in evaluations(cut) if line["step"] != 3]  # which was the last step at first
    assert lines == evaluations(place / "runs" / "whole")
    for name, value in load(cut / "checkpoints" / "last.pt")["model"].items():
        assert torch.equal(value, whole["model"][name]), name
    assert load(cut / "checkpoints" / "best.pt")["best"] == load(place / "runs/whole/checkpoints/best.pt")["best"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--metrics", "fcn"], "--segmentation FILE"),
        (["--best-by", "a2b.truth.ssim"], "has no effect without --evaluate-every"),
        (["--evaluate-every", "-1"], "evaluate_every must be a whole number from 0"),
        (
            ["--evaluate-every", "1", "--best-by", "fid", "--metrics", "truth"],
            "--best-by fid: no such value; the metrics give",
        ),
        (["--task", "style-transfer", "--preset", "demo"], "--preset and --task all say what to start from"),
    ],
)
def test_evaluations_that_make_no_sense_are_refused(
    place: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(train, [*RUN, "--name", "refused", "--max-steps", "1", *flags]) == 2
    assert message in words(capsys.readouterr().err)


def test_a_task_sets_what_the_paper_set(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*TINY[:6], "--max-steps", "1", "--workers", "0", "--device", "cpu"]
    assert train(["--task", "photo-from-painting", "--data", "streets", "--crop-size", "32", *flags]) == 0
    config = (place / "runs/streets-photo-from-painting/config.yaml").read_text()
    assert "preprocess: crop\n" in config
    assert "lambda_identity: 0.5" in config
    assert "epochs: 100" in config
    assert train(["--task", "season-transfer"]) == 2
    assert "needs --data FOLDER" in capsys.readouterr().err


def test_a_run_of_other_pixels_is_scored_in_its_units_and_shown_by_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trains two steps from 1 channel of 12 bits in 16 to 8-bit RGB, shown in grey first and then otherwise."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 2)):
        for domain, shape, most in (("A", (32, 32), 4096), ("B", (32, 32, 3), 256)):
            folder = tmp_path / "images" / f"{split}{domain}"
            folder.mkdir(parents=True)
            for place in range(count):
                pixels = random.integers(0, most, shape).astype(np.uint16 if domain == "A" else np.uint8)
                Image.fromarray(pixels).save(folder / f"{place}.png")
    run = [*TINY, "--data", "images", "--pairs", "yes", "--name", "deep", "--device", "cpu", "--workers", "0"]
    run += ["--range-a", "0", "4095", "--dtype-a", "uint16", "--channels-a", "1", "--lambda-identity", "0"]
    assert train([*run, "--max-steps", "1"]) == 0
    assert train([*run, "--max-steps", "2", "--window-a", "0", "100", "--colours-a", "hot"]) == 0
    assert train([*run, "--max-steps", "3", "--bands-a", "2"]) == 2
    assert "pictures of A: there is no band 2 in images of 1 channel, uint16" in words(capsys.readouterr().err)
    with Image.open("runs/deep/samples/step_00000002_A.png") as grid:
        assert grid.info["legend"].startswith("A: 1 channel, uint16, 0 (black) to 100 (white), hot")
    assert main(["--checkpoint", "runs/deep", "--metrics", "reconstruction", "truth", "lookup"]) == 0
    printed = words(capsys.readouterr().out)
    assert "MAE, own units" in printed
    assert "the colour lookup is left out" in printed
    found = json.loads(Path("runs/deep/evaluation/evaluation.json").read_text())
    assert found["pixels"]["A"] == {"channels": 1, "dtype": "uint16", "low": 0, "high": 4095}
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["b2a.truth"]["mae"] == pytest.approx(rows["b2a.truth"]["l1"] * 4095)
    assert "mae" not in rows["a2b.truth"]
    assert main(["--checkpoint", "runs/deep", "--metrics", "fcn", "--segmentation", "none.pt"]) == 2
    assert "A has 1 channel, uint16, 0 to 4095, and B has 8-bit RGB" in words(capsys.readouterr().err)


def test_bare_weights_of_other_channels_are_scored_as_8_bits(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(ResnetGenerator(inputs=1, outputs=3, width=4, blocks=6).state_dict(), "grey.pth")
    given = ["--checkpoint", "grey.pth", "--data", "streets", "--size", "32", "--pairs", "yes", "--out", "grey"]
    assert main(given) == 0
    found = json.loads(Path("grey/evaluation.json").read_text())
    assert found["pixels"]["A"]["channels"] == 1
    assert [row["name"] for row in found["rows"]] == ["a2b.truth"]
    assert "A: 1 channel, uint8, 0 to 255; B: 8-bit RGB" in capsys.readouterr().out
