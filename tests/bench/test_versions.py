"""Environments are made, checked and reported as they were asked for; pip and the checks are imitated."""

import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bench import environments
from bench.environments import REPOSITORY, Environment, Pair, project_requirements, run_logged
from bench.versions import PAIRS, PYTHONS, main

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
BOUNDS = {each.name: each.specifier for each in map(Requirement, PROJECT["dependencies"])}
CUDA_BUILD = """\
filelock
networkx>=2.5.1
importlib-metadata; python_version < "3.10"
cuda-toolkit[cublas,cudart]==13.0.3; platform_system == "Linux"
cuda-bindings<14,>=13.0.3; python_version < "3.15"
nvidia-nccl-cu13==2.30.7; platform_system == "Linux"
triton~=3.8.0; platform_system == "Linux"
optree>=0.13.0; extra == "optree"
"""
GREEN = {
    "pytest": "..s [100%]\n=== 512 passed, 3 skipped in 61.20s (0:01:01) ===\n",
    "kernels.aot": "1209 variants compiled in 300 s, 0 break a limit\n",
}


class FakeMachine:
    """Does what venv and pip do to a folder, and answers checks with `output`."""

    def __init__(self, torch_requires: str = CUDA_BUILD) -> None:
        self.torch_requires = torch_requires
        self.commands: list[list[str]] = []
        self.variables: list[dict[str, str]] = []
        self.output = dict(GREEN)
        self.statuses: dict[str, int] = {}
        self.fails: Callable[[Sequence[str]], bool] = lambda command: False

    def __call__(self, command: Sequence[str], log: IO[str], variables: Mapping[str, str]) -> int:
        self.commands.append(list(command))
        self.variables.append(dict(variables))
        if self.fails(command):
            log.write("no matching distribution\n")
            return 1
        module = command[2]
        if module == "venv":
            python = Path(command[0]).name
            (Path(command[3]) / "lib" / python / "site-packages").mkdir(parents=True)
        elif module == "pip":
            self._install(Path(command[0]).parents[1], command)
        else:
            log.write(self.output[module])
        return self.statuses.get(module, 0)

    def _install(self, environment: Path, command: Sequence[str]) -> None:
        (packages,) = environment.glob("lib/*/site-packages")
        if "--target" in command:
            library = Path(command[command.index("--target") + 1]) / "nvidia" / "libnccl.so"
            library.parent.mkdir(parents=True)
            library.touch()
            os.truncate(library, 300_000_000)  # of which nothing is on the disk
        elif "--no-deps" in command:
            version = next(word for word in command if word.startswith("torch==")).removeprefix("torch==")
            _installed(packages, "torch", version, self.torch_requires)
        else:
            _installed(packages, "numpy", "2.5.5")

    def installs(self) -> list[list[str]]:
        """Return what pip was asked for each time, without the options that all have."""
        common = ("--quiet", "--disable-pip-version-check")
        return [[word for word in command[4:] if word not in common] for command in self.commands if "pip" in command]

    def checks(self) -> list[list[str]]:
        return [command[1:] for command in self.commands if command[2] not in ("venv", "pip")]


def _installed(packages: Path, name: str, version: str, requires: str = "") -> None:
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires.splitlines())]
    (packages / f"{name}-{version}.dist-info").mkdir()
    (packages / f"{name}-{version}.dist-info" / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture(autouse=True)
def every_python_is_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.shutil, "which", lambda name: f"/somewhere/{name}")


@pytest.fixture
def few() -> list[str]:
    """Selects one pair of releases under one Python."""
    return ["--pythons", "3.13", "--pairs", "2.14.1/3.8.0", "--jobs", "2"]


def test_what_is_tested_is_what_pip_may_install() -> None:
    for pair in PAIRS:
        assert pair.torch in BOUNDS["torch"], pair
        assert pair.triton in BOUNDS["triton"], pair
    pythons = SpecifierSet(PROJECT["requires-python"])
    assert [minor for minor in range(8, 20) if f"3.{minor}" in pythons] == [int(each[2:]) for each in PYTHONS]
    # Both ends of the bounds are tested: what is older or newer than any pair is refused.
    for package, tested in (("torch", [pair.torch for pair in PAIRS]), ("triton", [pair.triton for pair in PAIRS])):
        minors = [int(version.split(".")[1]) for version in tested]
        major = tested[0].split(".")[0]
        allowed = [minor for minor in range(50) if f"{major}.{minor}.0" in BOUNDS[package]]
        assert (min(allowed), max(allowed)) == (min(minors), max(minors)), package


def test_a_pair_is_read_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert Pair.parse("2.15.0/3.9.0") == Pair("2.15.0", "3.9.0")
    with pytest.raises(SystemExit):
        main(["--pairs", "2.15"], FakeMachine())
    assert "expected TORCH/TRITON such as 2.14.1/3.8.0, got '2.15'" in capsys.readouterr().err


