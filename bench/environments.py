"""Makes virtual environments with a pair of PyTorch and Triton each; `bench.versions` runs the tests in them."""

import argparse
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import IO, Self

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
TEST_PACKAGES = ("pytest", "pytest-benchmark", "pytest-xdist", "hypothesis", "matplotlib", "jsonschema", "packaging")
"""The packages of the extra "dev" that the tests need."""
SHARED_PREFIXES = ("nvidia-", "cuda-toolkit")
"""NVIDIA's libraries, which are the same for every Python; cuda-bindings are not."""
GB = 1e9

Runner = Callable[[Sequence[str], IO[str], Mapping[str, str]], int]
"""Runs a command with more environment variables; its output goes to the file. Returns its exit status."""


class StepFailed(Exception):
    """Says which step of making an environment ended with an error, and where its output is."""


@dataclass(frozen=True)
class Pair:
    """Holds releases of PyTorch and Triton that belong together."""

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


@dataclass(frozen=True)
class Environment:
    """Names the files of a virtual environment in the folder where all of them are."""

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
        """Return the folder of NVIDIA's libraries, shared with other Pythons; absent for a build for the CPU."""
        return self.home / f"libraries-torch{self.pair.torch}"

    @property
    def kernels(self) -> Path:
        """Return the folder where Triton keeps what it has compiled."""
        return self.home / "kernels" / self.name

    @property
    def stamp(self) -> Path:
        """Return the file that says what was asked for; it is written when the environment is complete."""
        return self.folder / "requirements.json"

    def log(self, step: str) -> Path:
        return self.home / "logs" / f"{self.name}-{step.replace('/', '-')}.txt"

    def requirements_of(self, package: str) -> list[Requirement]:
        """Return what an installed package needs under this Python, its extras left out."""
        (metadata,) = distributions(name=package, path=[str(self.packages)])
        python = {"python_version": self.python, "python_full_version": f"{self.python}.0", "extra": ""}
        found = [Requirement(line) for line in metadata.requires or []]
        return [each for each in found if each.marker is None or each.marker.evaluate(python)]

    def version_of(self, package: str) -> str:
        return next((each.version for each in distributions(name=package, path=[str(self.packages)])), "none")

    def size_gb(self) -> float:
        """Return the size of the environment and of the libraries that it shares, in 10^9 bytes."""
        folders = [self.folder, *([self.libraries] if (self.packages / "nvidia").is_symlink() else [])]
        return sum(file.lstat().st_size for folder in folders for file in folder.rglob("*")) / GB


def _for_pip(requirement: Requirement) -> str:
    """Return a requirement as pip takes it, without the condition that it stood under."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def project_requirements(pyproject: str) -> list[str]:
    """Return what pyproject.toml names beside torch and triton, and what the tests need of its extra "dev"."""
    project = tomllib.loads(pyproject)["project"]
    needed = [Requirement(line) for line in project["dependencies"]]
    dev = {each.name: each for each in map(Requirement, project["optional-dependencies"]["dev"])}
    if missing := set(TEST_PACKAGES) - set(dev):
        raise ValueError(f'pyproject.toml\'s extra "dev" lacks {", ".join(sorted(missing))}: mend TEST_PACKAGES')
    kept = [each for each in needed if each.name not in ("torch", "triton")]
    return [_for_pip(each) for each in [*kept, *(dev[name] for name in TEST_PACKAGES)]]


def run_logged(command: Sequence[str], log: IO[str], variables: Mapping[str, str]) -> int:
    """Run in the root of the repository, with nothing of the Python environment that this process is in."""
    without = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TRITON_INTERPRET")
    others = {name: value for name, value in os.environ.items() if name not in without}
    return subprocess.run(
        command, stdout=log, stderr=subprocess.STDOUT, cwd=REPOSITORY, env={**others, **variables}
    ).returncode


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
            if status := run(command, log, {}):
                raise StepFailed(f"{' '.join(command[:4])} ... ended with status {status}, see {log.name}")

        pip = (str(environment.executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        exact = [f"torch=={environment.pair.torch}", f"triton=={environment.pair.triton}"]
        step(interpreter, "-m", "venv", str(environment.folder))
        step(*pip, "--no-deps", *exact)
        needed = environment.requirements_of("torch")
        shared = [_for_pip(each) for each in needed if each.name.startswith(SHARED_PREFIXES)]
        if shared:
            _share_libraries(environment, lambda folder: step(*pip, "--target", str(folder), *shared))
        # PyTorch and Triton are named again, so that pip refuses what does not go with them and replaces neither.
        step(*pip, *exact, *[_for_pip(each) for each in needed if _for_pip(each) not in shared], *requirements)
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
