"""Gives tests of the training stack small images and options, and a cache of their own."""

from pathlib import Path

import pytest

from tests.cyclegan_fast.pictures import photo

TINY = ["--generator", "resnet_6", "--ngf", "4", "--ndf", "4", "--load-size", "36", "--crop-size", "32"]
"""Flags of networks and images so small that a step takes milliseconds."""


def contents(root: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, hidden ones too, by its path there."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Writes two small domains of different size with a few test images."""
    root = tmp_path / "dots2dashes"
    for name, count in (("trainA", 6), ("trainB", 4), ("testA", 2), ("testB", 2)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            photo(48, seed=10 * len(name) + 100 * ord(name[-1]) + index).save(root / name / f"{index}.png")
    return root


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sends decoded images that do not fit in memory elsewhere than into the cache of whoever runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "cyclegan-fast"
