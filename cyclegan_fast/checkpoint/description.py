"""Checks what a file holds against a description: a type whose annotations limit numbers, tensors and lengths.

A description is what a type checker reads as well: `int`, `str | None`, `list[...]`, a TypedDict, and any of them as
`Annotated[int, Within(0)]`. content.py has that of a checkpoint. The names of entries are those of the file, such as
`log.step` or `ranks[0].step.pool_A.images[3]`.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import torch
from torch import Tensor

LONGEST_INTEGER = 63  # bits; more are in no number that is written here, and not every float takes them


class WrongEntry(ValueError):
    """Says which entry of a file is not as described, and what it is."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place or 'the whole'} {problem}")
        self.place = place


class NotFiniteEntry(WrongEntry):
    """Says which entry of a file is infinite or NaN."""


@dataclass(frozen=True)
class Within:
    """Limits a number to a range, both ends included; it must be finite unless it may be `or_infinite`."""

    least: float = -math.inf
    most: float = math.inf
    or_infinite: bool = False


@dataclass(frozen=True)
class Elements:
    """Limits a tensor: its type, its number of dimensions (None for any), and its elements, which must be finite."""

    dtypes: tuple[torch.dtype, ...]
    dimensions: int | None = None
    least: float = -math.inf
    most: float = math.inf


@dataclass(frozen=True)
class Length:
    """Limits the length of a list."""

    least: int
    most: int = 2**31


@dataclass(frozen=True)
class AndOthers:
    """Lets a mapping have entries that the description does not know: those of a library's other versions."""


@dataclass(frozen=True)
class Settings:
    """Limits a value of a configuration: a number, a text, true or false, none, or several of them."""


def check_entry(value: object, description: Any, place: str = "", *, complete: bool = True) -> None:
    """Raise WrongEntry where a value is not what the description says.

    Args:
        place: the name of the entry in its file.
        complete: whether entries that are NotRequired must be there, too: only older files lack them.
    """
    kind, *limits = get_args(description) if get_origin(description) is Annotated else (description,)
    origin = get_origin(kind) or kind
    if kind is Any:
        if any(isinstance(limit, Settings) for limit in limits):
            _check_setting(value, place)
        return
    if origin in (Union, UnionType):
        _check_union(value, get_args(kind), place, complete)
    elif is_typeddict(kind):
        others = any(isinstance(limit, AndOthers) for limit in limits)
        _check_fields(_mapping(value, place), kind, place, complete, others)
    elif origin is dict:
        key_kind, value_kind = get_args(kind)
        for key, inner in _mapping(value, place).items():
            _require(type(key) is key_kind, place, f"has an entry called {in_few_words(key)}")
            check_entry(inner, value_kind, f"{place}.{key}", complete=complete)
    elif origin is list:
        _require(type(value) is list, place, f"is {in_few_words(value)} instead of a list")
        assert isinstance(value, list)
        for limit in limits:
            _require(
                limit.least <= len(value) <= limit.most, place, f"has {len(value)} entries, not {_range_words(limit)}"
            )
        for index, inner in enumerate(value):
            check_entry(inner, get_args(kind)[0], f"{place}[{index}]", complete=complete)
    elif kind is Tensor:
        for limit in limits:
            _check_tensor(value, limit, place)
    else:
        _check_plain(value, kind, limits, place)


def _check_union(value: object, kinds: tuple[Any, ...], place: str, complete: bool) -> None:
    if value is None and NoneType in kinds:
        return
    first: WrongEntry | None = None
    for kind in kinds:
        if kind is NoneType:
            continue
        try:
            check_entry(value, kind, place, complete=complete)
            return
        except WrongEntry as error:
            first = first or error
    assert first is not None
    raise first


def _check_setting(value: object, place: str) -> None:
    if type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        for index, inner in enumerate(value):
            _require(not isinstance(inner, list | tuple), f"{place}[{index}]", "is several values")
            _check_setting(inner, f"{place}[{index}]")
    elif value is not None:
        _require(type(value) in (bool, int, float, str), place, f"is {in_few_words(value)}")
        _check_plain(value, type(value), [], place)


