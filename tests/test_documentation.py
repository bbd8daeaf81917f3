"""Test what README.md and the pages of docs/ say: commands run, examples work, and links and paths lead somewhere."""

import ast
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import Image

from cyclegan_fast import train
from cyclegan_fast.config.command import parse_training
from cyclegan_fast.demo import DemoCommand
from cyclegan_fast.methods.feature_loss.rotation import RotationTraining
from cyclegan_fast.system.command_line import SHELLS
from cyclegan_fast.version import __version__
from tests.cyclegan_fast.conftest import TINY
from tests.cyclegan_fast.hub_stand_in import hub_of_this_process
from tests.cyclegan_fast.pictures import draw, draw_all
from tests.cyclegan_fast.translation.video.clips import pictures, write_clip
from tests.export.test_deployment_page import PAGE as DEPLOYMENT, PROGRAMS
from tests.faults.__main__ import NAMES as CAMPAIGNS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
"""The pages that show commands, in the order in which people read them."""
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / ".github").rglob("*.md"))]


def commands_of(page: Path) -> list[str]:
    """Return the commands in the shell blocks of a page, one to a line; a line that ends in a backslash goes on."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands_of(page)))

FEW = ["--methods", "gan-alone", "--seeds", "0", "--test-images", "2", "--segmentation-epochs", "1"]


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_quick_start_is_two_lines_that_set_up_and_run() -> None:
    first, second = commands_of(ROOT / "README.md")[:2]
    setup = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt -e "
    assert first == f"{setup}. && python -m cyclegan_fast.train --amp"
    assert second == f"{setup}'.[dev]' && python -m pytest -n 2 --dist loadfile --max-worker-restart 0"


@pytest.mark.slow
def test_every_other_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"FOLDER": "photos", "PHOTOS": "photos/testA", "OUT": "photos", "data/horse2zebra": "photos"}
    names |= {"REAL": "photos/testA", "cyclegan=FAKE": "cyclegan=translated", "SCANS": "scans"}
    for folder in ("trainA", "trainB"):
        (tmp_path / "scans" / folder).mkdir(parents=True)
        values = np.arange(-1000, 4184, 4, dtype=np.int16).reshape(36, 36)
        tifffile.imwrite(tmp_path / "scans" / folder / "0.tif", values)
    for folder in ("trainA", "trainB"):
        (tmp_path / "slides" / folder).mkdir(parents=True)
        tissue = np.array([170, 90, 160], np.uint8) + np.random.default_rng(0).integers(0, 4, (64, 48, 3), np.uint8)
        said = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / "slides" / folder / "0.tif", tissue, photometric="rgb", tile=(16, 16), **said)
    names |= {"SLIDES": "slides"}
    names |= {"slide.svs": "slide.tif", "runs/stains": "runs/sample-photos-demo", "/var/tmp": str(tmp_path)}
    tifffile.imwrite("slide.tif", np.zeros((64, 48, 3), np.uint8), photometric="rgb", tile=(16, 16))
    write_clip(tmp_path / "clip.mp4", pictures(6))
    packages = sysconfig.get_path("purelib")
    copies = [line for line in COMMANDS if line.startswith(("SITE=", "mkdir -p wheels", "cp $SITE"))]
    assert len(copies) == 5
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", "\n".join(copies)], check=True, env={**os.environ, "PATH": path})
    # Weights of VGG cannot be had: the command's other kind of network takes their place.
    features = "runs/photos-feature-loss-paper256/features.pt"
    names |= {"STYLE": "photos/testB/0000.png", "--weights": "--features", "vgg19-dcbb9e9d.pth": features}
    monkeypatch.setattr(
        "cyclegan_fast.methods.feature_loss.network.RotationTraining", partial(RotationTraining, steps=2)
    )
    small = {
        "sample_photos": ["--side", "36", "--count", "3"],
        "street_scenes": ["--size", "32", "--count", "2", "--test-count", "2"],
        "stained_tissue": ["--side", "36", "--count", "3"],
        "earth": ["--side", "36", "--count", "3"],
        "download": ["--list"],  # there is no network
        "train": [*TINY, "--max-steps", "2", "--evaluate-images", "2"],
        "translate": [],
        "gatys": ["--size", "32", "--steps", "2"],
        "experiments tables": [*FEW, "--size", "32", "--load-size", "32", "--ngf", "2", "--ndf", "2", "--steps", "2"],
        "evaluate": [],
        "evaluate fcn": ["--segmentation-epochs", "1"],
        "perceptual_study make": ["--practice", "2", "--trials", "4"],
        "perceptual_study analyse": [],
    }
    commands = [
        shlex.split(line)
        for line in COMMANDS
        if line.startswith("python -m cyclegan_fast.") and "kernels.prepare" not in line  # tests/kernels/prepare has it
    ]

    def kind(command: list[str]) -> str:
        """Return the command's name, such as "train", or "evaluate fcn" with its action."""
        module = command[2].rpartition(".")[2]
        return f"{module} {command[3]}" if f"{module} {command[3]}" in small else module

    assert {kind(command) for command in commands} == set(small)
    # Data sets are written first, then trained on, then translated.
    for command in sorted(commands, key=lambda command: list(small).index(kind(command))):
        arguments = [names.get(word, word).replace("$SITE", packages) for word in command[3:]]
        if kind(command) == "train" and command[3:] == ["--data", "FOLDER", "--amp"]:
            arguments += ["--name", "sample-photos-demo"]
        elif kind(command) == "train" and command[3:] == ["--data", "earth"]:
            arguments += ["--name", "earth", "--max-images", "3"]
        elif kind(command) == "train" and not {"--name", "--method", "--task"} & {*arguments}:
            arguments += ["--name", "run" + "-".join(command[5:])]
        if kind(command) == "perceptual_study analyse":
            continue  # people come in between; tests/cyclegan_fast/study/test_perceptual_study.py has them
        package = ".__main__" if kind(command) == "experiments tables" else ""
        assert importlib.import_module(command[2] + package).main([*arguments, *small[kind(command)]]) == 0, command
    assert len(list(Path("translated").glob("*.png"))) == 48
    for file in ("runs/sample-photos-demo/index.html", "runs/streets/evaluation/fcn.json", "study/index.html"):
        assert Path(file).exists(), file


