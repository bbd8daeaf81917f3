"""Holds the command `analyse`: how often each method's images were taken for real ones, and how sure that is.

A result is the file that the page saves at the end of a session. Results come from strangers' machines: sessions.py
checks each, and what is none of the study is left out by name. Needs no PyTorch.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from cyclegan_fast.study.format import FloatArray, Study, read_study
from cyclegan_fast.study.plot import MethodRow, draw
from cyclegan_fast.study.sessions import TOLERANCE_MS, Session, read_sessions
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.ranges import check_fields
from cyclegan_fast.system.words import counted

LEVEL = 0.95
DRAWS = 10_000  # the ends of the interval vary by about 0.1 percentage points from seed to seed

# --- statistics -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Holds what the sessions of one method say; rates are shares in [0, 1]."""

    method: str
    participants: int
    trials: int
    fooling_rate: float
    low: float
    high: float
    standard_error: float
    """standard error of the fooling rate, over participants"""
    over: str
    """what the interval generalises to: other participants, or other trials of one"""
    median_response_ms: float
    mistimed: int
    """trials that were shown more than TOLERANCE_MS too long or too short"""
    seen_again: int
    """trials whose pair had been seen before, because the page was closed over it"""
    rates: tuple[float, ...]
    """the fooling rate of each participant"""


def finding(method: str, sessions: Sequence[Session]) -> Finding:
    """Compute the fooling rate of one method: the share of trials whose generated image was labelled real."""
    rates = np.array([session.rate for session in sessions])
    fooled, shown, views = (
        np.concatenate([getattr(session, name) for session in sessions]) for name in ("fooled", "shown_ms", "views")
    )
    wanted = np.concatenate([np.full(len(session.fooled), session.settings.show_ms) for session in sessions])
    alone = len(sessions) == 1
    low, high, error = bootstrap(fooled.astype(np.float64) if alone else rates)
    return Finding(
        method=method,
        participants=len(sessions),
        trials=len(fooled),
        fooling_rate=float(fooled.mean()),
        low=low,
        high=high,
        standard_error=error,
        over="trials of one participant" if alone else "participants",
        median_response_ms=float(np.median(np.concatenate([session.response_ms for session in sessions]))),
        mistimed=int((np.abs(shown - wanted) > TOLERANCE_MS).sum()),
        seen_again=int((views > 1).sum()),
        rates=tuple(sorted(rates.tolist())),
    )


def bootstrap(values: FloatArray, seed: int = 0) -> tuple[float, float, float]:
    """Compute a bootstrap interval of LEVEL for the mean of values [n], and the standard error of the mean.

    The values are the rates of participants, and whole participants are resampled: answers of one person resemble each
    other, and an interval over the trials of all would take them for independent and be too narrow. The trials within a
    participant are not resampled on top: the rates that were observed differ by the luck of their trials already, which
    would be counted twice (Davison & Hinkley 1997, section 3.8). The images count as given, as in the paper.

    The interval is the percentile one (Efron & Tibshirani 1993, chapter 13), which is too short for few participants;
    the shares that it cuts off are lowered so that it is as wide as Student's t makes it (Hesterberg 2015, "What
    Teachers Should Know About the Bootstrap", the expanded percentile interval). Of 1500 simulated studies
    with 5, 10 and 25 people (rates beta-distributed about 30 %, 40 trials each) it covers the truth in 91, 94 and 94 %,
    the plain percentile interval in 82, 90 and 92 %.
    """
    from scipy.stats import norm, t  # takes a second to import

    n = len(values)
    if n == 1:
        return 0.0, 1.0, float("nan")
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS)  # [draws, n]
    means = counts @ values / n
    cut = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - LEVEL) / 2, n - 1))
    low, high = np.quantile(means, [cut, 1 - cut]).tolist()
    return low, high, float(means.std() * np.sqrt(n / (n - 1)))


