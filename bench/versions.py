"""`python -m bench.versions`: run the tests with every supported pair of PyTorch and Triton under every Python.

Each combination gets a virtual environment of its own, which is kept for the next time. PyTorch's builds for CUDA need
some 3 GB of NVIDIA's libraries; environments with the same PyTorch share one copy of them. A release that is not
supported yet is tried with `--pairs TORCH/TRITON`, before the bounds in pyproject.toml are lifted.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import IO, Self

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
TEST_PACKAGES = ("pytest", "pytest-benchmark", "pytest-xdist", "hypothesis", "matplotlib", "jsonschema", "packaging")
"""What the tests need of the extra "dev"."""
SHARED_PREFIXES = ("nvidia-", "cuda-toolkit")
"""NVIDIA's libraries, which are the same for every Python; cuda-bindings are not."""
GB = 1e9

Runner = Callable[[Sequence[str], IO[str]], int]
"""Runs a command, whose output goes to the file, and returns its exit status."""


class StepFailed(Exception):
    """A step of making an environment ended with an error; the message says which and where its output is."""


@dataclass(frozen=True)
class Pair:
    """Releases of PyTorch and Triton that belong together."""

    torch: str
    triton: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2.14.1/3.8.0"."""
        if not (found := re.fullmatch(r"(\d+\.\d+\.\d+)/(\d+\.\d+\.\d+)", text)):
            raise argparse.ArgumentTypeError(f"expected TORCH/TRITON such as 2.14.1/3.8.0, got {text!r}")
        return cls(*found.groups())

    def __str__(self) -> str:
        return f"{self.torch}/{self.triton}"


PAIRS = (Pair("2.11.0", "3.6.0"), Pair("2.13.0", "3.7.1"), Pair("2.14.1", "3.8.0"))


