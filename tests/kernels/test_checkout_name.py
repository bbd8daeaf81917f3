"""Tests that the operators are imported once under both of their names, beside another package named `kernels`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def printed(program: str, *path: Path, cwd: Path) -> str:
    """Return what a new process prints that finds modules in the folders of `path`, before all others."""
    program = f"import sys; sys.path[:0] = {[str(folder) for folder in path]!r}\n{program}"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("order", ["cyclegan_fast.kernels.norm.forward, kernels", "kernels, cyclegan_fast.kernels"])
def test_both_names_lead_to_the_same_modules(order: str, tmp_path: Path) -> None:
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
def test_another_package_of_that_name_is_left_alone(first: str, place: str, foreign: Path, tmp_path: Path) -> None:
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


def test_a_copy_of_the_folder_needs_nothing_else_of_the_project(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    program = """
sys.modules["cyclegan_fast"] = None  # makes the import fail
import torch
from kernels import instance_norm
print(tuple(instance_norm(torch.ones(1, 2, 4, 4), pad=1).shape), instance_norm.__module__)
"""
    assert printed(program, tmp_path, cwd=tmp_path) == "(1, 2, 6, 6) kernels.instance_norm"


def test_the_commands_run_by_either_name() -> None:
    for name in ("kernels", "cyclegan_fast.kernels"):
        command = [sys.executable, "-m", f"{name}.traffic", "--help"]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert result.stdout.startswith(f"usage: python -m {name}.traffic")
