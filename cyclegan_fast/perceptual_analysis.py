"""What a perceptual study found: how often each method's images were taken for real ones, and how sure that is.

A result is the file that `perceptual_study.html` saves at the end of a session. Results come from strangers' machines:
each is checked, and what is none of the study is left out by name. Needs no PyTorch.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import tyro

from cyclegan_fast.errors import UserError, printable
from cyclegan_fast.files import write_atomically
from cyclegan_fast.perceptual_plot import Row, draw
from cyclegan_fast.words import counted

Value = TypeVar("Value", str, int, float, bool, dict[str, Any], list[Any])
Floats = npt.NDArray[np.float64]

FORMAT = 1  # of the study's data and of results; the page and the analysis must agree on it
RESULT = "perceptual study result"
LEVEL = 0.95
DRAWS = 10_000  # the ends of the interval vary by about 0.1 percentage points from seed to seed
TOLERANCE_MS = 250  # a quarter of the paper's second; a frame of a screen is 7 to 17 ms
OUTPUTS = ("analysis.json", "analysis.svg")


# --- what a study is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How a session runs."""

    practice: int
    trials: int
    show_ms: int
    pause_ms: int
    paired: bool

    def __post_init__(self) -> None:
        for name, least in (("practice", 0), ("trials", 1), ("show_ms", 1), ("pause_ms", 0)):
            if getattr(self, name) < least:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Study:
    """The data in a study's page; images are (name, number of the scene)."""

    id: str
    version: str
    settings: Settings
    real: tuple[tuple[str, int], ...]
    methods: dict[str, tuple[tuple[str, int], ...]]

    def as_json(self) -> str:
        """For a script element, in which nothing but "<" can end the data."""
        text = json.dumps({"format": FORMAT} | asdict(self), separators=(",", ":"), allow_nan=False)
        return text.replace("<", "\\u003c")


def read_study(folder: Path) -> Study:
    """The study whose page lies in a folder; raises UserError where there is none."""
    try:
        text = (folder / "index.html").read_text(encoding="utf-8")
        data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)[0])
        if data["format"] != FORMAT:
            raise UserError(f"{folder} is of format {data['format']}, this version reads {FORMAT}: make it again")
        methods = {str(name): tuple(map(tuple, images)) for name, images in data["methods"].items()}
        return Study(
            data["id"], data["version"], Settings(**data["settings"]), tuple(map(tuple, data["real"])), methods
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} holds no study: give the folder that `make --out` wrote") from error


# --- results --------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """Why a file is left out."""


@dataclass(frozen=True)
class Session:
    """One participant's counting trials, each [trials]."""

    study: str
    method: str
    participant: str
    started: str
    settings: Settings
    fooled: npt.NDArray[np.bool_]
    """whether the generated image was taken for the real one"""
    shown_ms: Floats
    response_ms: Floats
    views: npt.NDArray[np.int64]
    """how often the pair was shown: more than once after a page was closed over it"""

    @property
    def rate(self) -> float:
        return float(self.fooled.mean())


def read_session(path: Path, study: Study | None) -> Session:
    """A whole session of the study, or of any study where none is given; raises Refused with the reason."""
    result = _parsed(path)
    settings, trials = _settings(result), _of(result, "trials", list)
    method, identity = _of(result, "method", str), _of(result, "study", str)
    if study is not None:
        _refuse_strange(identity, settings, method, study)
    counting = [trial for number, trial in enumerate(trials, 1) if not _practice(trial, number, settings)]
    if len(trials) > settings.practice + settings.trials:
        raise Refused(f"has {len(trials)} trials, and a session has {settings.practice + settings.trials}")
    if len(counting) < settings.trials:
        raise Refused(f"is incomplete: {len(counting)} of {settings.trials} counting trials")
    _refuse_wrong_images(trials, method, study)
    fooled = [_fooled(trial) for trial in trials][settings.practice :]

    def column(name: str) -> Floats:
        values = np.array([_of(trial, name, float, f"trial {_of(trial, 'number', int)}: ") for trial in counting])
        if not (np.isfinite(values) & (values >= 0)).all():
            raise Refused(f"{name} holds a value that is no time or number of times")
        return values

    return Session(
        identity,
        method,
        _of(result, "participant", str),
        _of(result, "started", str),
        settings,
        np.array(fooled),
        column("shown_ms"),
        column("response_ms"),
        column("views").astype(np.int64),
    )


