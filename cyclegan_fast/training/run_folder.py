"""Opens a run's folder: one process claims it, continues where it was interrupted, and never overwrites it."""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Self

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.content import RunCheckpoint
from cyclegan_fast.checkpoint.hub import is_hub_name
from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config
from cyclegan_fast.config.run_options import DISPLAY_OPTIONS
from cyclegan_fast.runs import CONFIG, METRICS, RESULTS, TRACKED
from cyclegan_fast.system.distributed import ALONE, Ranks
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.fault_points import fault_point
from cyclegan_fast.system.file_locks import is_file_at, locked_file
from cyclegan_fast.system.files import LONGEST_SHOWN, make_folder, remove
from cyclegan_fast.system.words import counted
from cyclegan_fast.training.extension import ends_alike, ends_no_earlier, with_end_of
from cyclegan_fast.training.gallery import write_index
from cyclegan_fast.training.health.alarms import going_back, read_alarms
from cyclegan_fast.training.health.rollback import finish_going_back
from cyclegan_fast.training.history.resumable import check_resumable
from cyclegan_fast.training.history.shares import RankShares

_LOCK = ".lock"
ANOTHER = "give --name NEW for another run"
UNSAVED = frozenset({CONFIG, METRICS, TRACKED, _LOCK, "tensorboard", "wandb", "samples", "index.html"})
"""The names that a run's folder may hold while nothing in it is worth keeping."""

# Fields that change no file of a run, and its results by rounding at the most.
FREE_TO_CHANGE = (
    "name",
    "runs",
    "device",
    "threads",
    "workers",
    "impl",
    "checkpoint_blocks",
    "accumulate",
    "cuda_graph",
    "streams",
    "paired",
    "track",
    "profile",
    "extend_from_here",
    "rollback",
    "data_may_change",
    "cache_gib",
    "cache_dir",
    *DISPLAY_OPTIONS,
)


@dataclass(frozen=True)
class RunFolder:
    """Holds an open run until the context ends.

    path: the run's folder.
    checkpoint: the state to continue from; None for a new run.
    warnings: what the user should know of the folder, such as checkpoints that were passed over.
    lock: the file whose lock keeps other processes out; only the first rank of a run has it.
    """

    path: Path
    checkpoint: RunCheckpoint | None
    warnings: list[str]
    lock: IO[bytes] | None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.lock:
            self._discard_if_nothing_is_saved()
        self.close()

    def raise_if_gone(self, saved_step: int | None = None) -> None:
        """Raise GoneRun where the folder of a run that has begun was removed, or is another's; the first rank can tell.

        Its files would otherwise go on in a new folder, without those from before.

        Args:
            saved_step: the step of the run's checkpoint, which must be there too; None where there is none yet.
        """
        if self.lock is None:
            return
        begins_anew = "nothing of it is kept; the same command begins it anew"
        if (self.path / _LOCK).exists() and not is_file_at(self.path / _LOCK, self.lock):
            raise GoneRun(f"{self.path} was removed while it was trained, and another process has made it again")
        if not self.path.is_dir():
            raise GoneRun(f"{self.path} was removed or moved while it was trained: at its place {begins_anew}")
        has_checkpoint = checkpoint.exists(self.path)
        if not (self.path / CONFIG).exists():
            kept = f"its checkpoints are: bring {CONFIG} back" if has_checkpoint else begins_anew
            raise GoneRun(f"{self.path / CONFIG} was removed while the run was trained: {kept}")
        if saved_step and not has_checkpoint:
            raise GoneRun(
                f"{self.path / checkpoint.FOLDER} was removed or emptied while the run was trained: nothing is kept; "
                f"bring it back, or {ANOTHER}"
            )

    def close(self) -> None:
        """Let other processes have the folder."""
        if self.lock:
            self.lock.close()

    def _discard_if_nothing_is_saved(self) -> None:
        """Remove the folder of a run that ended before it reported or saved: the next command may be another one."""
        if not self.path.is_dir():
            return  # somebody else removed it
        names = {path.name for path in self.path.iterdir()}
        if names <= UNSAVED and not _reported_step(self.path):
            with suppress(OSError):  # the user must hear what ended the run; the same command takes what is left
                fault_point("run_folder", "before_removal")
                shutil.rmtree(self.path)

    @property
    def step(self) -> int:
        """Return the step of the checkpoint; 0 for a new run."""
        return int(self.checkpoint["log"]["step"]) if self.checkpoint else 0

    def begin(self, config: Config) -> None:
        """Write the configuration of a new run, and remove samples that were drawn after the checkpoint.

        Where the data of a run moved, or its end did, the new place or end is written.
        """
        path = self.path / CONFIG
        if not path.exists():
            # Consent is given on the command line: a run that begins with this file does not inherit it.
            run, data = replace(config.run, extend_from_here=False), replace(config.data, data_may_change=False)
            values.save_config(replace(config, run=run, data=data), path)
        elif (now := _moved_to(saved := values.load_config(path), config)) != saved:
            values.save_config(now, path)
        for sample in (self.path / "samples").glob("step_[0-9]*_[AB].png"):
            if int(sample.name.split("_")[1]) > self.step:
                remove(sample, "samples")


