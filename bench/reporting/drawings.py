"""Draws figures of comparisons with matplotlib: the operators' roofline, bars of a training step, curves of growth.

`plots.py` says which figures a device has, and writes them; it imports this module only to draw.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, NullFormatter, NullLocator

from bench.measure.limits import Limits
from bench.measure.records import Comparison, Timing, is_ours
from bench.reporting.views import Growth, by_time, contenders_of, figure, growths

# Okabe and Ito's palette, which people tell apart whatever colours they see; markers differ as well.
_BLUE, _SKY, _ORANGE, _GREEN, _VERMILION, _GREY = "#0072B2", "#8CC5E8", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"
_LIGHT_GREY = "#B5B5B5"


def _figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure; sizes are in inches. It is no figure of pyplot, which would keep it alive."""
    made = Figure(figsize=(width, height), layout="constrained")
    made.suptitle(title, fontsize=11, fontweight="bold")
    return made


# The roofline, and beside it each operator's share of the limit


@dataclass(frozen=True)
class _Role:
    """Says how the contender is marked that plays this part in a comparison; `of` returns its name, if there is one."""

    label: str
    colour: str
    marker: str
    size: float
    of: Callable[[Comparison], str | None]

    def mark(self, axes: Axes, x: float, y: float, comparison: Comparison, scale: float = 1) -> None:
        """Draw the role's marker at (x, y), hollow for a backward pass."""
        face = "white" if "backward" in comparison.case else self.colour
        look = {"marker": self.marker, "facecolor": face, "edgecolor": self.colour, "linewidth": 1.2}
        axes.scatter([x], [y], s=scale * self.size, zorder=3, **look)  # type: ignore[arg-type]  # of several types

    def handle(self) -> Line2D:
        """Return the role's entry in the legend."""
        return Line2D([], [], linestyle="", label=self.label, color=self.colour, marker=self.marker)


_ROLES = (
    _Role("plain", _GREY, "s", 30, lambda each: each.plain),
    _Role(
        "best opponent, where not plain",
        _ORANGE,
        "^",
        38,
        lambda each: None if each.best_opponent == each.plain else each.best_opponent,
    ),
    _Role("ours", _BLUE, "o", 42, lambda each: each.ours),
)


def _named(comparison: Comparison) -> list[tuple[_Role, str]]:
    """Return the roles that a comparison has, with the contender's name."""
    return [(role, name) for role in _ROLES if (name := role.of(comparison)) is not None]


def operators(device: str, limits: Limits, comparisons: Sequence[Comparison]) -> Figure:
    """Draw the roofline of the largest batch; for it and the smallest, the share of its limit each operator reaches."""
    batches = sorted({each.batch for each in comparisons})
    batches = batches[:: max(1, len(batches) - 1)][:2]
    shown = [each for each in comparisons if each.batch in batches]
    rows = list(dict.fromkeys((each.case, each.side) for each in shown))
    made = _figure(
        6.2 + 3.6 * len(batches),
        max(4.6, 1.8 + 0.22 * len(rows)),
        f"{device}: operators in {shown[0].dtype} against its limits",
    )
    axes, *panels = made.subplots(1, 1 + len(batches), width_ratios=[1.5, *len(batches) * [1]], squeeze=False)[0]
    _roofline(axes, limits, [each for each in shown if each.batch == batches[-1]])
    for panel, batch in zip(panels, batches, strict=True):
        _shares(panel, [each for each in shown if each.batch == batch], rows)
        panel.set_title(f"Batch {batch}", fontsize=10)
    furthest = max(panel.get_xlim()[1] for panel in panels)
    for panel in panels:
        panel.set_xlim(0, furthest)
    has_one_side = len({side for _, side in rows}) == 1
    panels[0].set_yticklabels([case if has_one_side else f"{case}, {side}x{side}" for case, side in rows])
    handles = [role.handle() for role in reversed(_ROLES) if any(role.of(each) for each in shown)]
    for label, face in (("filled: forward", "black"), ("hollow: backward", "white")):
        handles.append(Line2D([], [], linestyle="", label=label, color="black", marker="D", markerfacecolor=face))
    handles.append(Line2D([], [], label="limit", color="black"))
    made.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    return made


