"""README.md tells people to type what works."""

import importlib
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from cyclegan_fast.methods.feature_loss.rotation import RotationTraining
from tests.cyclegan_fast.conftest import TINY
from tests.slow import slow_but

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


FEW = ["--methods", "gan-alone", "--seeds", "0", "--test-images", "2", "--segmentation-epochs", "1"]


def test_the_quick_start_is_two_lines_that_set_up_and_run() -> None:
    first, second, *_ = COMMANDS
    setup = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt -e "
    assert first == f"{setup}. && python -m cyclegan_fast.train --amp"
    assert second == f"{setup}'.[dev]' && python -m pytest -n 2 --dist loadfile --max-worker-restart 0"


@pytest.mark.slow
def test_every_other_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"FOLDER": "photos", "PHOTOS": "photos/testA", "OUT": "photos", "data/horse2zebra": "photos"}
    names |= {"REAL": "photos/testA", "cyclegan=FAKE": "cyclegan=translated"}
    # Weights of VGG cannot be had: the command's other kind of network takes their place.
    features = "runs/photos-feature-loss-paper256/features.pt"
    names |= {"STYLE": "photos/testB/0000.png", "--weights": "--features", "vgg19-dcbb9e9d.pth": features}
    monkeypatch.setattr(
        "cyclegan_fast.methods.feature_loss.network.RotationTraining", partial(RotationTraining, steps=2)
    )
    small = {
        "sample_photos": ["--side", "36", "--count", "3"],
        "street_scenes": ["--size", "32", "--count", "2", "--test-count", "2"],
        "download": ["--list"],  # there is no network
        "train": [*TINY, "--max-steps", "2"],
        "translate": [],
        "gatys": ["--size", "32", "--steps", "2"],
        "experiments tables": [*FEW, "--size", "32", "--load-size", "32", "--ngf", "2", "--ndf", "2", "--steps", "2"],
        "evaluate": [],
        "evaluate fcn": ["--segmentation-epochs", "1"],
        "perceptual_study make": ["--practice", "2", "--trials", "4"],
        "perceptual_study analyse": [],
    }
    commands = [shlex.split(line) for line in COMMANDS[2:] if line.startswith("python -m cyclegan_fast.")]

    def kind(command: list[str]) -> str:
        """Return the kind of a command: "train", or "evaluate fcn" with its action."""
        module = command[2].rpartition(".")[2]
        return f"{module} {command[3]}" if f"{module} {command[3]}" in small else module

    assert {kind(command) for command in commands} == set(small)
    # Data sets are written first, then trained on, then translated.
    for command in sorted(commands, key=lambda command: list(small).index(kind(command))):
        arguments = [names.get(word, word) for word in command[3:]]
        if kind(command) == "train" and command[3:] == ["--data", "FOLDER", "--amp"]:
            arguments += ["--name", "sample-photos-demo"]
        elif kind(command) == "train" and not {"--name", "--method", "--task"} & {*arguments}:
            arguments += ["--name", "run" + "-".join(command[5:])]
        if kind(command) == "perceptual_study analyse":
            continue  # people come in between; tests/cyclegan_fast/study/test_perceptual_study.py has them
        package = ".__main__" if kind(command) == "experiments tables" else ""
        assert importlib.import_module(command[2] + package).main([*arguments, *small[kind(command)]]) == 0, command
    assert len(list(Path("translated").glob("*.png"))) == 48
    for file in ("runs/sample-photos-demo/index.html", "runs/streets/evaluation/fcn.json", "study/index.html"):
        assert Path(file).exists(), file


@pytest.mark.parametrize(
    "module",
    slow_but(
        ["train", "translate"],
        [
            "train",
            "translate",
            "evaluate",
            "download",
            "perceptual_study",
            "street_scenes",
            "sample_photos",
            "baselines.gatys",
            "experiments",
            "experiments tables",
        ],
    ),
)
def test_every_command_explains_itself(module: str) -> None:
    command = [sys.executable, "-m", *f"cyclegan_fast.{module}".split(), "--help"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert finished.stdout.startswith(f"usage: python -m cyclegan_fast.{module}")
    assert "Traceback" not in finished.stderr


def test_every_file_of_the_tree_in_the_readme_exists() -> None:
    tree = README.split("## The code")[1].split("```")[1]
    folder, seen = ROOT, 0
    for line in tree.strip().splitlines():
        entry = re.split(r"  +", line.strip())[0]  # the name, or names, in front of the description
        if entry.endswith("/"):
            folder = ROOT / entry
            assert folder.is_dir(), entry
        else:
            for name in entry.split(", "):
                assert (folder / name).is_file(), name
                seen += 1
    assert seen > 15
