"""Marks some of a test's cases as slow."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytest


def slow_but(quick: Collection[str], cases: Mapping[str, Any] | Iterable[str]) -> list[Any]:
    """Return the cases as parameters with their names for ids, all but the quick ones marked as slow."""
    named = cases if isinstance(cases, Mapping) else {name: name for name in cases}
    assert named.keys() >= {*quick}
    return [
        pytest.param(case, id=name, marks=[] if name in quick else pytest.mark.slow) for name, case in named.items()
    ]