# --- the report -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Analyse:
    """Say how often each method's images were taken for real ones, from the files that participants saved.

    Prints a table and writes analysis.json and analysis.svg, a plot. The fooling rate is the share of counting trials
    whose generated image was labelled real, as in Table 1 of the paper: at 50 % nobody can tell them apart. Its 95 %
    interval is a bootstrap over participants. Files that are no whole session of this study are named and left out, and
    everybody counts once; nobody is left out for how they answered.

    Examples:
        python -m cyclegan_fast.perceptual_study analyse results --study study
        python -m cyclegan_fast.perceptual_study analyse results/*.json --study study --out analysis
    """

    results: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RESULTS...", help_behavior_hint="(required)")
    ]
    """result files, or folders that hold them"""
    study: Path | None = None
    """folder of the study; without it, the images in the results cannot be checked"""
    out: Path = Path("analysis")
    """folder for analysis.json and analysis.svg, which are replaced where they are there"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)
        if not self.results:
            raise ValueError("no results given: name result files, or folders that hold them")


def analyse(command: Analyse) -> int:
    """Read, count, report; return the exit status."""
    study = read_study(command.study.expanduser()) if command.study else None
    if command.out.exists() and not command.out.is_dir():
        raise UserError(f"--out {command.out} is a file; give a folder")
    sessions, left_out = read_sessions(command.results, study)
    for line in left_out:
        print(f"left out {printable(line)}", file=sys.stderr)
    identity = the_study(sessions, left_out)
    order = list(study.methods) if study else sorted({session.method for session in sessions})
    by_method = {method: [session for session in sessions if session.method == method] for method in order}
    findings = [finding(method, found) for method, found in by_method.items() if found]
    notes = remarks(findings, sessions, study)
    _write(command.out, identity, findings, left_out, notes)
    print(f"study {identity}: {counted(len(sessions), 'session')}, {counted(len(left_out), 'file')} left out\n")
    print("\n".join([*_table(findings), "", *(f"note: {note}" for note in notes), f"written to {command.out}"]))
    return 0


def the_study(sessions: Sequence[Session], left_out: Sequence[str]) -> str:
    """Return the id of the one study that the sessions belong to; raises UserError where there are several or none."""
    if not sessions:
        why = f"; {counted(len(left_out), 'file')} left out, as said above" if left_out else ": no .json files there"
        raise UserError(f"no result to analyse{why}")
    counts = {session.study: 0 for session in sessions}
    for session in sessions:
        counts[session.study] += 1
    if len(counts) > 1:
        listed = ", ".join(f"{identity:.40} ({counted(count, 'session')})" for identity, count in counts.items())
        raise UserError(f"results of several studies: {listed}; say which one with --study FOLDER")
    return next(iter(counts))


def remarks(findings: Sequence[Finding], sessions: Sequence[Session], study: Study | None) -> list[str]:
    """Write what a reader of the table should know."""
    notes = []
    show_ms, found = sessions[0].settings.show_ms, {each.method for each in findings}
    for each in findings:
        if each.participants == 1:
            notes.append(f"{each.method}: one participant; the interval is over their trials only, not over people")
        if each.low == each.high:
            notes.append(f"{each.method}: all answered alike, from which no interval can be had; ask more people")
        if each.mistimed:
            notes.append(
                f"{each.method}: {counted(each.mistimed, 'trial')} shown more than {TOLERANCE_MS} ms too long or too "
                f"short ({show_ms} ms are wanted); counted"
            )
        if each.seen_again:
            notes.append(f"{each.method}: {counted(each.seen_again, 'trial')} shown again after a reload; counted")
    notes += [f"{method}: no session yet" for method in (study.methods if study else ()) if method not in found]
    if study is None:
        notes.append("the images were not checked against the study: give --study FOLDER")
    return notes


def _table(findings: Sequence[Finding]) -> list[str]:
    """Write the findings as aligned lines, with the numbers to the right."""
    rows = [("method", "participants", "trials", "labelled real", f"{LEVEL:.0%} interval", "median answer")]
    rows += [
        (
            each.method,
            str(each.participants),
            str(each.trials),
            f"{100 * each.fooling_rate:.1f} %",
            f"{100 * each.low:.1f} - {100 * each.high:.1f} %",
            f"{each.median_response_ms / 1000:.2f} s",
        )
        for each in findings
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) if place == 0 else text.rjust(width) for place, (text, width) in enumerate(cells))
        for cells in (tuple(zip(row, widths, strict=True)) for row in rows)
    ]


def _write(out: Path, study: str, findings: Sequence[Finding], left_out: Sequence[str], notes: Sequence[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "kind": "perceptual study analysis",
        "study": study,
        "interval": {"level": LEVEL, "draws": DRAWS, "kind": "bootstrap, expanded percentile"},
        "methods": [asdict(each) for each in findings],
        "left_out": list(left_out),
        "notes": list(notes),
    }
    write_atomically(out / "analysis.json", (json.dumps(report, indent=1) + "\n").encode())
    rows = [MethodRow(each.method, each.fooling_rate, each.low, each.high, each.rates) for each in findings]
    write_atomically(out / "analysis.svg", draw(rows).encode("utf-8", errors="replace"))
