"""Takes a run back to the newest checkpoint from before its trouble, with another seed and half the learning rate.

What decides is on the disk before anything is changed: the line of alarms.jsonl that says where the run goes back to.
Then `finish_going_back` makes the folder that of a run which was stopped after that step; a kill in between is made up
for by the next start. The seed and the rate are functions of the run's own and of the number of such lines.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.content import BestEvaluation, RankState, RunCheckpoint
from cyclegan_fast.config.options import Config
from cyclegan_fast.runs import EVALUATIONS, METRICS, RESULTS
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import remove, write_atomically
from cyclegan_fast.training.health import rule
from cyclegan_fast.training.health.alarms import Alarm, going_back, read_alarms, write_alarms
from cyclegan_fast.training.health.rule import Trouble
from cyclegan_fast.training.log import cut_off_after

MOST_ATTEMPTS = 3
"""Limits how often a run goes back before it gives up."""
SEEDS_APART = 1000
_GOOD = re.compile(r"good_(\d{8,})\.pt")


class GoingBack(Exception):
    """Ends an attempt on every rank at the same step: the run is to go back from its trouble.

    Args:
        alarms: those before this one.
    """

    def __init__(self, trouble: Trouble, alarms: Sequence[Alarm]) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble
        self.alarms = alarms


@dataclass(frozen=True)
class Attempt:
    """Says which attempt of a run it is, and what the attempts before it were like.

    alarms: those that count at the step that the run continues after, as alarms.jsonl has them.
    reports: (step, losses) of the lines of metrics.jsonl up to there.
    """

    alarms: Sequence[Alarm]
    reports: Sequence[tuple[int, dict[str, float]]]

    @property
    def number(self) -> int:
        """Return how often the run went back."""
        return len(going_back(self.alarms))

    def settings(self, config: Config) -> Config:
        """Return the settings of this attempt: those of the run but for the seed and the learning rate."""
        seed = (config.run.seed + SEEDS_APART * self.number) % 2**63
        rate = config.optimizer.learning_rate * 0.5**self.number
        return replace(
            config, run=replace(config.run, seed=seed), optimizer=replace(config.optimizer, learning_rate=rate)
        )

    def behind(self, saved: RunCheckpoint) -> int:
        """Return by how many attempts a checkpoint is older: 0 but for the one that the run just went back to."""
        return self.number - saved.get("rollbacks", 0)

    def best(self, saved: RunCheckpoint | None) -> BestEvaluation | None:
        """Return the best evaluation so far, also where it was after the step that the run went back to."""
        before = going_back(self.alarms)
        if before and (saved is None or self.behind(saved)):
            return before[-1].best
        return saved.get("best") if saved else None

    def description(self, settings: Config) -> str | None:
        """Say which attempt this is, with its `settings`; None for a run that never went back."""
        if not self.number:
            return None
        last = going_back(self.alarms)[-1]
        return (
            f"after step {last.step} the run went back to step {last.back_to} ({last.text}): attempt {self.number} of "
            f"{MOST_ATTEMPTS} with seed {settings.run.seed} and learning rate {settings.optimizer.learning_rate:.4g}"
        )


def with_fresh_randomness(own: RankState, fresh: RankState) -> RankState:
    """Return a rank's saved state with the random states of a run that begins with another seed."""
    step = own["step"].copy()
    step["pool_random"], step["penalty_random"] = fresh["step"]["pool_random"], fresh["step"]["penalty_random"]
    return {**own, "random": fresh["random"], "step": step}


# --- which checkpoints are kept for it ------------------------------------------------------------------------------


def good_name(config: Config, step: int) -> str | None:
    """Return the name under which the checkpoint of a step is kept to go back to; None where it is not.

    The step alone decides, and not when a run was stopped.
    """
    return _good_file(step) if config.run.rollback and step % steps_apart(config) == 0 else None


def _good_file(step: int) -> str:
    return f"good_{step:08d}.pt"  # as `_GOOD` reads it