def _roofline(axes: Axes, limits: Limits, comparisons: Sequence[Comparison]) -> None:
    """Draw operations per byte that must move against operations a second, and a close-up around the operators."""
    peak, slope = limits.matrix_tflops[comparisons[0].dtype] * 1e12, limits.copy_gbps * 1e9
    points = [
        (role, each, each.operations / each.moved_bytes, each.operations / (each.contenders[name].ms.median / 1e3))
        for role in _ROLES
        for each in comparisons
        if (name := role.of(each)) is not None
    ]
    intensities, slowest = [x for _, _, x, _ in points], min(y for *_, y in points)
    low, high, ridge = min(intensities), max(intensities), peak / slope
    close = axes.inset_axes((0.53, 0.06, 0.45, 0.43))
    for panel, scale in ((axes, 0.3), (close, 1)):
        panel.plot([low / 9, ridge, 99 * max(ridge, high)], [low / 9 * slope, peak, peak], color="black", linewidth=1.5)
        panel.set(xscale="log", yscale="log")
        for role, each, intensity, achieved in points:
            role.mark(panel, intensity, achieved, each, scale)
    right = 6 * max(ridge, high)
    axes.set(xlim=(low / 4, right), ylim=(min(slowest, low / 4 * slope) / 2, peak * 4))
    axes.set(xlabel="operations per byte that must move", ylabel="operations a second")
    axes.set_title(f"Roofline, batch {comparisons[0].batch}", fontsize=10)
    close.set(xlim=(low / 1.2, high * 1.2), ylim=(slowest / 1.4, high * slope * 1.6))
    close.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
    close.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    close.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    close.yaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf)))
    for axis in (close.xaxis, close.yaxis):
        axis.set_minor_formatter(NullFormatter())
    close.tick_params(labelsize=7.5)
    axes.indicate_inset_zoom(close, edgecolor="black")
    middle = math.sqrt(high * ridge) if ridge > high else ridge / 2
    text, at = f"copies: {figure(limits.copy_gbps)} GB/s ", (middle, middle * slope)
    axes.annotate(text, at, xytext=(-6, 0), textcoords="offset points", ha="right")
    axes.text(right / 1.2, peak * 1.3, f"matrix products: {figure(peak / 1e12)} TFLOP/s", ha="right")


def _shares(axes: Axes, comparisons: Sequence[Comparison], rows: Sequence[tuple[str, int]]) -> None:
    """Draw how much of the limit is reached, in a row for each of `rows`, which are cases and sides."""
    for each in comparisons:
        row = rows.index((each.case, each.side))
        shares = [(role, 100 * (each.of_limit(name) or 0.0)) for role, name in _named(each)]
        ends = [function(share for _, share in shares) for function in (min, max)]
        axes.plot(ends, [row, row], color=_GREY, linewidth=0.8, alpha=0.5, zorder=1)
        for role, share in shares:
            role.mark(axes, share, row, each)
    axes.axvline(100, color="black", linewidth=1.2)
    axes.set_yticks(range(len(rows)), len(rows) * [""])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="% of the limit that is reached")


# Bars of a training step


