"""Says what a run of a training left that must not depend on the faults that struck it, and where two runs differ."""

import json
import re
from pathlib import Path
from typing import Any

import torch
import yaml

from cyclegan_fast.checkpoint.files import load

CLOCKS = {"elapsed_s", "since_s", "step_ms", "images_per_s", "peak_gib", "training_s"}
FREE = {"name", "runs", "workers", "cache_dir", "cache_gib"}
"""Settings that differ between two starts of one training in different folders."""


def outcome_of(run: Path) -> dict[str, Any]:
    """Return all that a run left: checkpoints, lines, scores, settings, pictures; hidden files are strays."""
    listed = re.findall(r"step_\d{8}_[AB]", (run / "index.html").read_text())
    return {
        **{path.name: load(path) for path in sorted((run / "checkpoints").glob("*.pt"))},
        **{path.name: _lines(path) for path in sorted(run.glob("*.jsonl"))},
        **{path.name: json.loads(path.read_text()) for path in sorted(run.glob("*.json"))},
        "config.yaml": yaml.safe_load((run / "config.yaml").read_text()),
        "samples": {path.name: path.read_bytes() for path in sorted((run / "samples").iterdir())},
        "index.html": listed,
        "strays": sorted(path.name for path in run.rglob(".*") if path.name != ".lock"),
    }


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the places where two outcomes differ in a bit, leaving out clocks and what is free to differ."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = (one.keys() | other.keys()) - CLOCKS - FREE
        missing = [f"{where}/{key}: one lacks it" for key in sorted(keys, key=str) if (key in one) != (key in other)]
        both = [key for key in keys if key in one and key in other]
        return missing + [place for key in both for place in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} of them"]
        return [
            place
            for index, pair in enumerate(zip(one, other, strict=True))
            for place in differences(*pair, f"{where}/{index}")
        ]
    return [] if type(one) is type(other) and (one == other or (one != one and other != other)) else [where]


def untrue_claim(said: str, run: Path) -> str | None:
    """Return what a command said is kept of a run and is not; None where it holds, or where nothing was said of it."""
    claim = re.search(r"the checkpoint of step (\d+) is kept|step (\d+) is saved", said)
    if claim is None:
        return None
    steps = {load(path)["log"]["step"] for path in (run / "checkpoints").glob("*.pt")}
    return None if int(claim[1] or claim[2]) in steps else f"'{claim[0]}', but there are {sorted(steps)}"