def single_commands() -> Iterator[list[str]]:
    """Give each command by itself, without the variables of its environment."""
    for line in COMMANDS:
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            while words and re.match(r"\w+=", words[0]):
                words = words[1:]
            if words:
                yield words


def test_every_command_is_known_and_takes_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the command line of every command; the test above runs those of cyclegan_fast."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    seen = set()
    for words in single_commands():
        match words:
            case ["python3", "-m", "venv", ".venv"] | [".", ".venv/bin/activate"] | ["pip", "install", *_]:
                for extra in re.findall(r"\.\[(.*?)\]", " ".join(words)):
                    assert {*extra.split(",")} <= {*extras}, words
            case ["python", "-m", "pytest", *_] | ["pytest", *_]:
                assert all((ROOT / word).exists() for word in words if word.startswith(("tests", "bench"))), words
            case ["python", "-m", "cyclegan_fast.demo", *arguments]:
                importlib.import_module("cyclegan_fast.system.command_line").parse_command(DemoCommand, "x", arguments)
            case ["python", "-m", module, *_] if module.startswith("cyclegan_fast."):
                pass
            case ["python", "-m", module, *arguments] if module.startswith(("kernels.", "bench.")):
                found = importlib.import_module(module)
                parser = getattr(found, "argument_parser", None) or getattr(found, "_parser", None)
                assert parser or not arguments, words
                if parser:
                    parser().parse_args(arguments)
            case ["python", program, *arguments] if program.startswith("export/"):
                door = PROGRAMS[Path(program).stem]
                importlib.import_module("cyclegan_fast.system.command_line").parse_command(door, program, arguments)
            case ["python", "-m", "tests.faults", *arguments]:
                assert {word for word in arguments if not word.startswith("-")} <= {*CAMPAIGNS}, words
            case ["torchrun", *arguments]:
                place = arguments.index("cyclegan_fast.train")
                assert arguments[place - 1] == "-m"
                parse_training(arguments[place + 1 :])
            case ["sphinx-build", *arguments]:
                assert f"sphinx-build {' '.join(arguments)}".replace("--keep-going", "--keep-going -q") in RUN
            case ["cyclegan-fast", "--tyro-print-completion", shell, ">", _]:
                assert shell in SHELLS, words
            case ["bash", ".ci/run", *_] | ["pre-commit", *_] | ["mkdir", "-p", _]:
                pass
            case ["-c", code] if code.startswith("import sysconfig;"):  # the rest of SITE=$(python -c ...)
                pass
            case ["cp", source, _]:
                assert Path(source.replace("$SITE", sysconfig.get_path("purelib"))).is_file(), words
            case _:
                pytest.fail(f"no test knows how to try: {shlex.join(words)}")
        seen.add(words[0] if words[0] != "python" else words[1])
    assert seen >= {
        *("python3", "pip", "-m", "torchrun"),
        *("export/trt.py", "export/run.py", "export/to_formats.py", "export/to_onnx.py"),
    }


