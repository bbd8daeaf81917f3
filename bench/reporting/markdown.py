"""Writes a table as Markdown; what stands in the tables of results is said by tables.py."""

from collections.abc import Iterable, Sequence


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the lines of a table, without a newline behind the last; no cell may hold a "|" that isn't escaped."""
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
