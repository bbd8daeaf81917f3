"""Watches the reports of a training: tells of trouble, writes it down, and asks to go back where that is wanted."""

from collections.abc import Callable, Mapping
from pathlib import Path

from cyclegan_fast.checkpoint.content import RunCheckpoint
from cyclegan_fast.config.options import Config
from cyclegan_fast.runs import METRICS
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.training.health.alarms import Alarm, read_alarms, up_to, write_alarms
from cyclegan_fast.training.health.rollback import Attempt, GoingBack, forget_older, good_name
from cyclegan_fast.training.health.rule import HealthRule, Trouble, TroubleKind
from cyclegan_fast.training.log import lines_up_to

TROUBLE_ADVICE: dict[TroubleKind, str] = {
    "exploded": "a smaller --learning-rate or another --seed helps",
    "lost": "a smaller --learning-rate or another --seed helps",
    "won": "its generators learn nothing from it any more: look at the samples",
    "not finite": "a smaller --learning-rate or another --seed helps",
}


def read_attempt(run: Path, saved: RunCheckpoint | None, ranks: Ranks) -> Attempt:
    """Return the attempt that continues from a checkpoint of the run, alike on all ranks; None is step 0."""
    step = int(saved["log"]["step"]) if saved else 0

    def read() -> Attempt:
        lines = lines_up_to(run / METRICS, step)
        reports = [(entry["step"], entry["losses"]) for _, entry in lines if "losses" in entry]
        return Attempt(up_to(read_alarms(run), step), reports)

    return ranks.from_first(read)


class HealthMonitor:
    """Follows a run on every rank: all see the same losses, and so decide alike.

    Args:
        config: the run's settings.
        run: the run's folder, in which the first rank writes alarms.
        attempt: what was before the step that the run continues after.
        is_first: whether this rank writes and tells.
        tell: prints a line beside the progress bar.
    """

    def __init__(
        self, config: Config, run: Path, attempt: Attempt, is_first: bool, tell: Callable[[str], None]
    ) -> None:
        self.config, self.run, self.is_first, self.tell = config, run, is_first, tell
        self.alarms: list[Alarm] = list(attempt.alarms)
        self.attempt = attempt.number
        self.rule = HealthRule(config)
        for step, losses in attempt.reports:
            self.rule.see(step, losses)
        if is_first:
            write_alarms(run, self.alarms)

    @property
    def goes_back(self) -> bool:
        """Tell whether trouble stands, and --rollback was given: `begin` then raises GoingBack."""
        return self.config.run.rollback and self.rule.standing is not None

    def see(self, step: int, losses: Mapping[str, float]) -> None:
        """Take in a report; raises GoingBack where it begins trouble and --rollback was given."""
        trouble = self.rule.see(step, losses)
        if trouble is None:
            return
        self.go_back_from(trouble)
        self.alarms.append(Alarm.of(trouble))
        if self.is_first:
            write_alarms(self.run, self.alarms)
            self.tell(f"warning: {trouble.text}: {TROUBLE_ADVICE[trouble.kind]}; {way_on(trouble)}")

    def begin(self) -> None:
        """Raise GoingBack where trouble stands at the step that the run continues after, and --rollback was given."""
        if self.rule.standing:
            self.go_back_from(self.rule.standing)
        self.saved()  # an earlier start may have been ended after it saved, and before it removed

    def not_finite(self, step: int, text: str) -> None:
        """Raise GoingBack for losses or weights that are not finite any more, where --rollback was given."""
        # Counted back from the last report, and not from when it was seen, which a stop may bring forward.
        windows = self.rule.windows
        window = windows.covered(windows.short_steps, self.config.run.report_every)
        since = max(0, self.rule.last_step - window)
        self.go_back_from(Trouble("not finite", step, since, text))

    def go_back_from(self, trouble: Trouble) -> None:
        """Raise GoingBack where --rollback was given."""
        if self.config.run.rollback:
            raise GoingBack(trouble, self.alarms)

    def names_to_keep(self, step: int) -> list[str]:
        """Return the name to keep the checkpoint of a step under to go back to, if it is one of those."""
        name = good_name(self.config, step)
        return [name] if name else []

    def saved(self) -> None:
        """Remove the checkpoints that are not needed to go back to any more, after one was saved."""
        if self.is_first and self.config.run.rollback:
            forget_older(self.run, self.config)

    def notes(self) -> list[str]:
        """Return what happened, for the end of a run."""
        return [in_one_line(alarm) for alarm in self.alarms]


def way_on(trouble: Trouble) -> str:
    """Say how to go back."""
    return (
        f"the same command with --rollback goes back to the newest checkpoint up to step {trouble.since}, with another "
        "seed and half the learning rate"
    )


def in_one_line(alarm: Alarm) -> str:
    """Say what an alarm was, and what became of it."""
    went = f"; the run went back to step {alarm.back_to}" if alarm.back_to is not None else ""
    return f"step {alarm.step}: {alarm.text}{went}"
