"""Refuses what holds between the values of a configuration; each value by itself is checked by system/ranges.py."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)
