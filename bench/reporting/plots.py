"""Pictures of the results: `bench/results/plots/<device>-<what>.png`, drawn by `python -m bench.report`.

A picture carries a digest of the rows that it shows, as PNG text. By it `--check` sees what is out of date without
matplotlib, and whatever its version: pixels differ between versions.
"""

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.measure.limits import Limits
from bench.measure.records import Comparison
from bench.reporting.views import Growth, by_time, contenders_of, figure, growths, in_lowest_precision, is_ours
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from kernels.gpus import file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWING = 1
"""counted up when pictures of the same rows change, so that they are drawn anew"""
DIGEST = "Rows-SHA256"
"""the PNG keyword"""
DPI = 110
COLOURS = 256
"""of the palette, which halves the file"""

# Okabe and Ito's palette, which people tell apart whatever colours they see; markers differ as well.
BLUE, SKY, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#8CC5E8", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"


@dataclass(frozen=True)
class Plot:
    """A picture of some rows of one device."""

    what: str
    caption: str
    device: str
    limits: Limits | None
    """where they are drawn"""
    comparisons: list[Comparison]
    draw: Callable[["Plot"], "Figure"]

    @property
    def file(self) -> str:
        return f"{file_name(self.device)}-{self.what}.png"

    @property
    def digest(self) -> str:
        rows = [dataclasses.asdict(each) for each in self.comparisons]
        limits = self.limits and dataclasses.asdict(self.limits)
        content = [DRAWING, self.what, self.device, limits, rows]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def is_drawn_in(self, path: Path) -> bool:
        """Whether the file there shows these rows. False also for a file that is missing or no picture."""
        try:
            with Image.open(path) as image:
                return bool(image.info.get(DIGEST) == self.digest)
        except OSError:
            return False

    def write(self, path: Path) -> None:
        """Raises UserError where matplotlib is missing."""
        try:
            import matplotlib as mpl
        except ImportError as error:
            raise UserError("plots are drawn by matplotlib, which is not installed: pip install matplotlib") from error
        content = io.BytesIO()
        with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
            self.draw(self).savefig(content, format="png", dpi=DPI)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _small_png(content, {DIGEST: self.digest}))


def _small_png(content: io.BytesIO, texts: dict[str, str]) -> bytes:
    """The same picture with a palette, and with those texts instead of its own."""
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    made = io.BytesIO()
    with Image.open(content) as image:
        image.convert("RGB").quantize(COLOURS).save(made, format="PNG", optimize=True, pnginfo=info)
    return made.getvalue()


def plots_of(device: str, limits: Limits, comparisons: Sequence[Comparison]) -> list[Plot]:
    """Those that there is data for, all in the lowest precision measured.

    Args:
        device: its name.
        limits: that the operators were measured under.
        comparisons: the newest of each key, of any subject.
    """

    def of(subject: str) -> list[Comparison]:
        return in_lowest_precision([each for each in comparisons if each.subject == subject])

    bounded = [each for each in of("operators") if each.limit_ms is not None and each.moved_bytes and each.operations]
    plots = [
        Plot("operators", f"Roofline of the operators, {device}", device, limits, bounded, _draw_operators),
        Plot("step", f"Time of a training step, {device}", device, None, of("step"), _draw_step),
        Plot("scaling", f"Growth of time and memory, {device}", device, None, of("scaling"), _draw_scaling),
    ]
    return [plot for plot in plots if plot.comparisons and (plot.what != "scaling" or growths(plot.comparisons))]