def step(device: str, _limits: Limits, comparisons: Sequence[Comparison]) -> Figure:
    """Draw the time of a step: a panel for each batch and side, a bar for each contender, the slowest on top."""
    comparisons = sorted(comparisons, key=lambda each: (each.batch, each.side, each.key))
    heights = [len(each.contenders) + 2.2 for each in comparisons]
    made = _figure(11, 1.0 + 0.27 * sum(heights), f"{device}: training step, {comparisons[0].dtype}")
    panels = made.subplots(len(comparisons), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, comparison in zip(panels, comparisons, strict=True):
        _bars(axes, comparison)
    handles: list[Any] = [Patch(color=_BLUE, label="ours"), Patch(color=_LIGHT_GREY, label="opponents")]
    if any(is_ours(name) and name != each.ours for each in comparisons for name in each.contenders):
        handles.insert(1, Patch(color=_SKY, label="ours with other options"))
    if any(each.limit_ms is not None for each in comparisons):
        handles.append(Line2D([], [], color=_VERMILION, linestyle="--", label="limit of the machine"))
    made.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return made


def _bars(axes: Axes, comparison: Comparison) -> None:
    names = by_time(comparison)
    axes.set_yticks(range(len(names)), names)
    for row, (name, label) in enumerate(zip(names, axes.get_yticklabels(), strict=True)):
        timing, ours = comparison.contenders[name], name == comparison.ours
        ms, weight = timing.ms, "bold" if ours else "normal"
        axes.barh(row, ms.median, height=0.72, color=_BLUE if ours else _SKY if is_ours(name) else _LIGHT_GREY)
        quartiles = [[ms.median - ms.lower], [ms.upper - ms.median]]
        axes.errorbar(ms.median, row, xerr=quartiles, color="black", linewidth=1, capsize=2)
        text = f"{figure(ms.median)} ms" + ("" if ours else f", {timing.ratio.median:.2f} x ours")
        place: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (ms.upper, row), fontweight=weight, **place)
        label.set_fontweight(weight)
    if comparison.limit_ms is not None:
        axes.axvline(comparison.limit_ms, color=_VERMILION, linestyle="--", linewidth=1.3)
    axes.grid(visible=False, axis="y")
    slowest = comparison.contenders[names[0]].ms.median
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.38 * slowest), xlabel="ms a step, median and quartiles")
    axes.set_title(f"batch {comparison.batch}, {comparison.side}x{comparison.side}", fontsize=10)


# Curves of growth

_STYLES = ((_BLUE, "o", "-"), (_ORANGE, "^", "--"), (_GREEN, "s", "-."), (_VERMILION, "D", ":"), (_GREY, "v", "--"))


def scaling(device: str, _limits: Limits, comparisons: Sequence[Comparison]) -> Figure:
    """Draw how time, and memory where it is known, grow over batches and sides."""
    curves, names = growths(comparisons), contenders_of(comparisons)
    has_memory = any(timing.peak_gib is not None for each in comparisons for timing in each.contenders.values())
    case, dtype = comparisons[0].case, comparisons[0].dtype
    title = f"{device}: growth of {'a ' if case.startswith('training') else ''}{case}, {dtype}"
    made = _figure(5 * len(curves), 4.2 + 3.0 * has_memory, title)
    panels = made.subplots(1 + has_memory, len(curves), squeeze=False, height_ratios=[1.35, 1][: 1 + has_memory])
    for axes, growth in zip(panels[0], curves, strict=True):
        _curves(axes, growth, names, lambda timing: timing.ms.median)
        limits = {growth.size(each): each.limit_ms for each in growth.comparisons if each.limit_ms}
        if limits:
            axes.plot(*zip(*limits.items(), strict=True), color="black", linewidth=0.9, label="limit of the machine")
        _log_log(axes, growth)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** (0.07 * (len(names) + 1)))  # room for the legend
        axes.set_ylabel("ms, median")
        axes.legend(loc="upper left", fontsize=8)
        axes.set_title(growth.title, fontsize=10)
    for axes, growth in zip(panels[1], curves, strict=True) if has_memory else ():
        _curves(axes, growth, names, lambda timing: timing.peak_gib)
        _log_log(axes, growth)
        axes.set_ylabel("GiB of tensors at the peak")
    return made


def _curves(axes: Axes, growth: Growth, names: Sequence[str], value: Callable[[Timing], float | None]) -> None:
    """Draw a curve for each contender through those of its values that are known."""
    for name, (colour, marker, line) in zip(names, cycle(_STYLES), strict=False):
        exponent = growth.exponent(name)
        values = {growth.size(each): value(each.contenders[name]) for each in growth.having(name)}
        known = {size: found for size, found in values.items() if found is not None}
        label = name if exponent is None else f"{name}: pixels$^{{{exponent:.2f}}}$"
        look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5}
        axes.plot(list(known), list(known.values()), label=label, **look)


def _log_log(axes: Axes, growth: Growth) -> None:
    """Scale both axes logarithmically, with ticks at the sizes and at round figures."""
    sizes = [growth.size(each) for each in growth.comparisons]
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("images in a batch" if growth.over == "batch" else "side of the images, pixels")
    low, high = axes.get_ylim()
    steps = (1.0,) if high / low > 1000 else (1.0, 2.0, 5.0) if high / low > 10 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
