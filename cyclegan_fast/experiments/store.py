"""Reads and writes the experiments' output folder: the plan, and what was read in each run's translations."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config
from cyclegan_fast.config.values import from_dict, to_dict
from cyclegan_fast.evaluation.fcn.scores import Counts, SegmentationScores
from cyclegan_fast.experiments.paper_tables import ROWS, RowName
from cyclegan_fast.experiments.plan import Tables, run_name
from cyclegan_fast.images.files import read_image, write_image
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.training.run_folder import FREE_TO_CHANGE

REFERENCE = "reference"


@dataclass(frozen=True)
class Scored:
    """Holds a confusion matrix for each kind of image that was read, pictures, and facts on them.

    The kinds of a run are the directions, "b2a" and "a2b".
    """

    matrices: Mapping[str, Counts]
    pictures: Mapping[str, Pixels]  # by kind [K, size, size, 3], of the same few test views everywhere
    facts: Mapping[str, Any]

    def means(self, kind: str) -> dict[str, float]:
        """Return the three measures of a kind of image."""
        return SegmentationScores(self.matrices[kind]).means()


@dataclass(frozen=True)
class Store:
    """Keeps the folder OUT, whose files appear whole or not at all, so that a kill leaves nothing to mend."""

    out: Path

    @property
    def segmentation(self) -> Path:
        return self.out / "segmentation.pt"

    @property
    def scores(self) -> Path:
        return self.out / "scores"

    def claim(self, plan: Tables) -> None:
        """Make OUT, or make sure that it was made for this plan; raises UserError where it was not."""
        path = self.out / "plan.json"
        wanted = {"data": str(plan.data.resolve()), **asdict(plan.settings)}
        if not path.exists():
            if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
                raise UserError(f"{self.out} is there already and holds no experiments: give another --out")
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomically(path, as_json_file(wanted))
        found = read_json(path)
        changed = [
            f"{name}: {found.get(name)} -> {wanted.get(name)}"
            for name in sorted({*found, *wanted})
            if found.get(name) != wanted.get(name)
        ]
        if changed:
            raise UserError(
                f"{self.out} holds runs of another plan ({', '.join(changed)}), which are not to be mixed with these: "
                "give another --out"
            )
        self.scores.mkdir(exist_ok=True)

    def save(self, name: str, scored: Scored) -> None:
        """Write the pictures and then the numbers of a run, or of the reference."""
        strips = [np.concatenate(list(images), axis=1) for images in scored.pictures.values()]
        write_image(np.concatenate(strips), self.scores / f"{name}.png")
        confusion = {kind: matrix.tolist() for kind, matrix in scored.matrices.items()}
        content = {**scored.facts, "confusion": confusion, "pictures": list(scored.pictures)}
        # Last: what has this file is scored.
        write_atomically(self.scores / f"{name}.json", as_json_file(content))

    def load(self, name: str) -> Scored | None:
        """Return what `save` wrote; None where there is none yet."""
        path = self.scores / f"{name}.json"
        if not path.exists():
            return None
        facts = read_json(path)
        try:
            matrices = {kind: np.array(rows, np.int64) for kind, rows in facts.pop("confusion").items()}
            kinds = facts.pop("pictures")
            strips = np.asarray(read_image(path.with_suffix(".png")))
            size = len(strips) // len(kinds)
            pictures = {
                kind: np.stack(np.split(strips[index * size : (index + 1) * size], strips.shape[1] // size, axis=1))
                for index, kind in enumerate(kinds)
            }
        except (KeyError, TypeError, ValueError, ZeroDivisionError, UnreadableImage) as error:
            raise UserError(f"{path} is damaged: delete it, and the same command scores anew") from error
        return Scored(matrices, pictures, facts)

    def load_run(self, method: RowName, seed: int) -> Scored | None:
        """Return the scores of a run; None where it has none yet."""
        return self.load(run_name(method, seed))

    def check(self, config: Config, scored: Scored, judge: str) -> None:
        """Raise UserError where a run was scored that was trained otherwise, or that another network read."""
        path = self.scores / f"{config.run.name}.json"
        saved = from_dict(scored.facts["config"], str(path))
        changed = [
            line
            for line in values.differences(saved, config)
            if line.split(":")[0] not in FREE_TO_CHANGE  # where and on what it ran
        ]
        if changed:
            raise UserError(f"{path} is of another configuration ({', '.join(changed)}): give another --out")
        if scored.facts["judge"] != judge:
            raise UserError(
                f"{path} was read by another network than the others: delete {self.scores} to score all runs anew"
            )

    def all_runs(self) -> dict[RowName, dict[int, Scored]]:
        """Return every run that has been scored, by method and seed, in the order of ROWS."""
        found: dict[RowName, dict[int, Scored]] = {}
        for method in ROWS:
            names = {path.stem.removeprefix(f"{method}-seed") for path in self.scores.glob(f"{method}-seed*.json")}
            for seed in sorted(int(name) for name in names if name.isdecimal()):
                scored = self.load_run(method, seed)
                assert scored is not None
                found.setdefault(method, {})[seed] = scored
        return found


def facts_of(config: Config, judge: str, **others: Any) -> dict[str, Any]:
    """Collect the facts on a run's scores; `judge` is the digest of the network that read."""
    return {"config": to_dict(config), "judge": judge, **others}


def as_json_file(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a JSON file, the same for the same content."""
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of OUT; raises UserError where it is damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and the same command writes it anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: delete it, and the same command writes it anew")
    return content
