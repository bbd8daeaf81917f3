"""Tests that every name which the pages name can be imported, and that light modules do not import PyTorch."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cyclegan_fast

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
PACKAGES = "cyclegan_fast|kernels|export"
FACES = {
    "cyclegan_fast.checkpoint": "from_original to_original load save load_weights find_newest",
    "cyclegan_fast.config": "PRESETS Config DataConfig LossConfig NetworkConfig OptimizerConfig RunConfig to_dict",
    "cyclegan_fast.images": "read_image write_image UnreadableImage",
    "cyclegan_fast.networks": "ResnetGenerator UnetGenerator PatchDiscriminator PixelDiscriminator",
    "kernels": "instance_norm reflection_pad residual_block conv2d_reflect",
}
"""The names that users imported from one module before it became a package."""
LIGHT = [
    "cyclegan_fast.conventions",
    "cyclegan_fast.runs",
    "cyclegan_fast.images",
    "cyclegan_fast.data.layouts",
    "cyclegan_fast.translation.plan",
]


def imports(page: str) -> Iterator[tuple[str, str]]:
    """Yield each import that a page shows, `from MODULE import NAME, ...`, as (module, name)."""
    for module, names in re.findall(rf"from ((?:{PACKAGES})[\w.]*) import (\([^)]*\)|[^\n`]*)", page):
        for name in filter(None, re.split(r"[(),\s]+", re.sub(r" as \w+|#.*", "", names))):
            yield module, name


def dotted_names(page: str) -> Iterator[str]:
    """Yield each module, or name in a module, that a page sets as code: `cyclegan_fast.checkpoint.from_original`."""
    yield from re.findall(rf"`((?:{PACKAGES})(?:\.\w+)+)`", page)
    yield from re.findall(rf"python -m ((?:{PACKAGES})(?:\.\w+)*)", page)


def is_there(module: str, name: str) -> bool:
    """Tell whether a name is in a module, or is a module of a package."""
    if not module:
        return importlib.util.find_spec(name) is not None
    imported = importlib.import_module(module)
    is_package = hasattr(imported, "__path__")
    return hasattr(imported, name) or (is_package and importlib.util.find_spec(f"{module}.{name}") is not None)


@pytest.mark.parametrize(("module", "names"), FACES.items(), ids=FACES)
def test_a_face_has_the_names_that_users_import(module: str, names: str) -> None:
    imported = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(imported, name)] == []


def test_the_package_lists_what_it_imports_when_asked() -> None:
    assert set(cyclegan_fast.__all__) <= set(dir(cyclegan_fast))
    assert all(callable(getattr(cyclegan_fast, name)) for name in cyclegan_fast.__all__ if name != "__version__")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_name_that_a_page_names_can_be_imported(page: Path) -> None:
    text = page.read_text()
    missing = [f"{module}.{name}" for module, name in imports(text) if not is_there(module, name)]
    missing += [dotted for dotted in dotted_names(text) if not is_there(*dotted.rpartition(".")[::2])]
    assert missing == []


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [(["cyclegan_fast.conventions"], "torch numpy PIL tyro yaml kernels"), (LIGHT, "torch")],
    ids=["conventions need nothing but Python", "others need no PyTorch"],
)
def test_light_modules_do_not_import_much(modules: list[str], unwanted: str) -> None:
    """They name, plan and find files: with PyTorch, a command would take seconds to refuse a wrong option."""
    code = (
        "import importlib, sys\n"
        "unwanted, *modules = sys.argv[1:]\n"
        "for module in modules:\n"
        "    importlib.import_module(module)\n"
        "    found = sorted({*unwanted.split()} & {*sys.modules})\n"
        "    assert not found, f'{module} imports {found}'\n"
    )
    command = [sys.executable, "-c", code, unwanted, *modules]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