RUN = (ROOT / ".ci" / "run").read_text()


@pytest.mark.filterwarnings("ignore:.* found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    "command",
    [
        "train",
        "translate",
        "demo",
        "evaluate",
        "download",
        "perceptual_study",
        "street_scenes",
        "stained_tissue",
        "sample_photos",
        "earth",
        "baselines.gatys",
        "experiments",
        "experiments tables",
    ],
)
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, *action = f"cyclegan_fast.{command}".split()
    monkeypatch.setattr(sys, "argv", [module, *action, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")  # as `python -m` does
    assert not ended.value.code
    assert capsys.readouterr().out.startswith(f"usage: python -m cyclegan_fast.{command}")


# --- examples in Python ----------------------------------------------------------------------------------------------


def examples_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_example_of_the_readme_translates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = examples_of(ROOT / "README.md")
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, "--max-steps", "1", "--name", "sample-photos-demo"]) == 0
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)).save("photo.jpg")
    exec(example, {})
    with Image.open("translated.png") as translated:
        assert translated.size == (52, 40)
        assert len(np.unique(np.asarray(translated))) > 8


def test_the_examples_of_the_page_on_python_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FOLDER/trainA", "FOLDER/trainB", "FOLDER/testA", "FOLDER/testB"):
        draw_all(Path(name), {"one.png": (40, 40), "two.png": (48, 40)})
    draw(Path("photo.jpg"), 52, 41)
    tiny = [*TINY, "--max-steps", "1"]
    assert train.main([*tiny, "--data", "FOLDER", "--name", "sample-photos-demo"]) == 0
    small = {flag[2:].replace("-", "_"): value for flag, value in zip(tiny[::2], tiny[1::2], strict=True)}
    small["report_every"] = "1"
    names: dict[str, object] = {"small": {flag: int(v) if v.isdigit() else v for flag, v in small.items()}}
    with hub_of_this_process(tmp_path / "hub_cache", monkeypatch) as hub:
        for example in examples_of(ROOT / "docs" / "python.md"):
            exec(example.replace('preset="paper256"', "**small"), names)
    assert names["folder"] == Path("runs/FOLDER-paper256")
    printed = capsys.readouterr().out.splitlines()
    assert str(names["scores"]["a2b.reconstruction.ssim"]) in printed  # type: ignore[index]
    assert [line for line in printed if line.startswith("1 ")], "the callback printed its report"
    assert hub.repositories["owner/name"].private
    for file in ("photo.jpg", "back.png"):
        with Image.open(file) as image:
            assert image.size == (52, 41)


def test_the_examples_of_the_kernels_compute_what_they_say() -> None:
    accelerated, modules, operators = examples_of(ROOT / "docs" / "kernels.md")
    names: dict[str, object] = {}
    for example in (accelerated, modules, operators):
        exec(example, names)
    assert names["features"].shape == (1, 64, 16, 16)  # type: ignore[attr-defined]
    for name, shape in re.findall(r"^(\w) = \w+\(.*# (\[[\d, ]+\])", operators, re.MULTILINE):
        assert list(names[name].shape) == ast.literal_eval(shape), name  # type: ignore[attr-defined]
    assert names["x"].grad is not None  # type: ignore[attr-defined]


def test_no_other_page_has_an_example() -> None:
    """Leaves the examples of the deployment page to tests/export/test_deployment_page.py."""
    found = {page.name for page in PAGES if examples_of(page)}
    assert found == {"README.md", "kernels.md", "deployment.md", "python.md"}
    assert "```python" in DEPLOYMENT


# --- links and paths -------------------------------------------------------------------------------------------------


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if place.startswith("https://") or place.startswith("api/"):
            continue  # there is no network; the reference is made when the site is built, which checks it
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def test_links_to_the_web_are_these() -> None:
    """They are not fetched here; a new one is opened by hand once, and entered."""
    found = {link for page in LINKED for link in re.findall(r"\]\((https?://[^)\s]+)\)", prose(page))}
    assert found == {
        "https://arxiv.org/abs/1703.10593",
        "https://arxiv.org/abs/1808.00449",
        "https://keepachangelog.com/en/1.1.0/",
        "https://semver.org/",
        "https://github.com/jolibrain/joliGEN",
        "https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix",
        "https://github.com/pytorch/pytorch/issues/135712",
        "https://github.com/pytorch/pytorch/issues/169545",
        "https://github.com/pytorch/pytorch/issues/96693",
        "https://pytorch.org/get-started/locally/",
    }


