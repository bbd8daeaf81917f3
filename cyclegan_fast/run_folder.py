"""A run's folder: claimed by one process, continued where it was interrupted, never overwritten."""

import fcntl
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from cyclegan_fast import checkpoint, config as configuration
from cyclegan_fast.config import Config
from cyclegan_fast.errors import UserError

CONFIG = "config.yaml"
RESULTS = "results.json"

# Fields that change neither a result nor a file of the run.
FREE_TO_CHANGE = ("name", "runs", "device", "workers", "cache_gib")


@dataclass(frozen=True)
class RunFolder:
    """An open run: `checkpoint` is what to continue from, None at the start; `lock` is held until the process ends."""

    path: Path
    checkpoint: dict[str, Any] | None
    warnings: list[str]
    lock: IO[str]

    @property
    def step(self) -> int:
        return int(self.checkpoint["log"]["step"]) if self.checkpoint else 0


def with_name(config: Config, origin: str) -> Config:
    """The configuration with its run's name filled in, made from the data and the preset where none was given."""
    if config.run.name is not None:
        return config
    data = config.data.data
    subject = data.resolve().name if data else "sample-photos"
    return replace(config, run=replace(config.run, name=f"{subject}-{origin}"))


def open_run(config: Config) -> RunFolder:
    """Claim the run's folder and find what to continue from.

    Raises UserError where the folder is in use, holds a finished run or one with another configuration, or is no run.
    """
    assert config.run.name is not None
    path = config.run.runs / config.run.name
    another = "give --name NEW for another run"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "w")
    except OSError as error:
        raise UserError(f"cannot make the run's folder {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is training {path}; {another}") from None
    if not (path / CONFIG).exists():
        strangers = sorted(p.name for p in path.iterdir() if p.name != ".lock")
        if strangers:
            raise UserError(f"{path} is there already and is not a run (it holds {strangers[0]}); {another}")
        configuration.save(config, path / CONFIG)
    changed = _changes(configuration.load(path / CONFIG), config)
    if changed:
        raise UserError(f"{path} was made with another configuration ({', '.join(changed)}); {another}")
    warnings: list[str] = []
    found = checkpoint.load_newest(path, warnings)
    if found and found["finished"] and _scored_step(path) == found["log"]["step"]:
        raise UserError(f"{path} is finished after {found['log']['step']} steps, see its index.html; {another}")
    for sample in (path / "samples").glob("step_[0-9]*_[AB].png"):
        if int(sample.name.split("_")[1]) > (found["log"]["step"] if found else 0):
            sample.unlink()  # drawn after the checkpoint: it will be drawn again
    return RunFolder(path=path, checkpoint=found, warnings=warnings, lock=lock)


def _scored_step(path: Path) -> int | None:
    """The step of the final table; None where there is none, as after a kill between the last step and its table."""
    try:
        return int(json.loads((path / RESULTS).read_text())["step"])
    except (OSError, ValueError, KeyError):
        return None


def _changes(saved: Config, given: Config) -> list[str]:
    return [line for line in configuration.differences(saved, given) if line.split(":")[0] not in FREE_TO_CHANGE]
