"""Refuses values that a configuration cannot have, with ValueError; the sections of the configuration call these."""

from typing import get_args


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_choice(name: str, value: object, choices: object) -> None:
    """Raise ValueError, naming the field and what it may be, unless a value is one of the Literal `choices`."""
    allowed = get_args(choices)
    require(value in allowed, f"{name} must be one of {', '.join(allowed)}, got {value!r}")
