"""Reads what participants sent back, and refuses what does not belong to the study."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyclegan_fast.study.format import OUTPUTS, STUDY_FORMAT, FloatArray, SessionSettings, Study, Value
from cyclegan_fast.system.errors import UserError

RESULT = "perceptual study result"
TOLERANCE_MS = 250  # a quarter of the paper's second; a frame of a screen is 7 to 17 ms


class Refused(Exception):
    """Says why a file is left out."""


@dataclass(frozen=True)
class Session:
    """Holds the trials of one participant that count; arrays are [trials]."""

    study: str
    method: str
    participant: str
    started: str
    settings: SessionSettings
    fooled: npt.NDArray[np.bool_]
    """whether the generated image was taken for the real one"""
    shown_ms: FloatArray
    response_ms: FloatArray
    views: npt.NDArray[np.int64]
    """how often the pair was shown: more than once after a page was closed over it"""

    @property
    def rate(self) -> float:
        """Return the share of trials whose generated image was taken for the real one."""
        return float(self.fooled.mean())


def read_session(path: Path, study: Study | None) -> Session:
    """Read a whole session of the study, or of any study where none is given; raises Refused with the reason."""
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

    def column(name: str) -> FloatArray:
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
    if result.get("format") != STUDY_FORMAT:
        raise Refused(f"is of format {result.get('format')!r:.40}, and this version reads {STUDY_FORMAT}")
    return result


def _of(values: Any, name: str, kind: type[Value], where: str = "") -> Value:
    value = values.get(name) if isinstance(values, dict) else None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e15 else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Refused(f"{where}{name!r} is missing or of the wrong kind")
    return value


def _settings(result: dict[str, Any]) -> SessionSettings:
    values = _of(result, "settings", dict)
    practice, trials, show_ms, pause_ms = (
        _of(values, name, int, "settings: ") for name in ("practice", "trials", "show_ms", "pause_ms")
    )
    try:
        return SessionSettings(practice, trials, show_ms, pause_ms, _of(values, "paired", bool, "settings: "))
    except ValueError as error:
        raise Refused(f"settings: {error}") from error


def _refuse_strange(identity: str, settings: SessionSettings, method: str, study: Study) -> None:
    if identity != study.id:
        raise Refused(f"belongs to another study ({identity:.40}), not to {study.id}")
    if settings != study.settings:
        raise Refused("its settings are not those of the study: the file was changed")
    if method not in study.methods:
        raise Refused(f"the study has no method {method!r:.60}")


def _practice(trial: Any, number: int, settings: SessionSettings) -> bool:
    """Say whether a trial is practice, by its place, which its mark must repeat."""
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
    """Say whether the answer is the generated image's side, worked out anew."""
    where = f"trial {trial['number']}: "
    real_side, answer = _of(trial, "real_side", str, where), _of(trial, "answer", str, where)
    if not {real_side, answer} <= {"left", "right"}:
        raise Refused(f"{where}real_side and answer must be left or right")
    if _of(trial, "correct", bool, where) != (answer == real_side):
        raise Refused(f"{where}'correct' contradicts the sides of the real image and the answer: the file was changed")
    return answer != real_side


def find_results(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files that are named, and the .json files below the folders that are named."""
    for path in (path.expanduser() for path in paths):
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*.json") if p.name not in OUTPUTS and p.name[0] != ".")
        elif path.exists():
            yield path
        else:
            raise UserError(f"no file or folder {path}: name result files, or folders that hold them")


def read_sessions(paths: Sequence[Path], study: Study | None) -> tuple[list[Session], list[str]]:
    """Return the sessions that count, one for each participant, and a line for each file that is left out."""
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