class GoneRun(UserError):
    """Says that somebody removed a run's folder, or what it continues from, while it was trained."""


def completed(config: Config, origin: str) -> Config:
    """Return the configuration with the whole paths of data and first weights, and a name.

    Where it has none, the name is made from data and `origin`.
    """
    data = config.data.data
    if data is not None and not config.data.is_earth:
        data = data.resolve()
    source = config.networks.init_from
    if source and not is_hub_name(source):
        source = source.resolve()
    images = data.name if data else "sample-photos"
    name = config.run.name or plain_name(images if images == origin else f"{images}-{origin}")
    return replace(
        config,
        data=replace(config.data, data=data),
        networks=replace(config.networks, init_from=source),
        run=replace(config.run, name=name),
    )


def plain_name(text: str) -> str:
    """Return `text` as a folder's name that every terminal shows; other characters become their bytes, as "%0A"."""
    shown = "".join(
        character if character.isprintable() and character not in "/\\" else _percent(os.fsencode(character))
        for character in text
    )
    if len(shown.encode()) > LONGEST_SHOWN:
        shown = f"{shown[:30]}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:8]}"
    return shown


def _percent(content: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in content)


class FinishedRun(UserError):
    """Says that nothing is left to train in a run, and where it is; the training's command ends well with that."""


def open_shared_run(config: Config, ranks: Ranks) -> RunFolder:
    """Open the run on the first rank, as `open_run` does, and give its checkpoint to the others.

    Raises FinishedRun and UserError on all of them, also where so many ranks cannot share the run's batch equally.
    """
    opened: list[RunFolder] = []

    def check_shares(saved: RunCheckpoint | None) -> None:
        problem = RankShares.of(config, saved, ranks.count).problem(config, ranks.count)
        if problem:
            other = ANOTHER if saved else "give another --batch-size"
            raise UserError(f"{config.run.name}: {problem}, or {other}")

    def open_first() -> tuple[Path, RunCheckpoint | None] | str:
        check_shares(None)
        try:
            run = open_run(config)
        except FinishedRun as finished:
            return str(finished)
        opened.append(run)
        try:
            check_shares(run.checkpoint)
        except UserError:
            run.close()
            raise
        return run.path, run.checkpoint

    found = ranks.from_first(open_first)
    if isinstance(found, str):
        raise FinishedRun(found)
    path, checkpoint = found
    return opened[0] if opened else RunFolder(path, checkpoint, [], None)


def open_run(config: Config) -> RunFolder:
    """Claim the run's folder and find what to continue from; writes nothing but a lock.

    Raises FinishedRun where no step is left, and UserError where the folder is in use, holds a run with another
    configuration, or is no run.
    """
    assert config.run.name is not None
    path = config.run.runs / config.run.name
    if path.exists() and not (path / CONFIG).exists():
        strangers = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
        if strangers:
            raise UserError(f"{path} is there already and is not a run (it holds {strangers[0]}); {ANOTHER}")
    make_folder(path, "run_folder", "before_making")
    warnings: list[str] = []
    lock = _claim(path)
    try:
        finish_going_back(path)
        return RunFolder(path, _checkpoint_to_continue(path, config, warnings), warnings, lock)
    except BaseException:
        # Not left to the garbage collector: errors and their tracebacks can hold one another, and the lock.
        lock.close()
        raise


