"""Draws the plot of a perceptual study as SVG: a dot with its interval for each method, and a dot for each person."""

import html
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH = 760
LEFT, RIGHT = 170, 150  # beside the axis: names of methods, and numbers
TOP, ROW, BOTTOM = 92, 74, 56
DOT = 3.0  # radius of a participant
CHANCE = 0.5
NAME_LENGTH = 18  # letters that fit beside the axis

Scale = Callable[[float], float]

STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #191d22 }
  .page { fill: #fff } .muted { fill: #5a636e } .grid { stroke: #e3e6ea } .chance { stroke: #5a636e }
  .people { fill: #0b62c4; fill-opacity: .4 } .interval { stroke: #191d22; stroke-width: 2.5; fill: none }
  .rate { fill: #191d22; stroke: #fff; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e8eaed } .page { fill: #181c21 } .muted { fill: #a2abb6 } .grid { stroke: #2c333a }
    .chance { stroke: #a2abb6 } .people { fill: #6db3ff; fill-opacity: .5 } .interval { stroke: #e8eaed }
    .rate { fill: #e8eaed; stroke: #181c21 }
  }
"""


@dataclass(frozen=True)
class MethodRow:
    """Holds the share of trials in which a method fooled people, its interval, and that share for each participant."""

    name: str
    rate: float
    low: float
    high: float
    people: tuple[float, ...]


def draw(rows: Sequence[MethodRow]) -> str:
    """Return the text of the SVG; the axis ends at 60 %, or at 100 % where something lies beyond."""
    end = 0.6 if max(max(row.high, *row.people) for row in rows) <= 0.6 else 1.0
    height, bottom = TOP + ROW * len(rows) + BOTTOM, TOP + ROW * len(rows)

    def x(share: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * share / end, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{html.escape(description(rows))}">',
        f'<style>{STYLE}</style><rect class="page" width="{WIDTH}" height="{height}"/>',
        text(24, 34, "How often the generated image was taken for the real one", "font-size='17' font-weight='650'"),
        text(24, 55, "dot: all trials, line: 95 % interval, small dots: participants", "class='muted' font-size='13'"),
        *axis(x, end, bottom),
    ]
    for place, row in enumerate(rows):
        parts += method(row, x, TOP + ROW * place + ROW / 2)
    return "\n".join([*parts, "</svg>", ""])


def description(rows: Sequence[MethodRow]) -> str:
    """Say what the plot shows, to those who cannot see it."""
    each = (f"{row.name} {100 * row.rate:.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f})" for row in rows)
    return "Share of generated images taken for real: " + ", ".join(each)


def text(x: float, y: float, words: str, attributes: str) -> str:
    """Write words at a place, in pixels."""
    return f"<text x='{x}' y='{y}' {attributes}>{html.escape(words)}</text>"


def axis(x: Scale, end: float, bottom: float) -> list[str]:
    """Draw lines at every 10 or 20 %, and the one at which nobody can tell."""
    step = 10 if end < 1 else 20
    parts = []
    for percent in range(0, round(100 * end) + 1, step):
        here = x(percent / 100)
        parts.append(f"<line class='grid' x1='{here}' x2='{here}' y1='{TOP}' y2='{bottom}'/>")
        parts.append(text(here, bottom + 20, f"{percent} %", "class='muted' font-size='12' text-anchor='middle'"))
    here = x(CHANCE)
    parts.append(f"<line class='chance' x1='{here}' x2='{here}' y1='{TOP - 8}' y2='{bottom}' stroke-dasharray='4 3'/>")
    parts.append(text(here, TOP - 13, "cannot be told apart", "class='muted' font-size='12' text-anchor='middle'"))
    parts.append(text(x(0), bottom + 42, "labelled real, share of trials", "class='muted' font-size='12'"))
    return parts


def method(row: MethodRow, x: Scale, middle: float) -> list[str]:
    """Draw the row of a method around the height `middle`, in pixels."""
    name = row.name if len(row.name) <= NAME_LENGTH else row.name[: NAME_LENGTH - 1] + "…"
    low, high, rate = x(row.low), x(row.high), x(row.rate)
    ends = f"M{low} {middle - 6}v12M{low} {middle}H{high}M{high} {middle - 6}v12"
    beside = WIDTH - RIGHT + 22
    return [
        text(LEFT - 22, middle + 5, name, "font-size='14' font-weight='600' text-anchor='end'"),
        *(f"<circle class='people' cx='{x(share)}' cy='{middle + dy}' r='{DOT}'/>" for share, dy in swarm(row.people)),
        f"<path class='interval' d='{ends}'/><circle class='rate' cx='{rate}' cy='{middle}' r='6.5'/>",
        text(beside, middle, f"{100 * row.rate:.1f} %", "font-size='15' font-weight='650'"),
        text(beside, middle + 17, f"{100 * row.low:.1f} – {100 * row.high:.1f} %", "class='muted' font-size='12'"),
    ]


def swarm(people: Sequence[float]) -> list[tuple[float, float]]:
    """Return (share, distance from the row's middle) of each person; those of one rate stand side by side."""
    most = max(Counter(people).values())
    pitch = min(2 * DOT + 0.5, (ROW / 2 - DOT) / (most // 2 + 1.5))
    seen: Counter[float] = Counter()
    places = []
    for share in people:
        turn = seen[share]
        seen[share] += 1
        # Off the middle, where the interval is drawn.
        places.append((share, round((turn // 2 + 1.5) * pitch * (-1 if turn % 2 else 1), 1)))
    return places
