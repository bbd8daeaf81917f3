"""Makes the Markdown tables of a device's results."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from bench.measure.records import Comparison, is_ours
from bench.measure.timing import Spread
from bench.reporting.device_results import Device
from bench.reporting.markdown import markdown_table
from bench.reporting.views import by_time, contenders_of, figure, growths, in_lowest_precision

README_ROWS = 24
"""The most rows of one subject: where the lowest precision has more, docs/benchmarks.md shows the smallest batch."""
TITLES = {
    "step": "Training step",
    "operators": "Operators: the fused norms",
    "networks": "Networks",
    "translation": "Translation of an image",
    "scaling": "Scaling",
    "data": "Data path",
    "export": "Export",
    "layers": "Layers",
    "host time": "Time on the host",
}
README_SUBJECTS = ("step", "operators", "networks", "translation", "scaling", "data")
"""The subjects that most people ask for; the device's own page has all."""
BY_CONTENDER = ("step", "networks", "translation", "data", "export")
"""Subjects of a few cases, with a table for each; the others have a row for each case."""


def escaped(text: str) -> str:
    """Return the text for Markdown, where it may stand in a cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as a paragraph, with the newline that ends it."""
    return f"{markdown_table(titles, rows)}\n"


def measured(spread: Spread) -> str:
    return f"{figure(spread.median)} ({figure(spread.lower)} to {figure(spread.upper)})"


def share(part: float | None) -> str:
    return "" if part is None else f"{figure(100 * part)}%" if part < 0.01 else f"{part:.0%}"


def amount(value: float | None) -> str:
    return "" if value is None else figure(value)


def span(values: Sequence[float], form: Callable[[float], str] = figure) -> str:
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def _listed(values: Iterable[str]) -> str:
    """Return the values in a line, each once, in the order in which they come."""
    return ", ".join(dict.fromkeys(values))


def provenance(device: Device) -> str:
    """Return versions, commits, dates and limits of the runs that are shown, in two lines."""
    stamps = [run.stamp for run in device.runs]
    versions = [f"cyclegan-fast {_listed(stamp.project for stamp in stamps)}"]
    for name in ("torch", "triton", "cuda", "driver", "python"):
        known = _listed(value for stamp in stamps if (value := getattr(stamp, name)) != "none")
        versions += [f"{name} {known}"] if known else []
    commits, dates = _listed(stamp.commit for stamp in stamps), _listed(stamp.date[:10] for stamp in stamps)
    limits = [run.limits for run in device.runs]
    dtypes = sorted({dtype for each in limits for dtype in each.matrix_tflops})
    peaks = [
        f"{span([each.matrix_tflops[dtype] for each in limits if dtype in each.matrix_tflops])} TFLOP/s in {dtype}"
        for dtype in dtypes
    ]
    return (
        f"{', '.join(versions)}; commit {commits}; {dates}.\n"
        f"Limits, measured in the same runs: copies {span([each.copy_gbps for each in limits])} GB/s, "
        f"matrix products {', '.join(peaks)}.\n"
    )


def section(device: Device, level: int, choose: Callable[[list[Comparison]], list[Comparison]]) -> Iterator[str]:
    """Yield paragraphs: a heading of that level for the device, one below it for each subject.

    `choose` takes a subject's comparisons and returns those that are shown.
    """
    yield f"{'#' * level} {device.name}\n"
    yield provenance(device)
    for subject in _subjects(device):
        everything = device.of(subject)
        shown = choose(everything)
        if not shown:
            continue
        yield f"{'#' * (level + 1)} {TITLES.get(subject, subject.capitalize())}\n"
        if subject == "scaling":
            yield from scaling_tables(shown)
        elif subject in BY_CONTENDER:
            for each in shown:
                yield from contender_table(each)
        else:
            yield from case_table(shown)
        if len(shown) < len(everything):
            yield f"The full tables have {len(everything) - len(shown)} more, of other precisions or batches.\n"


def _subjects(device: Device) -> list[str]:
    present = {each.subject for each in device.comparisons}
    return [subject for subject in TITLES if subject in present] + sorted(present - set(TITLES))


def for_readme(comparisons: list[Comparison]) -> list[Comparison]:
    """Return the comparisons in the lowest precision, and of these the smallest batch where there are too many rows."""
    lowest = in_lowest_precision([each for each in comparisons if each.subject in README_SUBJECTS])
    if not lowest or lowest[0].subject == "scaling":
        return lowest
    by_contender = lowest[0].subject in BY_CONTENDER
    rows = sum(len(each.contenders) for each in lowest) if by_contender else len(lowest)
    smallest = min(each.batch for each in lowest)
    return lowest if rows <= README_ROWS else [each for each in lowest if each.batch == smallest]