def _claim(path: Path) -> IO[bytes]:
    return locked_file(path / _LOCK, f"another process is training {path}; {ANOTHER}", point="run_folder")


def _checkpoint_to_continue(path: Path, config: Config, warnings: list[str]) -> RunCheckpoint | None:
    saved = values.load_config(path / CONFIG) if (path / CONFIG).exists() else config
    changed, has_moved = ", ".join(_changes(saved, config)), saved.data.data != config.data.data
    allowed = _moved_to(saved, config) if checkpoint.exists(path) else with_end_of(saved, config)
    if in_the_way := ", ".join(_changes(allowed, config)):
        raise UserError(f"{path} was made with another configuration ({in_the_way}); {ANOTHER}")
    if has_moved:  # its checkpoint tells whether they are the same images
        warnings.append(f"the data moved from {saved.data.data} to {config.data.data}")
    went_back = len(going_back(read_alarms(path)))
    check = partial(check_resumable, of_run=saved, went_back=went_back)
    newest = checkpoint.find_newest(path, warnings, check)
    if newest and newest[0].name == checkpoint.INCOMING:
        checkpoint.finish_saving(path)  # a start before this one ended between writing and renaming it
    found = newest[1] if newest else None
    if not ends_no_earlier(config, saved):
        done = counted(found["log"]["step"] if found else 0, "step")
        raise UserError(
            f"{path} can become longer, not shorter ({changed}), and has taken {done}: give at least what it had, or "
            f"{ANOTHER}"
        )
    if found is None and _reported_step(path) > config.run.checkpoint_every:
        raise UserError(
            f"{path} has metrics up to step {_reported_step(path)} and no checkpoint: bring checkpoints/ back, "
            f"or {ANOTHER}"
        )
    # Where the end of the run changed, how many steps that makes is known when its images are.
    if found and not changed and ends_alike(config, found) and not (config.run.rollback and _is_alarmed(path)):
        raise_if_finished(path, found)
    return found


def raise_if_finished(path: Path, saved: RunCheckpoint, ranks: Ranks = ALONE) -> None:
    """Raise FinishedRun, on every rank, where a run that no step is left of is scored at the step of its checkpoint."""

    def is_finished() -> bool:
        if not saved["finished"] or _scored_step(path) != saved["log"]["step"]:
            return False
        write_index(path)  # a kill may have come between the scores and their page
        return True

    if ranks.from_first(is_finished):
        raise FinishedRun(
            f"{path} is finished after {counted(saved['log']['step'], 'step')}, see its index.html; more --epochs or "
            f"--max-steps go on with it, or {ANOTHER}"
        )


def _scored_step(path: Path) -> int | None:
    """Return the step of the final table; None without one, as after a kill between the last step and its table."""
    try:
        return int(json.loads((path / RESULTS).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alarmed(path: Path) -> bool:
    """Tell whether a run went on after its last alarm: it may be in trouble, which its losses tell later."""
    return any(alarm.back_to is None for alarm in read_alarms(path)[-1:])


def _reported_step(path: Path) -> int:
    """Return the step of the last whole line of metrics; 0 where there is none."""
    try:
        *_, last = (line for line in (path / METRICS).read_text().splitlines() if line.endswith("}"))
        return int(json.loads(last)["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _moved_to(saved: Config, given: Config) -> Config:
    """Return a run's configuration with what may change in it as `given`: the place of its data, and its end."""
    place = given.data.data if saved.data.data and given.data.data else saved.data.data
    return with_end_of(replace(saved, data=replace(saved.data, data=place)), given)


def _changes(saved: Config, given: Config) -> list[str]:
    return [line for line in values.differences(saved, given) if line.split(":")[0] not in FREE_TO_CHANGE]
