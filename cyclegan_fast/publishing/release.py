"""Gathers what is given away of trained weights: generators, configuration, scores and samples."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cyclegan_fast.checkpoint.files import FOLDER
from cyclegan_fast.checkpoint.names import kept_under
from cyclegan_fast.checkpoint.original import StateDict
from cyclegan_fast.checkpoint.published import PUBLISHED_WEIGHTS, without_places
from cyclegan_fast.checkpoint.weights_file import WeightsFile
from cyclegan_fast.conventions import GENERATOR_OF, Direction
from cyclegan_fast.methods.saved_networks import check_own_networks
from cyclegan_fast.runs import RESULTS
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.translation.trained import load_generator


@dataclass(frozen=True)
class LoadedFrom:
    """Says what a translator was loaded from, and in which state the file was then.

    file: the file that was read; of bare weights, `direction` and `network` choose among its generators.
    """

    file: Path
    direction: Direction
    network: str | None
    stamp: tuple[int, int]

    @classmethod
    def now(cls, file: Path, direction: Direction, network: str | None) -> Self:
        """Note the state that the file has now."""
        return cls(file, direction, network, _stamp(file))


@dataclass(frozen=True)
class Release:
    """Holds what is given away.

    generators: the weights by the names of the generators; by "" where bare weights do not say the direction.
    config: the configuration of the run, without the places of this machine; empty for bare weights.
    step: the number of steps that the run had taken; None where nobody knows.
    rows: the rows of scores, as results.json has them, of these weights.
    samples: the newest sample grids, by domain.
    """

    generators: dict[str, StateDict]
    config: dict[str, Any]
    step: int | None
    rows: list[dict[str, Any]]
    samples: dict[str, Path]

    @classmethod
    def of(cls, origin: LoadedFrom) -> Self:
        """Read the weights again, in both directions where there are two, and what lies beside them.

        Raises UserError where the file is not what it was when the translator was loaded.
        """
        if _stamp(origin.file) != origin.stamp:
            raise UserError(
                f"{origin.file} has changed since it was loaded: load it again to publish what it holds now"
            )
        place = origin.file.parent if origin.file.name == PUBLISHED_WEIGHTS else origin.file
        weights = WeightsFile.read(place, [], check_own_networks)
        if not weights.is_run:
            loaded = load_generator(place, origin.direction, [], origin.network)
            name = GENERATOR_OF[loaded.direction] if loaded.direction else ""
            return cls({name: loaded.network.state_dict()}, {}, None, [], {})
        named = {name: weights.generator_state(name) for name in GENERATOR_OF.values()}
        generators = {name: state for name, state in named.items() if state}
        log = weights.content.get("log")
        step = int(log["step"]) if log else None
        run = origin.file.parents[1] if origin.file.parent.name == FOLDER else None
        rows = _scores(run, origin.file, step) if run else []
        samples = _samples(run, step) if run and step is not None else {}
        return cls(generators, without_places(weights.content["config"]), step, rows, samples)


def _stamp(file: Path) -> tuple[int, int]:
    """Return what changes with a file's content, as `make` knows it: nanoseconds of its last change, and its bytes."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size


def _scores(run: Path, file: Path, step: int | None) -> list[dict[str, Any]]:
    """Return the rows that `evaluate` wrote of this file since it is as it is, or else those of the end of the run."""
    evaluation = run / "evaluation" / kept_under(file) / "evaluation.json"
    found = _json(evaluation)
    if found and Path(found["checkpoint"]).name == file.name and evaluation.stat().st_mtime >= file.stat().st_mtime:
        return list(found["rows"])
    results = _json(run / RESULTS)
    return list(results["rows"]) if results and results.get("step") == step else []


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "rows" in content else None


def _samples(run: Path, step: int) -> dict[str, Path]:
    """Return the newest sample grid of each domain that is not younger than the weights."""
    newest: dict[str, Path] = {}
    for path in sorted((run / "samples").glob("step_[0-9]*_[AB].png")):
        _, drawn_at, domain = path.stem.split("_")
        if int(drawn_at) <= step:
            newest[domain] = path
    return newest