def steps_apart(config: Config) -> int:
    """Return how many steps are between two such checkpoints: at least a short window and a block."""
    every, windows, reports = config.run.checkpoint_every, rule.WINDOWS, config.run.report_every
    return -(-(windows.covered(windows.short_steps, reports) + windows.length(reports)) // every) * every


def good_checkpoints(run: Path) -> dict[int, Path]:
    """Return the checkpoints that are kept to go back to by their steps, oldest first."""
    found = ((_GOOD.fullmatch(path.name), path) for path in (run / checkpoint.FOLDER).glob("good_*.pt"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def forget_older(run: Path, config: Config) -> None:
    """Remove the checkpoints that no alarm can need any more: all before the newest one that any of them can."""
    good, windows, reports = good_checkpoints(run), rule.WINDOWS, config.run.report_every
    newest = max(good, default=0)
    furthest = newest - windows.covered(windows.long_steps, reports) - windows.length(reports)
    needed = max((step for step in good if step <= furthest), default=0)
    for step, path in good.items():
        if step < needed:
            remove(path, "kept_checkpoint")


# --- going back -----------------------------------------------------------------------------------------------------


def go_back(
    run: Path, config: Config, trouble: Trouble, best: BestEvaluation | None, alarms: Sequence[Alarm]
) -> RunCheckpoint | None:
    """Make the folder that of a run which was stopped before the trouble; returns its checkpoint, None at step 0.

    Args:
        best: the best evaluation so far.
        alarms: those before this one.

    Raises UserError, and changes nothing, where the run went back as often as it may, and where a long run kept no
    checkpoint from before its trouble: it would begin anew, and lose all.
    """
    found = newest_before(run, trouble.since)
    step, path = found or (0, None)
    if len(going_back(alarms)) >= MOST_ATTEMPTS:
        kept = f"{path}, of step {step}, is from before that" if path else "nothing was saved before that"
        raise UserError(
            f"{trouble.text}, and the run went back {MOST_ATTEMPTS} times already: {kept}; train with other "
            "settings and --name NEW"
        )
    if path is None and trouble.since >= steps_apart(config):
        raise UserError(
            f"{trouble.text}, and no whole checkpoint up to step {trouble.since} is there to go back to, as --rollback "
            "would have kept from the start: go on without --rollback, or train with other settings and --name NEW"
        )
    if path and not _GOOD.fullmatch(path.name):
        write_atomically(path.with_name(_good_file(step)), path.read_bytes(), "kept_checkpoint")
    # A run that had gone on told of the same trouble before.
    before = [alarm for alarm in alarms if alarm.back_to is not None or alarm.step != trouble.step]
    write_alarms(run, [*before, Alarm.of(trouble).going_back(step, best)])
    finish_going_back(run)
    return checkpoint.load_newest(run, [])


def finish_going_back(run: Path) -> None:
    """Do what is left to do of going back, where the last alarm says so; safe to be killed in, and to be repeated."""
    alarms = read_alarms(run)
    if not alarms or not alarms[-1].unfinished:
        return
    step = alarms[-1].back_to or 0
    folder = run / checkpoint.FOLDER
    later = [path for found, path in good_checkpoints(run).items() if found > step]
    later += [path for path in checkpoint.kept_epochs(run).values() if (_step_of(path) or 0) > step]
    for path in [folder / checkpoint.INCOMING, *later]:
        remove(path, "going_back")
    if step:
        content = (folder / _good_file(step)).read_bytes()
        write_atomically(folder / checkpoint.LAST, content, "checkpoint_gone_back_to")
    else:
        remove(folder / checkpoint.LAST, "going_back")
    remove(folder / checkpoint.PREVIOUS, "going_back")
    remove(run / RESULTS, "going_back")  # else a kill before the new table would leave this one as that of the run
    for name in (METRICS, EVALUATIONS):
        cut_off_after(run / name, step)
    write_alarms(run, [*alarms[:-1], replace(alarms[-1], unfinished=False)])


def newest_before(run: Path, since: int) -> tuple[int, Path] | None:
    """Return the step and the file of the newest whole checkpoint up to the step `since`; None where there is none.

    Those that are kept for it come first; the others are for a run that kept none.
    """
    for step, path in reversed(good_checkpoints(run).items()):
        if step <= since and _step_of(path) == step:
            return step, path
    others = (run / checkpoint.FOLDER).glob("*.pt")
    found = [(step, path) for path in sorted(others) if 0 < (step := _step_of(path) or 0) <= since]
    return max(found, key=lambda one: one[0], default=None)


def _step_of(path: Path) -> int | None:
    """Return the step of a checkpoint; None where the file is damaged."""
    try:
        return checkpoint.load_run_checkpoint(path)["log"]["step"]
    except (checkpoint.DamagedCheckpoint, checkpoint.MissingCheckpoint):
        return None
