"""Holds the habits of the house that a machine can see: names, docstrings, the size of folders and of doors."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("bench", "cyclegan_fast", "export", "kernels")
SOURCES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if not path.name.startswith("test_")
)
DOORS = (
    "demo",
    "download",
    "earth",
    "evaluate",
    "perceptual_study",
    "sample_photos",
    "stained_tissue",
    "street_scenes",
    "train",
    "translate",
)
MAY_REPEAT = {
    "main",  # of every command
    "pytest_addoption",  # a hook of pytest
    *("evaluate", "load", "train"),  # users of Python call them so: of the packages' faces, and of the floors below
}

FRAGMENT = re.compile(
    r"(What|Where|Whether|How|Of|Which|Who|When|The|A|An|As|In|At|With|Without|By|From|For|To|Such|None|That|Those|"
    r"These|This|If|Between|Everything|Anything|Something|Nothing|All|Any|One|Two|Only|Not|No)\b"
)
"""Words that a sentence may open with, but with which fragments such as "Of the run's folder." opened in this code."""


def _public_names(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (
                name.id
                for target in node.targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            )
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_one_public_name_is_one_thing() -> None:
    places = defaultdict(set)
    for path in SOURCES:
        for name in _public_names(ast.parse(path.read_text(encoding="utf-8"))):
            if not name.startswith("_") and name not in MAY_REPEAT:
                places[name].add(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("folder", [*FOLDERS, "tests"])
def test_docstrings_open_with_a_verb(folder: str) -> None:
    fragments = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                opening = (ast.get_docstring(node) or "").partition("\n")[0]
                if FRAGMENT.match(opening):
                    fragments.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {opening}")
    assert fragments == []


def test_no_folder_has_more_than_twenty_files() -> None:
    counts: dict[Path, int] = defaultdict(int)
    for path in SOURCES:
        counts[path.parent.relative_to(ROOT)] += 1
    assert {str(folder): count for folder, count in counts.items() if count > 20} == {}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_parses_calls_and_returns_a_status_in_under_a_hundred_lines(door: str) -> None:
    lines = (ROOT / "cyclegan_fast" / f"{door}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 100
    assert "def main(arguments: Sequence[str] | None = None) -> int:" in lines
