"""Describes the data in a study's page: its settings, its real images and those of each method."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cyclegan_fast.system.errors import UserError

Value = TypeVar("Value", str, int, float, bool, dict[str, Any], list[Any])
FloatArray = npt.NDArray[np.float64]
STUDY_FORMAT = 1  # version of the study's data and of results, on which page and analysis must agree
OUTPUTS = ("analysis.json", "analysis.svg")


@dataclass(frozen=True)
class SessionSettings:
    """Says how a session runs."""

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
    """Holds the data in a study's page; an image is (name, number of its scene)."""

    id: str
    version: str
    settings: SessionSettings
    real: tuple[tuple[str, int], ...]
    methods: dict[str, tuple[tuple[str, int], ...]]

    def as_json(self) -> str:
        """Return the data as JSON for a script element, in which nothing but "<" can end it."""
        text = json.dumps({"format": STUDY_FORMAT} | asdict(self), separators=(",", ":"), allow_nan=False)
        return text.replace("<", "\\u003c")


def read_study(folder: Path) -> Study:
    """Read the study whose page lies in a folder; raises UserError where there is none."""
    try:
        text = (folder / "index.html").read_text(encoding="utf-8")
        data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)[0])
        if data["format"] != STUDY_FORMAT:
            raise UserError(f"{folder} is of format {data['format']}, this version reads {STUDY_FORMAT}: make it again")
        methods = {str(name): tuple(map(tuple, images)) for name, images in data["methods"].items()}
        return Study(
            data["id"], data["version"], SessionSettings(**data["settings"]), tuple(map(tuple, data["real"])), methods
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} holds no study: give the folder that `make --out` wrote") from error
