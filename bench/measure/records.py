"""Reads and writes `bench/results/<device>.json`, which holds every run that was recorded on a device.

A run is stamped with machine, versions, commit and date, and holds comparisons; nothing that was recorded before is
overwritten. The same format is described for other readers by `bench/results/schema.json`.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measure.limits import Limits
from bench.measure.machine import ROOT, Stamp
from bench.measure.timing import Spread
from cyclegan_fast.kernels.gpus import file_name
from cyclegan_fast.system.files import write_atomically

RESULTS_FOLDER = ROOT / "bench" / "results"
_FORMAT = 1


@dataclass(frozen=True)
class Timing:
    """Holds what was measured of one contender."""

    ms: Spread
    """the time of one call"""
    ratio: Spread
    """its time over ours, round by round: above 1 ours is faster"""
    error: float | None = None
    """root mean square, relative to the exact result"""
    peak_gib: float | None = None
    """tensor memory at its highest; measured for some subjects only"""
    graph: bool = False
    """whether its calls were recorded as a CUDA graph"""
    kernels_ms: float | None = None
    """the times of the kernels of one call, added up, by the profiler; None on a CPU, and where it saw no kernel"""


@dataclass(frozen=True)
class Setup:
    """Says what was, or is to be, measured."""

    subject: str
    """operators, networks, step, data, translation, export, scaling, layers"""
    case: str
    """what is done, for example "blocks, second half, forward"."""
    shape: str
    """the shape of the images or the activation, for example "1x256x64x64"."""
    dtype: str
    """the precision that is computed in; where contenders differ, the lowest"""
    batch: int
    side: int
    """the side of the images, pixels"""
    moved_bytes: int
    """the bytes that must move: each input read once, each output written once"""
    operations: int
    """the operations that must be computed, a multiply-add being two"""

    @property
    def title(self) -> str:
        return f"{self.subject}: {self.case}, {self.shape}, {self.dtype}"


@dataclass(frozen=True)
class Comparison(Setup):
    """Holds the times of contenders that took turns at a case."""

    limit_ms: float | None
    """the least time by the limits measured in the same run; None where nothing must move or be computed"""
    ours: str
    """the contender that the others' times are divided by"""
    plain: str
    """the contender that computes as the original does"""
    rounds: int
    again: Spread
    """ours measured twice in each round, one over the other: a ratio within it cannot be told from 1"""
    contenders: dict[str, Timing]
    refused: dict[str, str] = field(default_factory=dict)
    """contenders that do not run or whose result was wrong, with the reason: no time of theirs is reported"""
    absent: dict[str, str] = field(default_factory=dict)
    """opponents that would have taken part, with the reason why they could not, for example "not installed"."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return the key that a later comparison shares with the earlier one that it replaces."""
        return self.subject, self.case, self.shape, self.dtype

    def of_limit(self, name: str) -> float | None:
        """Return the share of the machine's limit that a contender reaches."""
        return None if self.limit_ms is None else self.limit_ms / self.contenders[name].ms.median

    @property
    def best_opponent(self) -> str | None:
        """Return the name of the fastest contender that isn't ours."""
        others = [name for name in self.contenders if not is_ours(name)]
        return min(others, key=lambda name: (self.contenders[name].ms.median, name), default=None)


def is_ours(name: str) -> bool:
    """Return whether a contender is one of ours, by its name."""
    return name.startswith("ours")


@dataclass(frozen=True)
class RecordedRun:
    """Holds what was measured in one process."""

    stamp: Stamp
    limits: Limits
    comparisons: list[Comparison]


def _rounded(value: Any) -> Any:
    """Return the value for JSON, with figures of five digits: more are not measured."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def path_for(device: str, folder: Path = RESULTS_FOLDER) -> Path:
    """Return the file of a device's results."""
    return folder / f"{file_name(device)}.json"


class ResultRecorder:
    """Adds a run to a device's file, comparison by comparison: a process cut short loses none that was complete."""

    def __init__(self, path: Path, stamp: Stamp, limits: Limits) -> None:
        self.path = path
        self.earlier = read(path) if path.exists() else []
        self.run = RecordedRun(stamp, limits, [])

    def add(self, comparison: Comparison) -> None:
        self.run.comparisons.append(comparison)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, written([*self.earlier, self.run]).encode())


def written(runs: Iterable[RecordedRun]) -> str:
    """Return the runs as JSON, with a line for each comparison, so that a difference between versions can be read."""
    blocks = []
    for run in runs:
        head = {"stamp": _rounded(dataclasses.asdict(run.stamp)), "limits": _rounded(dataclasses.asdict(run.limits))}
        lines = ",\n".join("   " + json.dumps(_rounded(dataclasses.asdict(each))) for each in run.comparisons)
        blocks.append(
            f' {{"stamp": {json.dumps(head["stamp"])},\n  "limits": {json.dumps(head["limits"])},\n'
            f'  "comparisons": [\n{lines}\n  ]}}'
        )
    return f'{{"format": {_FORMAT}, "runs": [\n' + ",\n".join(blocks) + "\n]}\n"


def read(path: Path) -> list[RecordedRun]:
    """Return the runs of a file, oldest first. Raises ValueError, naming the file, where it is no file of results."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            raise ValueError(f"is of format {content['format']}, this program reads {_FORMAT}")
        return [_run(run) for run in content["runs"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of results: {error}; move it away to begin a new one") from error


def _run(content: dict[str, Any]) -> RecordedRun:
    return RecordedRun(
        Stamp(**content["stamp"]),
        Limits(**content["limits"]),
        [_comparison(each) for each in content["comparisons"]],
    )


def _comparison(content: dict[str, Any]) -> Comparison:
    contenders = {
        name: Timing(**timing | {"ms": Spread(**timing["ms"]), "ratio": Spread(**timing["ratio"])})
        for name, timing in content["contenders"].items()
    }
    return Comparison(**content | {"again": Spread(**content["again"]), "contenders": contenders})


def newest(runs: Iterable[RecordedRun]) -> Iterator[tuple[RecordedRun, Comparison]]:
    """Yield the last comparison of each key with its run, in the order in which keys first came up."""
    last: dict[tuple[str, str, str, str], tuple[RecordedRun, Comparison]] = {}
    for run in runs:
        for comparison in run.comparisons:
            last[comparison.key] = run, comparison
    yield from last.values()
