"""Forms words in the sentences that users read."""

from collections.abc import Sequence


def counted(number: int, noun: str, several: str | None = None) -> str:
    """Return a number and its noun, such as "1 image" and "2 images"; `several` is an irregular plural."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"


def percent(part: float, whole: float) -> str:
    """Return a share in two digits, such as "0.012 %" and "100 %"."""
    return f"{float(f'{100 * part / whole:.2g}'):g} %"


def alternatives(names: Sequence[str]) -> str:
    """Return names as a choice, such as "1, 2 or 4"."""
    return _joined(names, "or")


def listed(names: Sequence[str]) -> str:
    """Return names as a list, such as "weights, losses and images"."""
    return _joined(names, "and")


def _joined(names: Sequence[str], word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