def case_table(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yield a table with a row for each case, and what they come to together."""
    titles = ["case", "shape", "dtype", "ours, ms", "plain, ms", "best opponent, ms"]
    profiled = any(timing.kernels_ms is not None for each in comparisons for timing in each.contenders.values())
    kernels = ["kernels of ours, ms", "of the best, ms"] if profiled else []
    yield _table(
        [*titles, "plain / ours", "best / ours", *kernels, "of the limit"],
        (_case_row(each, profiled) for each in comparisons),
    )
    yield f"{_means(comparisons)}{_again(comparisons)}\n"
    yield from _refusals(comparisons)


def _case_row(comparison: Comparison, profiled: bool) -> list[str]:
    plain, best, contenders = comparison.plain, comparison.best_opponent, comparison.contenders
    kernels = [amount(contenders[name].kernels_ms) if name else "" for name in (comparison.ours, best)]
    return [
        escaped(comparison.case),
        comparison.shape,
        comparison.dtype,
        measured(contenders[comparison.ours].ms),
        figure(contenders[plain].ms.median),
        f"{escaped(best)}: {figure(contenders[best].ms.median)}" if best else "none",
        f"{contenders[plain].ratio.median:.2f}",
        f"{contenders[best].ratio.median:.2f}" if best else "",
        *(kernels if profiled else []),
        share(comparison.of_limit(comparison.ours)),
    ]


def _means(comparisons: Sequence[Comparison]) -> str:
    """Return the geometric mean and the extremes of a whole table."""
    sentences = []
    opponents: dict[str, list[tuple[Comparison, str | None]]] = {
        "plain": [(each, each.plain) for each in comparisons],
        "the best opponent": [(each, each.best_opponent) for each in comparisons],
    }
    for what, named in opponents.items():
        ratios = [each.contenders[name].ratio.median for each, name in named if name is not None]
        if len(ratios) > 1:
            mean, extremes = statistics.geometric_mean(ratios), span(ratios, lambda ratio: f"{ratio:.2f}")
            sentences.append(f"{mean:.2f} times as fast as {what} ({extremes})")
    return f"In the geometric mean ours is {' and '.join(sentences)}. " if sentences else ""


def _again(comparisons: Sequence[Comparison]) -> str:
    """Return how far ours was from itself, at the widest."""
    widest = max(comparisons, key=lambda each: (each.again.upper - each.again.lower, each.key))
    rounds = span([each.rounds for each in comparisons], lambda count: f"{count:.0f}")
    where = "" if len(comparisons) == 1 else f" at its widest ({escaped(widest.case)}, {widest.shape})"
    again = f"{widest.again.lower:.3f} to {widest.again.upper:.3f}"
    return f"Ours against itself, quartiles: {again}{where}; {rounds} rounds."


def _refusals(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yield a line for each refused contender and reason, with where it was first and how often, then the absent."""
    places: dict[tuple[str, str], list[Comparison]] = {}
    for each in comparisons:
        for name, reason in sorted(each.refused.items()):
            places.setdefault((name, reason), []).append(each)
    lines = []
    for (name, reason), (first, *others) in places.items():
        where = f"{escaped(first.case)}, {first.shape}, {first.dtype}" + (f" and {len(others)} more" if others else "")
        lines.append(f"- Refused: {escaped(name)} ({where}): {escaped(reason)}\n")
    lines += _absences(comparisons)
    if lines:
        yield "".join(lines)


def _absences(comparisons: Iterable[Comparison]) -> list[str]:
    """Return a line for each reason why opponents could not take part, with their names."""
    names: dict[str, dict[str, None]] = {}
    for each in comparisons:
        for name, reason in each.absent.items():
            names.setdefault(reason, {})[name] = None
    return [f"- Absent: {escaped(', '.join(sorted(names[reason])))}: {escaped(reason)}\n" for reason in sorted(names)]


def contender_table(comparison: Comparison) -> Iterator[str]:
    """Yield a table with a row for each contender, the slowest first; columns without any figure are left out."""
    head = f"**{escaped(comparison.case)}, {comparison.shape}, {comparison.dtype}**"
    if comparison.limit_ms is not None:
        head += f" ({figure(comparison.operations / 1e9)} GFLOP; the limit is {figure(comparison.limit_ms)} ms)"
    yield f"{head}\n"
    titles = ("contender", "ms", "its time / ours", "kernels, ms", "of the limit", "peak, GiB", "error")
    columns = [[title] for title in titles]
    for name in by_time(comparison):
        timing = comparison.contenders[name]
        cells = [
            f"**{escaped(name)}**" if name == comparison.ours else escaped(name),
            measured(timing.ms),
            f"{timing.ratio.median:.2f}",
            amount(timing.kernels_ms),
            share(comparison.of_limit(name)),
            amount(timing.peak_gib),
            "" if timing.error is None else f"{timing.error:.1e}",
        ]
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    shown, *rows = zip(*(column for column in columns if any(column[1:])), strict=True)
    yield _table(shown, rows)
    yield f"{_again([comparison])}\n"
    yield from _refusals([comparison])


def scaling_tables(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yield tables of time and memory at each size, and of the exponents of growth, for each case and precision."""
    kinds = dict.fromkeys((each.case, each.dtype) for each in comparisons)
    for case, dtype in kinds:
        of_kind = [each for each in comparisons if (each.case, each.dtype) == (case, dtype)]
        of_kind.sort(key=lambda each: (each.batch, each.side))
        names = contenders_of(of_kind)
        yield f"**{escaped(case)}, {dtype}**: time in ms, its ratio to ours, tensor memory at the peak\n"
        titles = ["batch", "side", *(title for name in names for title in _scaling_titles(name)), "of the limit"]
        yield _table(titles, (_scaling_row(each, names) for each in of_kind))
        if curves := growths(of_kind):
            yield _table(
                ["time grows as pixels to the power of", *(growth.title for growth in curves)],
                ([escaped(name), *(_exponent(growth.exponent(name)) for growth in curves)] for name in names),
            )
        yield f"{_again(of_kind)}\n"
        yield from _refusals(of_kind)


def _scaling_titles(name: str) -> list[str]:
    return [f"{escaped(name)}, ms", *([] if is_ours(name) else ["/ ours"]), "GiB"]


def _scaling_row(comparison: Comparison, names: Sequence[str]) -> list[str]:
    cells = [str(comparison.batch), str(comparison.side)]
    for name in names:
        timing = comparison.contenders.get(name)
        cells.append(figure(timing.ms.median) if timing else "")
        if not is_ours(name):
            cells.append(f"{timing.ratio.median:.2f}" if timing else "")
        cells.append(amount(timing.peak_gib) if timing else "")
    return [*cells, share(comparison.of_limit(comparison.ours))]


def _exponent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