def _parsed(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Refused("cannot be read as JSON; perhaps it was cut off on its way") from error
    if not isinstance(result, dict) or result.get("kind") != RESULT:
        raise Refused("is no result of a perceptual study")
    if result.get("format") != FORMAT:
        raise Refused(f"is of format {result.get('format')!r:.40}, and this version reads {FORMAT}")
    return result


def _of(values: Any, name: str, kind: type[Value], where: str = "") -> Value:
    value = values.get(name) if isinstance(values, dict) else None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e15 else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Refused(f"{where}{name!r} is missing or of the wrong kind")
    return value


def _settings(result: dict[str, Any]) -> Settings:
    values = _of(result, "settings", dict)
    practice, trials, show_ms, pause_ms = (
        _of(values, name, int, "settings: ") for name in ("practice", "trials", "show_ms", "pause_ms")
    )
    try:
        return Settings(practice, trials, show_ms, pause_ms, _of(values, "paired", bool, "settings: "))
    except ValueError as error:
        raise Refused(f"settings: {error}") from error


def _refuse_strange(identity: str, settings: Settings, method: str, study: Study) -> None:
    if identity != study.id:
        raise Refused(f"belongs to another study ({identity:.40}), not to {study.id}")
    if settings != study.settings:
        raise Refused("its settings are not those of the study: the file was changed")
    if method not in study.methods:
        raise Refused(f"the study has no method {method!r:.60}")


def _practice(trial: Any, number: int, settings: Settings) -> bool:
    """Whether a trial is practice, which its place says and its mark must repeat."""
    where = f"trial {number}: "
    practice = number <= settings.practice
    if _of(trial, "number", int, where) != number or _of(trial, "practice", bool, where) != practice:
        raise Refused(f"{where}its number or its practice mark does not fit its place: the file was changed")
    return practice


def _refuse_wrong_images(trials: list[dict[str, Any]], method: str, study: Study | None) -> None:
    known = {"real": study.real, "fake": study.methods[method]} if study else {}
    for role in ("real", "fake"):
        names = [_of(trial, role, str, f"trial {trial['number']}: ") for trial in trials]
        for number, name in enumerate(names, 1):
            if study and name not in {known_name for known_name, _ in known[role]}:
                raise Refused(f"trial {number}: the study has no {role} image {name!r:.40} of {method}")
        if len({*names}) < len(names):
            raise Refused(f"shows a {role} image twice: the file was changed")


def _fooled(trial: dict[str, Any]) -> bool:
    """Whether the answer is the generated image's side, worked out anew."""
    where = f"trial {trial['number']}: "
    real_side, answer = _of(trial, "real_side", str, where), _of(trial, "answer", str, where)
    if not {real_side, answer} <= {"left", "right"}:
        raise Refused(f"{where}real_side and answer must be left or right")
    if _of(trial, "correct", bool, where) != (answer == real_side):
        raise Refused(f"{where}'correct' contradicts the sides of the real image and the answer: the file was changed")
    return answer != real_side


def find_results(paths: Sequence[Path]) -> Iterator[Path]:
    """The files named, and the .json files below the folders named."""
    for path in (path.expanduser() for path in paths):
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*.json") if p.name not in OUTPUTS and p.name[0] != ".")
        elif path.exists():
            yield path
        else:
            raise UserError(f"no file or folder {path}: name result files, or folders that hold them")


def read_sessions(paths: Sequence[Path], study: Study | None) -> tuple[list[Session], list[str]]:
    """The sessions that count, one for each participant, and a line for each file that is left out."""
    kept: dict[tuple[str, str], tuple[Path, Session]] = {}
    left_out = []
    for path in find_results(paths):
        try:
            session = read_session(path, study)
        except Refused as reason:
            left_out.append(f"{path}: {reason}")
            continue
        person = session.study, session.participant
        first = kept.setdefault(person, (path, session))
        if first[0] == path:
            continue
        # The paper lets everybody take part once; whoever did so again had practised.
        earlier, later = sorted([first, (path, session)], key=lambda each: each[1].started)
        kept[person] = earlier
        same = "the same session" if earlier[1].started == later[1].started else "a later session of the participant"
        left_out.append(f"{later[0]}: {same} of {earlier[0]}, which counts once")
    return [session for _, session in kept.values()], left_out


# --- statistics -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What the sessions of one method say; rates are shares in [0, 1]."""

    method: str
    participants: int
    trials: int
    fooling_rate: float
    low: float
    high: float
    standard_error: float
    """of the fooling rate, over participants"""
    over: str
    """what the interval generalises to: other participants, or other trials of one"""
    median_response_ms: float
    mistimed: int
    """trials that were shown more than TOLERANCE_MS too long or too short"""
    seen_again: int
    """trials whose pair had been seen before, because the page was closed over it"""
    rates: tuple[float, ...]
    """of each participant"""


def finding(method: str, sessions: Sequence[Session]) -> Finding:
    """The fooling rate of one method: the share of trials whose generated image was labelled real."""
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


def bootstrap(values: Floats, seed: int = 0) -> tuple[float, float, float]:
    """A bootstrap interval of LEVEL for the mean of values [n], and the standard error of the mean.

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
        if not self.results:
            raise ValueError("no results given: name result files, or folders that hold them")


def analyse(command: Analyse) -> int:
    """Read, count, report; returns the exit status."""
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
    write(command.out, identity, findings, left_out, notes)
    print(f"study {identity}: {counted(len(sessions), 'session')}, {counted(len(left_out), 'file')} left out\n")
    print("\n".join([*table(findings), "", *(f"note: {note}" for note in notes), f"written to {command.out}"]))
    return 0


def the_study(sessions: Sequence[Session], left_out: Sequence[str]) -> str:
    """The id of the one study that the sessions belong to; raises UserError where there are several or none."""
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
    """What a reader of the table should know."""
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


def table(findings: Sequence[Finding]) -> list[str]:
    """Aligned lines, numbers to the right."""
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


def write(out: Path, study: str, findings: Sequence[Finding], left_out: Sequence[str], notes: Sequence[str]) -> None:
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
    rows = [Row(each.method, each.fooling_rate, each.low, each.high, each.rates) for each in findings]
    write_atomically(out / "analysis.svg", draw(rows).encode("utf-8", errors="replace"))
