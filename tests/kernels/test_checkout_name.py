"""Tests that the operators are imported once under both of their names, beside another package named `kernels`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


FORKING = """
import json, os, sys, traceback, torch, triton.language
assert not {"kernels", "cyclegan_fast"} & {*sys.modules}
for line in sys.stdin:
    program, path, folder, output = json.loads(line)
    child = os.fork()
    if not child:
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(folder)
        sys.path[:0] = path
        status = 1
        try:
            exec(program, {"__name__": "__main__", "sys": sys})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Printed = Callable[..., str]
"""printed(program, *path, cwd=folder) -> what a process prints that finds modules in `path` before all others"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Printed]:
    """Runs programs in forks of one process that has imported PyTorch and Triton, and nothing of the project."""
    folder = tmp_path_factory.mktemp("forking")
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(program: str, *path: Path, cwd: Path) -> str:
            output = cwd / "printed.txt"
            request = json.dumps([program, [str(place) for place in path], str(cwd), str(output)])
            print(request, file=process.stdin, flush=True)
            status = process.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
            assert status == "0\n", output.read_text()
            return output.read_text().strip()

        yield run
        process.stdin.close()


@pytest.mark.parametrize("order", ["cyclegan_fast.kernels.norm.forward, kernels", "kernels, cyclegan_fast.kernels"])
def test_both_names_lead_to_the_same_modules(order: str, tmp_path: Path, printed: Printed) -> None:
    program = f"""
import {order}
import kernels.norm.forward as ours, cyclegan_fast.kernels.norm.forward as theirs
from kernels.plans import NormPlan
assert kernels is cyclegan_fast.kernels and ours is theirs
assert NormPlan is cyclegan_fast.kernels.plans.NormPlan and kernels.plans is cyclegan_fast.kernels.plans
import kernels.instance_norm, kernels.checking.sites
assert callable(kernels.instance_norm) and callable(cyclegan_fast.kernels.instance_norm)
assert kernels.checking.sites is sys.modules["cyclegan_fast.kernels.checking.sites"]
print(theirs.__spec__.name, theirs.__name__, NormPlan.__module__)
"""
    name = "cyclegan_fast.kernels.norm.forward"
    assert printed(program, ROOT, cwd=tmp_path) == f"{name} {name} cyclegan_fast.kernels.norm.planning"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Gives a folder with another package of the name `kernels`."""
    package = tmp_path / "elsewhere" / "kernels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .loading import get_kernel\n")
    (package / "loading.py").write_text("def get_kernel(name): return name\n")
    return package.parent


BOTH = """
from kernels import get_kernel
from cyclegan_fast.kernels import instance_norm
from kernels.loading import get_kernel as again
assert get_kernel is again
print(get_kernel("theirs"), tuple(instance_norm(torch.ones(1, 2, 4, 4), pad=1).shape), instance_norm.__module__)
"""


@pytest.mark.parametrize("place", ["wheel", "checkout"])
@pytest.mark.parametrize("first", ["kernels", "cyclegan_fast.kernels"])
def test_another_package_of_that_name_is_left_alone(
    first: str, place: str, foreign: Path, tmp_path: Path, printed: Printed
) -> None:
    path = [ROOT, foreign]
    if place == "wheel":
        shutil.copytree(
            ROOT / "cyclegan_fast", tmp_path / "wheel" / "cyclegan_fast"
        )  # follows the link, as a wheel does
        path = [foreign, tmp_path / "wheel"]
    expected = "theirs (1, 2, 6, 6) cyclegan_fast.kernels.instance_norm"
    assert printed(f"import torch, {first}\n{BOTH}", *path, cwd=tmp_path) == expected


def test_the_commands_of_the_checkout_run_beside_another_package(foreign: Path) -> None:
    command = [sys.executable, "-m", "kernels.traffic", "--help"]
    environment = os.environ | {"PYTHONPATH": str(foreign)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    assert result.stdout.startswith("usage: python -m kernels.traffic")


def test_a_copy_of_the_folder_needs_nothing_else_of_the_project(tmp_path: Path, printed: Printed) -> None:
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    program = """
sys.modules["cyclegan_fast"] = None  # makes the import fail
import torch
from kernels import instance_norm
print(tuple(instance_norm(torch.ones(1, 2, 4, 4), pad=1).shape), instance_norm.__module__)
"""
    assert printed(program, tmp_path, cwd=tmp_path) == "(1, 2, 6, 6) kernels.instance_norm"


@pytest.mark.slow
def test_the_commands_run_by_either_name() -> None:
    for name in ("kernels", "cyclegan_fast.kernels"):
        command = [sys.executable, "-m", f"{name}.traffic", "--help"]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert result.stdout.startswith(f"usage: python -m {name}.traffic")