def test_the_projects_requirements_are_those_of_pyproject_and_of_its_tests() -> None:
    pyproject = """
[project]
dependencies = ["torch>=2.11", "triton>=3.6; platform_system == 'Linux'", "numpy", "Pillow>=11"]
[project.optional-dependencies]
dev = ["cyclegan-fast[export]", "pytest>=8.4", "pytest-benchmark", "pytest-xdist", "hypothesis", "ruff", "matplotlib",
       "jsonschema", "packaging"]
"""
    expected = ["numpy", "Pillow>=11", "pytest>=8.4", "pytest-benchmark", "pytest-xdist", "hypothesis", "matplotlib"]
    assert project_requirements(pyproject) == [*expected, "jsonschema", "packaging"]
    with pytest.raises(ValueError, match='extra "dev" lacks hypothesis'):
        project_requirements(pyproject.replace('"hypothesis", ', ""))


def test_libraries_of_a_cuda_build_are_installed_once_and_linked(tmp_path: Path) -> None:
    machine = FakeMachine()
    arguments = ["--environments", str(tmp_path), "--pairs", "2.14.1/3.8.0", "--pythons", "3.12", "3.13"]
    assert main(arguments, machine) == 0
    exact = ["torch==2.14.1", "triton==3.8.0"]
    own = ["filelock", "networkx>=2.5.1", "cuda-bindings<14,>=13.0.3", "triton~=3.8.0"]
    project = project_requirements((REPOSITORY / "pyproject.toml").read_text())
    first, shared, second, *of_the_other_python = machine.installs()
    assert first == ["--no-deps", *exact]
    unfinished = str(tmp_path / "libraries-torch2.14.1.unfinished")
    assert shared == ["--target", unfinished, "cuda-toolkit[cublas,cudart]==13.0.3", "nvidia-nccl-cu13==2.30.7"]
    assert second == [*exact, *own, *project]
    assert of_the_other_python == [first, second]
    for python in ("3.12", "3.13"):
        packages = Environment(tmp_path, python, Pair("2.14.1", "3.8.0")).packages
        assert (packages / "nvidia" / "libnccl.so").stat().st_size == 300_000_000
        assert (packages / "shared_libraries.pth").read_text() == f"{tmp_path / 'libraries-torch2.14.1'}\n"


