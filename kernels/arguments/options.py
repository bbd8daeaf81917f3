"""Checks an operator's numbers and names, and returns the numbers as Python's own.

NumPy's numbers are taken: some implementations would take them anyway, and others would not.
"""

import math
import reprlib
from collections.abc import Sequence
from numbers import Integral, Real

import torch


def value_and_type(value: object) -> str:
    """Return a value and its type for a message, in one short line."""
    return f"{' '.join(reprlib.repr(value).split())} ({type(value).__name__})"


def as_choice(names: Sequence[str]) -> str:
    """Return names as a choice for a message, such as "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def checked_integer(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """Return an integer from `least` to `most`; raises TypeError for what is none, such as True, ValueError outside."""
    number = value if type(value) is int else _integer(name, value)
    if (least is not None and number < least) or (most is not None and number > most):
        bounds = [f"at {which} {bound}" for which, bound in (("least", least), ("most", most)) if bound is not None]
        raise ValueError(f"{name} must be {' and '.join(bounds)}, got {number}")
    return number


def checked_pad(pad: object, height: int, width: int) -> int:
    """Return a pad that reflection is defined for: an integer that is smaller than both sides of an image.

    Raises TypeError for what is no integer, ValueError for one that does not fit.
    """
    number = pad if type(pad) is int else _integer("pad", pad)
    if not 0 <= number < max(1, min(height, width)):
        raise ValueError(f"pad must be at least 0 and smaller than both sides of {height}x{width}, got {number}")
    return number


def checked_eps(eps: object) -> float:
    """Return what is added to a variance, a finite number of at least 0; raises ValueError or TypeError for others."""
    number = eps if type(eps) is float else _real("eps", eps)
    if not 0 <= number < math.inf:
        raise ValueError(f"eps must be a finite number of at least 0, got {number}")
    return number


def checked_number(name: str, value: object) -> float:
    """Return a finite number; raises ValueError where it is NaN or infinite, TypeError where it is none."""
    number = value if type(value) is float else _real(name, value)
    if not -math.inf < number < math.inf:
        raise ValueError(f"{name} must be a finite number, got {number}")
    return number


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError where a value is not one of those allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {reprlib.repr(value)}")


def check_flag(name: str, value: object) -> None:
    """Raise TypeError where a value is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value_and_type(value)}")


def _integer(name: str, value: object) -> int:
    if isinstance(value, torch.SymInt):  # a number that a compiler keeps open
        return value  # type: ignore[return-value]  # it stands for an int
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value_and_type(value)}")
    return int(value)


def _real(name: str, value: object) -> float:
    if isinstance(value, torch.SymFloat):
        return value  # type: ignore[return-value]  # it stands for a float
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value_and_type(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float can hold, got {value_and_type(value)}") from None
