"""Checks the values of options against their declarations: types, choices, and ranges of numbers.

A number's range stands in its declaration, `batch_size: Annotated[int, Range(1, 512)] = 1`. `check_fields`, called in
`__post_init__`, holds every field against it, so that one check serves flags, files and Python.
"""

import os
import reprlib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cyclegan_fast.conventions import (
    LONGEST_SIDE,
    SIDE_MULTIPLE,
    SMALLEST_DISCRIMINATOR_SIDE,
    SMALLEST_GENERATOR_SIDE,
)

SHOWN_BITS = 100  # of an integer that an error shows; longer ones are described

MOST_THREADS = 4096
"""The largest number of threads that compute; `check_threads` knows how many the machine has."""
MOST_STEPS = 10**10
"""Limits steps, epochs, images and milliseconds: a training of a century has fewer."""
MOST_COUNTED = 10**9
"""The largest number of images, and of epochs."""
LARGEST_SEED = 2**63 - 1
"""The largest seed: PyTorch's are int64."""
LARGEST_BATCH = 2**16
"""The largest number of images at once: more than the memory of any device holds activations of."""
WIDEST = 1024
"""The largest number of channels of a network's first convolution: its widest layers have eight times as many."""


@dataclass(frozen=True)
class Range:
    """Declares which numbers an option may have; NaN is none of them.

    least: the smallest one.
    most: the largest one.
    above: a bound that they do not reach, in place of `least`.
    below: a bound that they do not reach, in place of `most`.
    multiple: what they are multiples of.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    multiple: int = 1

    def has(self, value: float) -> bool:
        """Return whether a number is in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and value == value  # not NaN
            and (self.multiple == 1 or value % self.multiple == 0)
        )

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"from {_in_figures(self.least)} to {_in_figures(self.most)}"
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {_in_figures(bound)}" for word, bound in bounds.items() if bound is not None)


RunSeed = Annotated[int, Range(0, LARGEST_SEED)]
BatchSize = Annotated[int, Range(1, LARGEST_BATCH)]
NetworkWidth = Annotated[int, Range(1, WIDEST)]
ThreadCount = Annotated[int, Range(1, MOST_THREADS)]
LearningRate = Annotated[float, Range(above=0, most=1000)]
LoadedSide = Annotated[int, Range(SMALLEST_DISCRIMINATOR_SIDE, LONGEST_SIDE)]
"""A side in pixels that images are resized to before they are cropped."""
TranslatedSide = Annotated[int, Range(SMALLEST_GENERATOR_SIDE, LONGEST_SIDE, multiple=SIDE_MULTIPLE)]
"""A side in pixels of images that a generator translates."""
TrainedSide = Annotated[int, Range(SMALLEST_DISCRIMINATOR_SIDE, LONGEST_SIDE, multiple=SIDE_MULTIPLE)]
"""A side in pixels of images that a discriminator gives scores."""


def check_fields(options: Any, *, as_flags: bool = False) -> None:
    """Raise ValueError, naming the field and what it may be, unless each field of a dataclass is as it is declared.

    Checked are types, choices (`Literal`), ranges, and that text and paths can be written as text. Fields of other
    types, such as nested options, check themselves.

    Args:
        as_flags: name fields as a command line does, "--batch-size".
    """
    declared = declarations(options.__class__)
    for name, declaration in declared.items():
        shown = f"--{name.replace('_', '-')}" if as_flags else name
        check_value(shown, getattr(options, name), declaration)


def check_value(name: str, value: object, declaration: Any) -> None:
    """Raise ValueError, with `name` and what is allowed, unless a value is as `declaration`, a type with extras, says.

    A path that is no Path is left alone: tyro's marks for what is missing stand there.
    """
    kind, limits = _unwrapped(declaration)
    if get_origin(kind) in (Union, UnionType):
        if value is None and type(None) in get_args(kind):
            return
        kind, own = _unwrapped(next(option for option in get_args(kind) if option is not type(None)))
        limits = limits or own
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            raise ValueError(f"{name} must be a list, got {brief(value)}")
        for item in value:
            check_value(name, item, get_args(kind)[0])
    elif get_origin(kind) is Literal:
        if not isinstance(value, str) or value not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {brief(value)}")
    elif kind in (int, float):
        _check_number(name, value, kind, limits)
    elif kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {brief(value)}")
    elif kind is str and not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {brief(value)}")
    elif kind in (str, Path) and isinstance(value, str | Path):
        _check_text(name, str(value))


def _check_number(name: str, value: object, kind: type, limits: Range | None) -> None:
    is_number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    assert isinstance(value, int | float) or not is_number
    if is_number and (limits is None or limits.has(value)):  # type: ignore[arg-type]  # a number, as is said above
        return
    what = "a whole number" if kind is int else "a number"
    if limits is not None and limits.multiple > 1:
        what = f"a multiple of {limits.multiple}"
    raise ValueError(f"{name} must be {what}{f' {limits}' if limits else ''}, got {brief(value)}")


def _check_text(name: str, text: str) -> None:
    """Refuse what no file can be called; bytes of a file's name that are no UTF-8 are let through, as such are read."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError(f"{name} is no text: it has half a character, got {brief(text)}") from None
    if "\0" in text:
        raise ValueError(f"{name} is no text: it has a null character, got {brief(text)}")


@cache
def declarations(options: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields, with their ranges, by their names."""
    hints = get_type_hints(options, include_extras=True)
    return {field.name: hints[field.name] for field in fields(options)}


def _unwrapped(declaration: Any) -> tuple[Any, Range | None]:
    """Return a type without what is annotated to it, and its range if it has one."""
    if get_origin(declaration) is not Annotated:
        return declaration, None
    kind, *extras = get_args(declaration)
    return kind, next((extra for extra in extras if isinstance(extra, Range)), None)


# --- values in messages ----------------------------------------------------------------------------------------------


class _Brief(reprlib.Repr):
    """Shows values of any size, nested to any depth, in a few words."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 80, 80
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 4

    def repr_int(self, x: int, level: int) -> str:
        """Describe an integer of many digits, which Python refuses to print."""
        bits = x.bit_length()
        return repr(x) if bits <= SHOWN_BITS else f"a number of {int(bits * 0.30103) + 1} digits"


def brief(value: object) -> str:
    """Return a value for a message, in one line of bounded length whatever it is."""
    return _SHOW.repr(value)


_SHOW = _Brief()


TOO_MANY_DIGITS = "a number of more than 4300 digits, which Python does not read"


def is_of_digits(error: Exception) -> bool:
    """Return whether an error is Python's about an integer of too many digits, whose advice is for programmers."""
    return isinstance(error, ValueError) and "integer string conversion" in str(error)


def _in_figures(bound: float) -> str:
    """Return a bound as text, large ones as powers."""
    if bound == LARGEST_SEED:
        return "2^63 - 1"
    if bound >= 10**6 and (power := len(str(int(bound))) - 1) and bound == 10**power:
        return f"10^{power}"
    return f"{bound:g}" if isinstance(bound, float) else str(bound)
