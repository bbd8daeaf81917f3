"""Describes values of an engine's card one by one: each function here takes JSON's value and returns the card's.

Each raises ValueError with a phrase that says what is allowed and what was found.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

from cyclegan_fast.conventions import SIDE_MULTIPLE, SMALLEST_GENERATOR_SIDE
from cyclegan_fast.images.pixel_type import PixelType

Reader = Callable[[Any], Any]

_MOST = 2**16  # images of a batch, and pixels of a side
_LONGEST_TEXT = 200
_LARGEST_VALUE, _SHORTEST_RANGE = 1e37, 1e-37  # in float32 neither becomes infinite or 0


def _wrong(what: str, found: object) -> ValueError:
    """Return the error of a value that is not `what`; a long one is quoted in part."""
    quoted = repr(found)
    return ValueError(f"must be {what}, got {quoted if len(quoted) <= 60 else f'{quoted[:60]}...'}")


def reads_one_of(names: Collection[str]) -> Reader:
    """Return what reads one of a few names."""

    def read(value: Any) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise _wrong(f"one of {', '.join(names)}", value)

    return read


def reads_text_like(pattern: str, what: str) -> Reader:
    """Return what reads a text that a regular expression matches; `what` says so in words."""

    def read(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII):
            return value
        raise _wrong(what, value)

    return read


read_digest = reads_text_like("[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits")


def read_text(value: Any) -> str:
    """Read some words in one line."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT and value.isprintable():
        return value
    raise _wrong(f"a text in one line of 1 to {_LONGEST_TEXT} characters", value)


def read_flag(value: Any) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    raise _wrong("true or false", value)


def read_targets(value: Any) -> tuple[str, ...]:
    """Read compute capabilities, such as ["sm89"]."""
    if isinstance(value, list) and value:
        return tuple(map(reads_text_like(r"sm\d{2,3}", 'a list of names such as "sm89"'), value))
    raise _wrong('a list of names such as "sm89"', value)


def read_shape(value: Any) -> tuple[int, int, int]:
    """Read batch, height and width in pixels."""
    what = (
        f"[batch, height, width], a batch from 1 to {_MOST} and sides that are multiples of {SIDE_MULTIPLE} "
        f"from {SMALLEST_GENERATOR_SIDE} to {_MOST}"
    )
    if not isinstance(value, list) or len(value) != 3 or any(type(number) is not int for number in value):
        raise _wrong(what, value)
    batch, *sides = value
    if not 1 <= batch <= _MOST or any(
        not SMALLEST_GENERATOR_SIDE <= side <= _MOST or side % SIDE_MULTIPLE for side in sides
    ):
        raise _wrong(what, value)
    return batch, *sides


def read_pixel_type(value: Any) -> PixelType:
    """Read a description of pixels, such as {"channels": 1, "dtype": "uint16", "low": 0.0, "high": 4095.0}."""
    known = PixelType().as_values().keys()
    if not isinstance(value, dict) or value.keys() != known:
        raise _wrong(f"a list of {', '.join(known)}", value)
    if type(value["channels"]) is not int or not isinstance(value["dtype"], str):
        raise _wrong("of a whole number of channels and the name of a type", value)
    if any(type(value[name]) not in (int, float) or not abs(value[name]) <= _LARGEST_VALUE for name in ("low", "high")):
        raise _wrong(f"of a range of numbers within {-_LARGEST_VALUE:g} to {_LARGEST_VALUE:g}", value)
    try:
        pixels = PixelType.of_values(value)
    except ValueError as error:
        raise ValueError(f"must describe pixels: {error}") from error
    if not pixels.high - pixels.low >= _SHORTEST_RANGE:
        raise _wrong(f"of a range of {_SHORTEST_RANGE:g} at least", value)
    if pixels.dtype != "float32" and not pixels.held_range[0] < pixels.held_range[1]:
        raise _wrong(f"of a range that {pixels.dtype} holds", value)
    return pixels


def read_parity(value: Any) -> dict[str, Any]:
    """Read, for the ONNX file and the engine, the figures by shape, or a sentence that says why there are none."""
    for part in (value := read_fields(value)).values():
        if not isinstance(part, str):
            for figures in read_fields(part).values():
                if any(type(figure) not in (int, float) for figure in read_fields(figures).values()):
                    raise _wrong("figures by shape", part)
    return dict(value)


def read_fields(value: Any) -> dict[str, Any]:
    """Read a JSON object."""
    if isinstance(value, dict):
        return value
    raise _wrong("a list of named values", value)