def _figure(width: float, height: float, title: str) -> "Figure":
    """Inches; of the object-oriented interface, which leaves no state behind in matplotlib."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    made.suptitle(title, fontsize=11, fontweight="bold")
    return made


# The roofline, and beside it each operator's share of the limit


@dataclass(frozen=True)
class _Role:
    label: str
    colour: str
    marker: str
    size: float
    of: Callable[[Comparison], str | None]


def _best_but_plain(comparison: Comparison) -> str | None:
    return best if (best := comparison.best_opponent) != comparison.plain else None


ROLES = (
    _Role("plain", GREY, "s", 30, lambda each: each.plain),
    _Role("best opponent, where not plain", ORANGE, "^", 38, _best_but_plain),
    _Role("ours", BLUE, "o", 42, lambda comparison: comparison.ours),
)


def _draw_operators(plot: Plot) -> "Figure":
    batches = sorted({each.batch for each in plot.comparisons})
    batches = batches[:: max(1, len(batches) - 1)][:2]  # the smallest and the largest
    shown = [each for each in plot.comparisons if each.batch in batches]
    rows = list(dict.fromkeys((each.case, each.side) for each in shown))
    made = _figure(
        6.2 + 3.6 * len(batches),
        max(4.6, 1.8 + 0.22 * len(rows)),
        f"{plot.device}: operators in {shown[0].dtype} against its limits",
    )
    axes, *panels = made.subplots(1, 1 + len(batches), width_ratios=[1.5, *len(batches) * [1]], squeeze=False)[0]
    assert plot.limits is not None
    _roofline(axes, plot.limits, [each for each in shown if each.batch == batches[-1]])
    for panel, batch in zip(panels, batches, strict=True):
        _shares(panel, [each for each in shown if each.batch == batch], rows)
        panel.set_title(f"Batch {batch}", fontsize=10)
    furthest = max(panel.get_xlim()[1] for panel in panels)
    for panel in panels:
        panel.set_xlim(0, furthest)
    has_one_side = len({side for _, side in rows}) == 1
    panels[0].set_yticks(range(len(rows)), [case if has_one_side else f"{case}, {side}x{side}" for case, side in rows])
    made.legend(handles=_roles_legend(shown), loc="outside lower center", ncols=6, frameon=False)
    return made


def _roofline(axes: "Axes", limits: Limits, comparisons: Sequence[Comparison]) -> None:
    """Operations per byte that must move against operations a second; below, the same around the operators."""
    peak, slope = limits.matrix_tflops[comparisons[0].dtype] * 1e12, limits.copy_gbps * 1e9
    intensities = [each.operations / each.moved_bytes for each in comparisons]
    points = [
        (role, each, each.operations / (each.contenders[name].ms.median / 1e3))
        for role in ROLES
        for each in comparisons
        if (name := role.of(each)) is not None
    ]
    slowest = min(achieved for _, _, achieved in points)
    low, high, ridge = min(intensities), max(intensities), peak / slope
    close = axes.inset_axes((0.53, 0.06, 0.45, 0.43))
    for panel in (axes, close):
        panel.plot([low / 9, ridge, 99 * max(ridge, high)], [low / 9 * slope, peak, peak], color="black", linewidth=1.5)
        panel.set(xscale="log", yscale="log")
        for role, each, achieved in points:
            _mark(panel, each.operations / each.moved_bytes, achieved, role, each, scale=1 if panel is close else 0.3)
    right = 6 * max(ridge, high)
    axes.set(xlim=(low / 4, right), ylim=(min(slowest, low / 4 * slope) / 2, peak * 4))
    axes.set(xlabel="operations per byte that must move", ylabel="operations a second")
    axes.set_title(f"Roofline, batch {comparisons[0].batch}", fontsize=10)
    _zoom(close, (low / 1.2, high * 1.2), (slowest / 1.4, high * slope * 1.6))
    axes.indicate_inset_zoom(close, edgecolor="black")
    middle = math.sqrt(high * ridge) if ridge > high else ridge / 2
    axes.annotate(
        f"copies: {figure(limits.copy_gbps)} GB/s ",
        (middle, middle * slope),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
    )
    axes.text(right / 1.2, peak * 1.3, f"matrix products: {figure(peak / 1e12)} TFLOP/s", ha="right")


def _zoom(axes: "Axes", across: tuple[float, float], up: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, NullFormatter

    axes.set(xlim=across, ylim=up)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=7.5)


def _shares(axes: "Axes", comparisons: Sequence[Comparison], rows: Sequence[tuple[str, int]]) -> None:
    """How much of the limit is reached in each case and side, which are the `rows`."""
    for each in comparisons:
        row = rows.index((each.case, each.side))
        named = [(role, name) for role in ROLES if (name := role.of(each)) is not None]
        shares = [100 * (each.of_limit(name) or 0.0) for _, name in named]
        axes.plot([min(shares), max(shares)], [row, row], color=GREY, linewidth=0.8, alpha=0.5, zorder=1)
        for (role, _), share in zip(named, shares, strict=True):
            _mark(axes, share, row, role, each)
    axes.axvline(100, color="black", linewidth=1.2)
    axes.set_yticks(range(len(rows)), len(rows) * [""])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="% of the limit that is reached")


def _mark(axes: "Axes", x: float, y: float, role: _Role, comparison: Comparison, scale: float = 1) -> None:
    face = "white" if "backward" in comparison.case else role.colour
    axes.scatter(
        [x],
        [y],
        s=scale * role.size,
        marker=role.marker,
        facecolor=face,
        edgecolor=role.colour,
        linewidth=1.2,
        zorder=3,
    )


def _roles_legend(comparisons: Sequence[Comparison]) -> list[Any]:
    from matplotlib.lines import Line2D

    def handle(label: str, colour: str, marker: str, face: str) -> Line2D:
        return Line2D([], [], linestyle="", label=label, color=colour, marker=marker, markerfacecolor=face)

    handles = [
        handle(role.label, role.colour, role.marker, role.colour)
        for role in reversed(ROLES)
        if any(role.of(each) for each in comparisons)
    ]
    handles.append(handle("filled: forward", "black", "D", "black"))
    handles.append(handle("hollow: backward", "black", "D", "white"))
    return [*handles, Line2D([], [], label="limit", color="black")]


# Bars of a training step


def _draw_step(plot: Plot) -> "Figure":
    comparisons = sorted(plot.comparisons, key=lambda each: (each.batch, each.side, each.key))
    heights = [len(each.contenders) + 2.2 for each in comparisons]
    made = _figure(11, 1.0 + 0.27 * sum(heights), f"{plot.device}: training step, {comparisons[0].dtype}")
    panels = made.subplots(len(comparisons), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, comparison in zip(panels, comparisons, strict=True):
        _bars(axes, comparison)
    made.legend(handles=_bars_legend(comparisons), loc="outside lower center", ncols=4, frameon=False)
    return made


def _bar_colour(name: str, comparison: Comparison) -> str:
    if name == comparison.ours:
        return BLUE
    return SKY if is_ours(name) else "#B5B5B5"


def _bars(axes: "Axes", comparison: Comparison) -> None:
    names = by_time(comparison)
    medians = [comparison.contenders[name].ms.median for name in names]
    for row, name in enumerate(names):
        timing = comparison.contenders[name]
        quartiles = [[timing.ms.median - timing.ms.lower], [timing.ms.upper - timing.ms.median]]
        axes.barh(row, timing.ms.median, height=0.72, color=_bar_colour(name, comparison))
        axes.errorbar(timing.ms.median, row, xerr=quartiles, color="black", linewidth=1, capsize=2)
        ratio = "" if name == comparison.ours else f", {timing.ratio.median:.2f} x ours"
        axes.annotate(
            f"{figure(timing.ms.median)} ms{ratio}",
            (timing.ms.upper, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold" if name == comparison.ours else "normal",
        )
    if comparison.limit_ms is not None:
        axes.axvline(comparison.limit_ms, color=VERMILION, linestyle="--", linewidth=1.3)
    axes.set_yticks(range(len(names)), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name == comparison.ours else "normal")
    axes.grid(visible=False, axis="y")
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.38 * max(medians)), xlabel="ms a step, median and quartiles")
    axes.set_title(f"batch {comparison.batch}, {comparison.side}x{comparison.side}", fontsize=10)


def _bars_legend(comparisons: Sequence[Comparison]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=BLUE, label="ours"), Patch(color="#B5B5B5", label="opponents")]
    if any(is_ours(name) and name != each.ours for each in comparisons for name in each.contenders):
        handles.insert(1, Patch(color=SKY, label="ours with other options"))
    if any(each.limit_ms is not None for each in comparisons):
        handles.append(Line2D([], [], color=VERMILION, linestyle="--", label="limit of the machine"))
    return handles


# Curves of growth


def _draw_scaling(plot: Plot) -> "Figure":
    curves = growths(plot.comparisons)
    names = contenders_of(plot.comparisons)
    has_memory = any(t.peak_gib is not None for each in plot.comparisons for t in each.contenders.values())
    first = plot.comparisons[0]
    title = f"{plot.device}: growth of a {first.case}, {first.dtype}"
    if not first.case.startswith("training"):
        title = f"{plot.device}: growth of {first.case}, {first.dtype}"
    made = _figure(5 * len(curves), 4.2 + 3.0 * has_memory, title)
    panels = made.subplots(1 + has_memory, len(curves), squeeze=False, height_ratios=[1.35, 1][: 1 + has_memory])
    for column, growth in enumerate(curves):
        _curves(panels[0, column], growth, names)
        panels[0, column].set_title(growth.title, fontsize=10)
        if has_memory:
            _memory(panels[1, column], growth, names)
    return made


STYLES = ((BLUE, "o", "-"), (ORANGE, "^", "--"), (GREEN, "s", "-."), (VERMILION, "D", ":"), (GREY, "v", "--"))


def _curves(axes: "Axes", growth: Growth, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        colour, marker, line = STYLES[index % len(STYLES)]
        having = growth.having(name)
        exponent = growth.exponent(name)
        axes.plot(
            [getattr(each, growth.over) for each in having],
            [each.contenders[name].ms.median for each in having],
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=5,
            label=name if exponent is None else f"{name}: pixels$^{{{exponent:.2f}}}$",
        )
    having = [each for each in growth.comparisons if each.limit_ms]
    if having:
        axes.plot(
            [getattr(each, growth.over) for each in having],
            [each.limit_ms or 0.0 for each in having],
            color="black",
            linewidth=0.9,
            label="limit of the machine",
        )
    _log_log(axes, growth)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** (0.07 * (len(names) + 1)))  # room for the legend
    axes.set_ylabel("ms, median")
    axes.legend(loc="upper left", fontsize=8)


def _memory(axes: "Axes", growth: Growth, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        colour, marker, line = STYLES[index % len(STYLES)]
        peaks = [(getattr(each, growth.over), each.contenders[name].peak_gib) for each in growth.having(name)]
        known = [(size, peak) for size, peak in peaks if peak is not None]
        axes.plot(
            [size for size, _ in known],
            [peak for _, peak in known],
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=5,
        )
    _log_log(axes, growth)
    axes.set_ylabel("GiB of tensors at the peak")


def _log_log(axes: "Axes", growth: Growth) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    sizes = [getattr(each, growth.over) for each in growth.comparisons]
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("images in a batch" if growth.over == "batch" else "side of the images, pixels")
    low, high = axes.get_ylim()
    steps = (1.0,) if high / low > 1000 else (1.0, 2.0, 5.0) if high / low > 10 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
