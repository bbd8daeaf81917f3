"""Says which files a run has, finds the newest run, and the size that a run was trained at; needs no PyTorch."""

from pathlib import Path
from typing import Any

from cyclegan_fast.conventions import padded_side, wrong_side
from cyclegan_fast.system.errors import UserError

METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
ALARMS = "alarms.jsonl"
CONFIG = "config.yaml"
RESULTS = "results.json"
TRACKED = "trackers.json"
BARE_WEIGHTS_SIZE = 256
RUNS = Path("runs")


def newest_run(runs: Path) -> Path:
    """Return the folder of the run that saved a checkpoint last; raises UserError where there is none."""
    folders = [folder for folder in runs.glob("*/checkpoints") if any(folder.glob("*.pt"))]
    if not folders:
        raise UserError(f"no run with a checkpoint under {runs}: train one, or give --checkpoint FILE")
    return max(folders, key=lambda folder: folder.stat().st_mtime).parent


def trained_size(config: dict[str, Any], origin: Path) -> int:
    """Return the side in pixels of the crop that a run was trained on; 256 for bare weights, which do not say it.

    Args:
        config: the run's configuration as plain values; empty for bare weights.
        origin: the file that the configuration is from, which errors name.

    Raises UserError where the configuration names no side that can be trained on.
    """
    if not config:
        return BARE_WEIGHTS_SIZE
    data = config.get("data")
    size = data.get("crop_size") if isinstance(data, dict) else None
    if not isinstance(size, int) or wrong_side("crop_size", size):
        raise UserError(f"{origin} does not say what size it was trained at (crop_size {size}); give --size")
    return size


def checked_size(asked: int | None, config: dict[str, Any], origin: Path, multiple: int) -> int:
    """Return the side asked for, or else the one trained on; for bare weights, it is rounded up to what they can take.

    Raises UserError where it is no multiple of what the network halves images by.
    """
    size = asked or trained_size(config, origin)
    if asked is None and not config:
        size = padded_side(size, multiple)
    if size % multiple:
        raise UserError(
            f"{origin} takes images whose sides are multiples of {multiple}, not {size}: give another --size"
        )
    return size