@dataclass(frozen=True)
class Environment:
    """A virtual environment in the folder where all of them are."""

    home: Path
    python: str
    pair: Pair

    @property
    def name(self) -> str:
        return f"python{self.python}-torch{self.pair.torch}-triton{self.pair.triton}"

    @property
    def folder(self) -> Path:
        return self.home / self.name

    @property
    def executable(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        return self.folder / "lib" / f"python{self.python}" / "site-packages"

    @property
    def libraries(self) -> Path:
        """NVIDIA's libraries, shared with other Pythons; absent for a build for the CPU."""
        return self.home / f"libraries-torch{self.pair.torch}"

    @property
    def stamp(self) -> Path:
        """Written when the environment is complete: what was asked for."""
        return self.folder / "requirements.json"

    def log(self, step: str) -> Path:
        return self.home / "logs" / f"{self.name}-{step.replace('/', '-')}.txt"

    def requirements_of(self, package: str) -> list[Requirement]:
        """What an installed package needs under this Python, its extras left out."""
        (metadata,) = distributions(name=package, path=[str(self.packages)])
        python = {"python_version": self.python, "python_full_version": f"{self.python}.0", "extra": ""}
        found = [Requirement(line) for line in metadata.requires or []]
        return [each for each in found if each.marker is None or each.marker.evaluate(python)]

    def version_of(self, package: str) -> str:
        return next((each.version for each in distributions(name=package, path=[str(self.packages)])), "none")

    def size_gb(self) -> float:
        """Files of the environment and the libraries that it shares."""
        folders = [self.folder, *([self.libraries] if (self.packages / "nvidia").is_symlink() else [])]
        return sum(file.lstat().st_size for folder in folders for file in folder.rglob("*")) / GB


@dataclass(frozen=True)
class Check:
    """A command in an environment, and how its last lines are read."""

    name: str
    arguments: tuple[str, ...]
    quick: tuple[str, ...]
    """in place of them with --quick"""
    summary: re.Pattern[str]


def _tests(folder: str, *quick: str) -> Check:
    files = tuple(f"{folder}/test_{name}.py" for name in quick)
    summary = re.compile(r"^=* ?((?:\d+ \w+, )*\d+ \w+) in [\d.]+s", re.MULTILINE)
    return Check(folder, ("-m", "pytest", folder), ("-m", "pytest", *files), summary)


COMPILE = ("-m", "kernels.aot")
CHECKS = (
    _tests("tests/kernels", "operators", "compile", "aot"),
    _tests("tests/cyclegan_fast", "step", "networks"),
    Check(
        "kernels.aot", (*COMPILE, "--all"), COMPILE, re.compile(r"^(\d+ variants) compiled in \d+ s(, \d+ .*)$", re.M)
    ),
)


@dataclass
class Row:
    """What was found in one environment."""

    environment: Environment
    passed: bool = True
    cells: dict[str, str] = field(default_factory=dict)
    """by column"""


def plain(requirement: Requirement) -> str:
    """A requirement as pip takes it, without the condition that it stood under."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def project_requirements(pyproject: str) -> list[str]:
    """What pyproject.toml names beside torch and triton, and what the tests need of its extra "dev"."""
    project = tomllib.loads(pyproject)["project"]
    needed = [Requirement(line) for line in project["dependencies"]]
    dev = {each.name: each for each in map(Requirement, project["optional-dependencies"]["dev"])}
    if missing := set(TEST_PACKAGES) - set(dev):
        raise ValueError(f'pyproject.toml\'s extra "dev" lacks {", ".join(sorted(missing))}: mend TEST_PACKAGES')
    kept = [each for each in needed if each.name not in ("torch", "triton")]
    return [plain(each) for each in [*kept, *(dev[name] for name in TEST_PACKAGES)]]


def run_logged(command: Sequence[str], log: IO[str]) -> int:
    """Run in the root of the repository, with nothing of the Python environment that this process is in."""
    without = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TRITON_INTERPRET")
    variables = {name: value for name, value in os.environ.items() if name not in without}
    return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=variables).returncode


def make_environment(environment: Environment, requirements: Sequence[str], run: Runner) -> bool:
    """Make the environment where there is none, or one of other requirements; return whether it was made.

    Raises:
        StepFailed: the interpreter is missing, or pip failed.
    """
    wanted = json.dumps([str(environment.pair), *requirements])
    if environment.stamp.exists() and environment.stamp.read_text() == wanted:
        return False
    interpreter = shutil.which(f"python{environment.python}")
    if interpreter is None:
        raise StepFailed(f"python{environment.python} is not on PATH: install it, or leave it out with --pythons")
    shutil.rmtree(environment.folder, ignore_errors=True)
    with open(environment.log("install"), "w") as log:

        def step(*command: str) -> None:
            print(f"+ {' '.join(command)}", file=log, flush=True)
            if status := run(command, log):
                raise StepFailed(f"{' '.join(command[:4])} ... ended with status {status}, see {log.name}")

        pip = (str(environment.executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        exact = [f"torch=={environment.pair.torch}", f"triton=={environment.pair.triton}"]
        step(interpreter, "-m", "venv", str(environment.folder))
        step(*pip, "--no-deps", *exact)
        needed = environment.requirements_of("torch")
        shared = [plain(each) for each in needed if each.name.startswith(SHARED_PREFIXES)]
        if shared:
            _share_libraries(environment, lambda folder: step(*pip, "--target", str(folder), *shared))
        # PyTorch and Triton are named again, so that pip refuses what does not go with them and replaces neither.
        step(*pip, *exact, *[plain(each) for each in needed if plain(each) not in shared], *requirements)
    environment.stamp.write_text(wanted)
    return True


def _share_libraries(environment: Environment, install: Callable[[Path], None]) -> None:
    """Make NVIDIA's libraries look installed: to PyTorch, which loads them from beside itself, and to pip."""
    libraries = environment.libraries
    if not libraries.exists():
        unfinished = libraries.with_name(f"{libraries.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        install(unfinished)
        unfinished.rename(libraries)
    (environment.packages / "nvidia").symlink_to(libraries / "nvidia", target_is_directory=True)
    (environment.packages / "shared_libraries.pth").write_text(f"{libraries}\n")


def run_checks(row: Row, run: Runner, *, jobs: int, quick: bool) -> Iterator[str]:
    """Run every check and fill the row; yields a line for each."""
    in_processes = {
        "pytest": ("-n", str(jobs), "--dist", "loadfile", "--max-worker-restart", "0"),
        "kernels.aot": ("--processes", str(jobs)),
    }
    for check in CHECKS:
        arguments = check.quick if quick else check.arguments
        command = [str(row.environment.executable), *arguments, *in_processes[arguments[1]]]
        log_path = row.environment.log(check.name)
        began = time.monotonic()
        with open(log_path, "w") as log:
            status = run(command, log)
        found = check.summary.findall(log_path.read_text())
        text = "".join(found[-1]) if found else "no result"
        if status:
            row.passed = False
            text += f", **status {status}**"
        row.cells[check.name] = f"{text}, {time.monotonic() - began:.0f} s"
        yield f"{check.name}: {row.cells[check.name]}" + (f", see {log_path}" if status else "")


def examine(row: Row, requirements: Sequence[str], run: Runner, *, jobs: int, quick: bool) -> Iterator[str]:
    """Make an environment, run its checks and fill its row; yields a line for each step."""
    row.cells["numpy"] = "not installed"
    try:
        made = make_environment(row.environment, requirements, run)
    except StepFailed as error:
        row.passed = False
        yield f"not installed: {error}"
        return
    row.cells["numpy"] = row.environment.version_of("numpy")
    row.cells["installed"] = f"{row.environment.size_gb():.1f} GB"
    yield f"{'made' if made else 'found'}, {row.cells['installed']}"
    yield from run_checks(row, run, jobs=jobs, quick=quick)


def table(rows: Iterable[Row]) -> str:
    """A Markdown table, one row for each environment."""
    columns = ["numpy", *(check.name for check in CHECKS), "installed"]
    lines = [f"| Python | torch | triton | {' | '.join(columns)} |", "| --- " * (3 + len(columns)) + "|"]
    for row in rows:
        pair = row.environment.pair
        torch = row.environment.version_of("torch") if "installed" in row.cells else pair.torch
        cells = [row.environment.python, torch, pair.triton, *(row.cells.get(column, "not run") for column in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.versions", description=__doc__.partition("\n\n")[2])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cyclegan-fast" / "versions"
    made.add_argument(
        "--environments", type=Path, default=cache, metavar="FOLDER", help="where they are kept (default: %(default)s)"
    )
    pairs = " ".join(map(str, PAIRS))
    made.add_argument(
        "--pairs", type=Pair.parse, nargs="+", default=PAIRS, metavar="TORCH/TRITON", help=f"(default: {pairs})"
    )
    made.add_argument(
        "--pythons", nargs="+", default=PYTHONS, metavar="X.Y", help=f"found on PATH (default: {' '.join(PYTHONS)})"
    )
    made.add_argument("--quick", action="store_true", help="the tests that a release breaks first, and fewer kernels")
    made.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of a check (default: %(default)s)")
    return made


def main(arguments: list[str] | None = None, run: Runner = run_logged) -> int:
    options = parser().parse_args(arguments)
    home: Path = options.environments.resolve()
    (home / "logs").mkdir(parents=True, exist_ok=True)
    requirements = project_requirements((ROOT / "pyproject.toml").read_text())
    wanted = [Environment(home, python, pair) for pair in options.pairs for python in options.pythons]
    rows: list[Row] = []
    complete = True
    try:
        for number, environment in enumerate(wanted, 1):
            print(f"[{number}/{len(wanted)}] {environment.name}", file=sys.stderr, flush=True)
            rows.append(Row(environment))
            for line in examine(rows[-1], requirements, run, jobs=options.jobs, quick=options.quick):
                print(f"      {line}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        complete = False
        print("interrupted; environments that are complete are used again", file=sys.stderr)
    print(table(rows))
    return 0 if complete and all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
