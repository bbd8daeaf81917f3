"""Writes what `python -m cyclegan_fast.baselines.gatys` leaves: a record of the results, and an overview of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from cyclegan_fast.images.files import read_image
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.images.sheets import spread
from cyclegan_fast.images.unreadable import UnreadableImage
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.translation.plan import Job

if TYPE_CHECKING:
    from cyclegan_fast.baselines.neural_style import Styled

LOSSES = "losses.json"
MOST_COLUMNS = 12  # images on the contact sheet
MOST_STYLES = 3  # rows of styles on it
_THUMBNAIL = 192  # pixels


class Record:
    """Keeps losses.json in the folder of the results: what each was made from, and its losses."""

    def __init__(self, folder: Path, network: str, settings: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / LOSSES
        self.head = {"network": network, "settings": settings}
        self.results: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            try:
                self.results = dict(json.loads(self.path.read_bytes())["results"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self.path} is damaged: delete it and the pictures beside it, or give another --out"
                ) from error

    def is_done(self, job: Job, origin: str) -> bool:
        """Say whether the result is there and of this origin; raises UserError for a file of somebody else."""
        if not job.target.exists():
            return False
        entry = self.results.get(self._name(job))
        if entry is None:
            raise UserError(f"{job.target} is there and not in {self.path}: give another --out, or delete it")
        return bool(entry["made_from"] == origin)

    def add(self, job: Job, origin: str, result: "Styled", elapsed_s: float) -> None:
        """Enter a result before its picture is written; an earlier picture is removed, lest it pass for the new one."""
        job.target.unlink(missing_ok=True)
        self.results[self._name(job)] = {
            "content": str(job.source),
            "made_from": origin,
            "first": asdict(result.first),
            "last": asdict(result.last),
            "elapsed_s": round(elapsed_s, 2),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps({**self.head, "results": self.results}, indent=2).encode())

    def _name(self, job: Job) -> str:
        return job.target.relative_to(self.folder).as_posix()


def contact_sheet(jobs: Sequence[Job], styles: Sequence[Path], network: str) -> Pixels:
    """Draw a column for each image: its content, the styles, and the result; of many, some that spread over all."""
    from cyclegan_fast.images.sheets import sheet

    shown_styles, shown_jobs = spread(styles, MOST_STYLES), spread(jobs, MOST_COLUMNS)
    middle = [thumbnail(path) for path in shown_styles]
    labels = [f"one of {len(styles)} styles" if len(styles) > 1 else "style"] * len(middle)
    rows = ["content", *labels, "result"]
    columns = [(job.source.name, [thumbnail(job.source), *middle, thumbnail(job.target)]) for job in shown_jobs]
    return sheet(f"Gatys et al. 2016; {network}", rows, columns)


def thumbnail(path: Path) -> Pixels:
    """Read an image as [_THUMBNAIL, _THUMBNAIL, 3]; a file that cannot be read becomes grey."""
    box = (_THUMBNAIL, _THUMBNAIL)
    try:
        return np.asarray(ImageOps.pad(read_image(path), box, Image.Resampling.BICUBIC))
    except UnreadableImage:
        return np.full((*box, 3), 60, np.uint8)