TOP = ("cyclegan_fast", "kernels", "export", "bench", "tests", "docs", ".ci", ".github")
MADE = ("kernels/tuned", "bench/results/<device>", "docs/api", "export,")
"""Paths that a command writes, and words that only look like one."""


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_paths_and_names_of_code_exist(page: Path) -> None:
    wrong = []
    text = page.read_text()
    inline = re.findall(r"`([^`\n]+)`", prose(page))
    for span in [*inline, *re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)]:
        for path in re.findall(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, TOP))})/[\w./-]*", span):
            if not path.startswith(MADE) and not (ROOT / path.rstrip(".")).exists():
                wrong.append(path)
        for name in re.findall(r"(?<![\w./-])(?:cyclegan_fast|kernels|export|bench)(?:\.\w+)+", span):
            if not resolves(name):
                wrong.append(name)
    assert not wrong


def resolves(name: str) -> bool:
    """Tell whether a dotted name is that of a module, or of something in one."""
    if name.endswith((".py", ".md", ".toml")):
        return True  # the name of a file by itself
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def folders_of_code() -> set[str]:
    kept = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    folders = {str(Path(line).parent) for line in kept.splitlines()}
    return {folder for folder in folders if folder.partition("/")[0] in ("cyclegan_fast", "kernels", "export", "bench")}


def test_the_tree_names_every_folder_of_code() -> None:
    tree = (ROOT / "docs" / "design.md").read_text().split("## Folders")[1].split("```")[1]
    named = {line.split()[0].rstrip("/") for line in tree.strip().splitlines()}
    assert {folder for folder in named if not (ROOT / folder).is_dir()} == set()
    assert folders_of_code() - named == set()


def test_every_folder_of_code_is_a_package() -> None:
    """Expects an __init__.py that git keeps, without which a folder is left out of wheels and of the reference."""
    command = ["git", "ls-files", "*/__init__.py"]
    kept = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert {folder for folder in folders_of_code() if f"{folder}/__init__.py" not in kept} == set()


def test_the_picture_of_the_floors_names_every_package_of_the_training_stack() -> None:
    picture = (ROOT / "docs" / "static" / "floors.svg").read_text()
    named = {text.rstrip("/") for text in re.findall(r">(\w+/)<", picture)}
    packages = {folder.split("/")[1] for folder in folders_of_code() if folder.startswith("cyclegan_fast/")}
    assert packages - named == set()
    assert {name for name in named if not any((ROOT / place / name).is_dir() for place in ("", *TOP))} == set()


# --- messages --------------------------------------------------------------------------------------------------------


def sentences_of_the_code() -> str:
    """Return all strings of the code, with a mark where a value is put in."""
    found = []
    for folder in ("cyclegan_fast", "kernels", "export"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(p.value if isinstance(p, ast.Constant) else "\0" for p in node.values))  # type: ignore[misc]
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    sentences = sentences_of_the_code()
    messages = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(messages) > 20
    wrong = [part for message in messages for part in message.split("...") if part.strip() not in sentences]
    assert not wrong


# --- habits ----------------------------------------------------------------------------------------------------------


def test_the_hooks_run_what_ci_runs() -> None:
    hooks = {
        hook["entry"] for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    }
    tests = commands_of(ROOT / "README.md")[1].rpartition(" && ")[2].replace("python", ".venv/bin/python", 1)
    run = (
        RUN.replace("$pytest_options", tests.partition(" -m pytest ")[2])
        .replace(" --durations 25", "")
        .replace(" $share", "")
    )
    assert hooks == {*re.findall(r"^ *run (\S.*)$", run, re.MULTILINE), tests}


def test_the_workflow_pins_what_the_project_allows() -> None:
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["run"]["strategy"][
        "matrix"
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {Requirement(each).name: Requirement(each).specifier for each in project["dependencies"]}
    for pair in matrix["torch"]:
        assert all(bounds[name].contains(version) for name, version in pair.items()), pair
    pinned = dict(re.findall(r"^(\w+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {name: pinned[name] for name in ("torch", "triton")} in matrix["torch"]
    assert matrix["python"] == [
        v for v in ("3.10", "3.11", "3.12", "3.13", "3.14") if v in SpecifierSet(project["requires-python"])
    ]


def test_the_version_that_is_cited_is_the_packages() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