def _check_fields(value: Mapping[Any, Any], kind: Any, place: str, complete: bool, others: bool) -> None:
    fields, dotted = _fields(kind), f"{place}." if place else ""
    for name in fields if complete else sorted(kind.__required_keys__):
        _require(name in value, f"{dotted}{name}", "is missing")
    for name, inner in value.items():
        if name in fields:
            check_entry(inner, fields[name], f"{dotted}{name}", complete=complete)
        else:
            _require(others, place, f"has an entry {in_few_words(name)}, which is not known")


@cache
def _fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hint)[0] if get_origin(hint) is NotRequired else hint for name, hint in hints.items()}


def _mapping(value: object, place: str) -> Mapping[Any, Any]:
    _require(isinstance(value, dict), place, f"is {in_few_words(value)} instead of named entries")
    assert isinstance(value, dict)
    return value


def _check_plain(value: object, kind: Any, limits: list[Any], place: str) -> None:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    allowed = (int, float) if kind is float else (kind,)
    _require(type(value) in allowed, place, f"is {in_few_words(value)} instead of {names.get(kind, kind.__name__)}")
    may_be_infinite = any(limit.or_infinite for limit in limits)
    if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and not may_be_infinite)):
        raise NotFiniteEntry(place, f"is {value}")
    if isinstance(value, int):
        _require(value.bit_length() <= LONGEST_INTEGER, place, f"is {in_few_words(value)}")
    for limit in limits:
        assert isinstance(value, int | float)
        _require(limit.least <= value <= limit.most, place, f"is {value}, not {_range_words(limit)}")


def _check_tensor(value: object, limit: Elements, place: str) -> None:
    _require(isinstance(value, Tensor), place, f"is {in_few_words(value)} instead of a tensor")
    assert isinstance(value, Tensor)
    is_plain = value.layout == torch.strided and not value.is_meta and not value.requires_grad
    _require(is_plain, place, "is no plain tensor with values of its own")
    if value.dtype not in limit.dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in limit.dtypes)
        raise WrongEntry(place, f"is of {str(value.dtype).removeprefix('torch.')} instead of {wanted}")
    has_dimensions = limit.dimensions in (None, value.dim())
    _require(has_dimensions, place, f"has the shape {list(value.shape)} instead of {limit.dimensions} dimensions")
    # Before any element is looked at: a view may repeat a few bytes without end.
    own = value.numel() * value.itemsize <= value.untyped_storage().nbytes()
    _require(own, place, f"of shape {list(value.shape)} repeats its elements")
    if not is_finite(value):
        raise NotFiniteEntry(place, "has elements that are infinite or NaN")
    if value.numel() and (limit.least, limit.most) != (-math.inf, math.inf):
        least, most = (end.item() for end in value.aminmax())
        is_within = limit.least <= least and most <= limit.most
        _require(is_within, place, f"has elements from {least:.4g} to {most:.4g}, not {_range_words(limit)}")


def is_finite(values: Tensor) -> bool:
    """Tell whether no element of a tensor is infinite or NaN.

    A sum is one where an element is, and takes a fifth of the time; where finite elements overflow it, each is asked.
    """
    if not values.is_floating_point():
        return True
    memory = values.untyped_storage()
    if memory.nbytes() < values.numel() * values.element_size():  # a view that repeats elements may claim any number
        values = values.new_empty(0).set_(memory)
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def in_few_words(value: object) -> str:
    """Return what a value from a file is, briefly, whatever it is."""
    if isinstance(value, bool | float | None):
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= LONGEST_INTEGER else f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return reprlib.repr(value)
    return f"a {type(value).__name__}"


def _range_words(limit: Within | Elements | Length) -> str:
    if limit.most in (math.inf, 2**31):
        return f"at least {limit.least}"
    return f"{limit.least} to {limit.most}"


def _require(condition: bool, place: str, problem: str) -> None:
    if not condition:
        raise WrongEntry(place, problem)
