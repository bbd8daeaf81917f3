"""Changes entries of a checkpoint, one at a time: for tests that nothing of it is taken that is not right."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Place = tuple[Any, ...]
"""The keys and indices that lead to an entry."""

REMOVED = object()


def places(tree: Any, at: Place = ()) -> Iterator[Place]:
    """Yield the places of all entries below a tree, branches too."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in entries:
        yield (*at, key)
        yield from places(value, (*at, key))


def entry_at(tree: Any, place: Place) -> Any:
    """Return the entry at a place."""
    for key in place:
        tree = tree[key]
    return tree


def with_entry(tree: Any, place: Place, value: Any) -> Any:
    """Return a copy of a tree with another value at a place, or without the entry where it is REMOVED."""
    if not place:
        return value
    key, *rest = place
    copied: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    if not rest and value is REMOVED:
        del copied[key]
    else:
        copied[key] = with_entry(copied[key], tuple(rest), value)
    return tuple(copied) if isinstance(tree, tuple) else copied


VALUES: dict[str, Any] = {
    "nan": math.nan,
    "inf": math.inf,
    "-5": -5,
    "-5.0": -5.0,
    "10^12": 10**12,
    "1e12": 1e12,
    "a huge integer": 10**5000,
    "text": "something",
    "surrogate": "\ud800",
    "none": None,
    "true": True,
    "list": [1, 2],
    "nested": {"x": {"y": [None]}},
    "tensor": torch.zeros(2),
    "meta": torch.zeros(2, device="meta"),
    "sparse": torch.zeros(2, 2).to_sparse(),
    "removed": REMOVED,
}
"""Lists what any entry is replaced by."""


def _first_element(number: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(-1)[:1] = number
        return changed

    return change


TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "to float64": Tensor.double,
    "to bfloat16": Tensor.bfloat16,
    "to int32": Tensor.int,
    "to bool": Tensor.bool,
    "to complex": lambda tensor: tensor.to(torch.complex64),
    "one more dimension": lambda tensor: tensor[None],
    "one element less": lambda tensor: tensor.flatten()[1:],
    "twice as long": lambda tensor: torch.cat([torch.atleast_1d(tensor)] * 2),
    "repeated without end": lambda tensor: tensor.flatten()[:1].expand(2**40),
    "a NaN": _first_element(math.nan),
    "an infinity": _first_element(math.inf),
    "needs a gradient": lambda tensor: torch.nn.Parameter(tensor.float()),
}
"""Lists what a tensor is changed to; what makes NaN or infinity goes with floating tensors alone."""


def mutations_at(tree: Any, place: Place) -> Iterator[tuple[str, Any]]:
    """Yield copies of a tree, each with one change at a place, and what was changed."""
    entry = entry_at(tree, place)
    for name, value in VALUES.items():
        yield name, with_entry(tree, place, value)
    if isinstance(entry, Tensor):
        for name, change in TENSORS.items():
            if entry.is_floating_point() or name not in ("a NaN", "an infinity"):
                yield name, with_entry(tree, place, change(entry))
    elif isinstance(entry, dict):
        yield "added", with_entry(tree, place, {**entry, "stranger": 1})
        yield "added under a number", with_entry(tree, place, {**entry, 77: torch.zeros(2)})
    elif isinstance(entry, list):
        yield "added", with_entry(tree, place, [*entry, *entry[-1:]])
        yield "emptied", with_entry(tree, place, [])