def test_a_build_for_the_cpu_shares_nothing(tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    machine = FakeMachine("filelock\n")
    assert main(["--environments", str(tmp_path), *few], machine) == 0
    assert [install[0] for install in machine.installs()] == ["--no-deps", "torch==2.14.1"]
    assert "| 0.0 GB |" in capsys.readouterr().out


def test_the_table_says_what_ran(tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--environments", str(tmp_path), *few], FakeMachine()) == 0
    title, rule, row = capsys.readouterr().out.splitlines()
    assert (
        title == "| Python | torch | triton | numpy | tests/kernels | tests/cyclegan_fast | kernels.aot | installed |"
    )
    assert rule == "| --- " * 8 + "|"
    tests, compiled = "512 passed, 3 skipped, 0 s", "1209 variants, 0 break a limit, 0 s"
    assert row == f"| 3.13 | 2.14.1 | 3.8.0 | 2.5.5 | {tests} | {tests} | {compiled} | 0.3 GB |"


def test_every_check_runs_in_the_environment_quickly_or_in_full(tmp_path: Path, few: list[str]) -> None:
    machine, quick = FakeMachine(), FakeMachine()
    main(["--environments", str(tmp_path), *few], machine)
    main(["--environments", str(tmp_path), *few, "--quick"], quick)
    python = str(Environment(tmp_path, "3.13", Pair("2.14.1", "3.8.0")).executable)
    assert {command[0] for command in quick.commands} == {python}
    xdist = ["-n", "2", "--dist", "loadfile", "--max-worker-restart", "0", "-m", ""]
    assert machine.checks() == [
        ["-m", "pytest", "tests/kernels", *xdist],
        ["-m", "pytest", "tests/cyclegan_fast", *xdist],
        ["-m", "kernels.aot", "--all", "--processes", "2"],
    ]
    files = [word for command in quick.checks() for word in command if word.endswith(".py")]
    assert len(files) >= 5
    assert all((REPOSITORY / file).is_file() for file in files)
    assert quick.checks()[-1] == ["-m", "kernels.aot", "--processes", "2"]
    kernels = str(tmp_path / "kernels" / "python3.13-torch2.14.1-triton3.8.0")
    assert quick.variables == [{"TRITON_CACHE_DIR": kernels}] * 3


def test_commands_run_in_the_repository_apart_from_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    program = "import os, sys; print(os.getcwd(), os.environ.get('TRITON_INTERPRET'), os.environ['MORE']); sys.exit(3)"
    with open(tmp_path / "log.txt", "w") as log:
        assert run_logged([sys.executable, "-c", program], log, {"MORE": "1"}) == 3
    assert (tmp_path / "log.txt").read_text() == f"{REPOSITORY} None 1\n"


def test_the_readmes_commands_install_a_pair_that_is_tested() -> None:
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[:2] in [[f"torch=={pair.torch}", f"triton=={pair.triton}"] for pair in PAIRS]


def test_what_is_red_makes_the_status_1(tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    machine = FakeMachine()
    machine.output["pytest"] = "=== 2 failed, 510 passed, 1 error in 61.20s ===\n"
    machine.statuses["pytest"] = 1
    assert main(["--environments", str(tmp_path), *few], machine) == 1
    out, err = capsys.readouterr()
    assert "| 2 failed, 510 passed, 1 error, **status 1**, 0 s |" in out
    assert "1209 variants" in out  # what comes behind a red check runs all the same
    log = tmp_path / "logs" / "python3.13-torch2.14.1-triton3.8.0-tests-kernels.txt"
    assert f"tests/kernels, output in {log}" in err
    assert log.read_text() == machine.output["pytest"]


def test_some_checks_can_be_chosen(tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    machine = FakeMachine()
    assert main(["--environments", str(tmp_path), *few, "--checks", "kernels.aot"], machine) == 0
    out = capsys.readouterr().out
    assert "| not run | not run | 1209 variants" in out


def test_a_check_that_dies_without_a_result_is_red(
    tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    machine = FakeMachine()
    machine.output["kernels.aot"] = "Traceback (most recent call last):\n"
    machine.statuses["kernels.aot"] = -11
    assert main(["--environments", str(tmp_path), *few], machine) == 1
    assert "| no result, **status -11**, 0 s |" in capsys.readouterr().out


def test_a_complete_environment_is_used_again_and_others_are_made_anew(tmp_path: Path, few: list[str]) -> None:
    arguments = ["--environments", str(tmp_path), *few]
    broken = FakeMachine()
    broken.fails = lambda command: "numpy" in command
    assert main(arguments, broken) == 1
    assert broken.checks() == []
    made, again, changed = FakeMachine(), FakeMachine(), FakeMachine()
    assert main(arguments, made) == main(arguments, again) == 0
    assert len(made.installs()) == 2  # the libraries were complete
    assert again.installs() == []
    environment = Environment(tmp_path, "3.13", Pair("2.14.1", "3.8.0"))
    environment.stamp.write_text('["2.14.1/3.8.0", "numpy"]')
    leftover = environment.packages / "leftover.py"
    leftover.touch()
    assert main(arguments, changed) == 0
    assert len(changed.installs()) == 2
    assert not leftover.exists()


def test_what_cannot_be_installed_is_red_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        environments.shutil, "which", lambda name: None if name == "python3.12" else f"/somewhere/{name}"
    )
    machine = FakeMachine()
    machine.fails = lambda command: "torch==2.15.0" in command
    arguments = [
        "--environments",
        str(tmp_path),
        "--pairs",
        "2.15.0/3.9.0",
        "2.14.1/3.8.0",
        "--pythons",
        "3.12",
        "3.13",
    ]
    assert main(arguments, machine) == 1
    out, err = capsys.readouterr()
    rows = out.splitlines()[2:]
    assert [len(re.findall("not run", row)) for row in rows] == [4, 4, 4, 0]
    assert "python3.12 is not on PATH: install it, or leave it out with --pythons" in err
    log = tmp_path / "logs" / "python3.13-torch2.15.0-triton3.9.0-install.txt"
    assert f"pip install ... ended with status 1, see {log}" in err
    assert "no matching distribution" in log.read_text()


def test_an_interruption_prints_what_was_found(
    tmp_path: Path, few: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(FakeMachine):
        def __call__(self, command: Sequence[str], log: IO[str], variables: Mapping[str, str]) -> int:
            if "tests/cyclegan_fast" in command:
                raise KeyboardInterrupt
            return super().__call__(command, log, variables)

    assert main(["--environments", str(tmp_path), *few], Interrupted()) == 1
    out, err = capsys.readouterr()
    assert "interrupted" in err
    assert "| 512 passed, 3 skipped, 0 s | not run | not run | 0.3 GB |" in out


def test_the_help_says_what_is_tested(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"], FakeMachine())
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 2.11.0/3.6.0 2.13.0/3.7.1 2.14.1/3.8.0)" in text
    assert "(default: 3.11 3.12 3.13)" in text
