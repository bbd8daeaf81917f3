"""Describes the data in a study's page: its settings, its real images and those of each method."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import MOST_COUNTED, Range, check_fields

Value = TypeVar("Value", str, int, float, bool, dict[str, Any], list[Any])
LONGEST_MS = 10**6  # a quarter of an hour; browsers count up to 2^31
FloatArray = npt.NDArray[np.float64]
PracticePairs = Annotated[int, Range(0, MOST_COUNTED)]
CountingPairs = Annotated[int, Range(1, MOST_COUNTED)]
ShownMilliseconds = Annotated[int, Range(1, LONGEST_MS)]
PauseMilliseconds = Annotated[int, Range(0, LONGEST_MS)]
STUDY_FORMAT = 1  # version of the study's data and of results, on which page and analysis must agree
OUTPUTS = ("analysis.json", "analysis.svg")


@dataclass(frozen=True)
class SessionSettings:
    """Says how a session runs."""

    practice: PracticePairs
    trials: CountingPairs
    show_ms: ShownMilliseconds
    pause_ms: PauseMilliseconds
    paired: bool

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


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
