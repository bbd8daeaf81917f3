"""Keeps the alarms of a run in alarms.jsonl, one a line: what was wrong, and where the run went back to, if it did.

The file is written whole each time. It is the record of how often a run went back: its attempt is the number of lines
with `back_to`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cyclegan_fast.checkpoint.content import BestEvaluation
from cyclegan_fast.runs import ALARMS
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import remove, write_atomically
from cyclegan_fast.training.health.rule import Trouble


@dataclass(frozen=True)
class Alarm:
    """Holds a line of alarms.jsonl.

    step: the step after which it was raised.
    kind: the kind of trouble.
    text: what was wrong, for people.
    back_to: the step that the run went back to; None where it went on.
    best: the best evaluation at that time, where the run went back: checkpoints/best.pt holds it.
    unfinished: whether the checkpoints are not yet those of the step that it goes back to.
    """

    step: int
    kind: str
    text: str
    back_to: int | None = None
    best: BestEvaluation | None = None
    unfinished: bool = False

    @staticmethod
    def of(trouble: Trouble) -> "Alarm":
        """Return the alarm that tells of trouble, in a run that goes on."""
        return Alarm(trouble.step, trouble.kind, trouble.text)

    def going_back(self, step: int, best: BestEvaluation | None) -> "Alarm":
        """Return the alarm of a run that is about to go back to a step."""
        return replace(self, back_to=step, best=best, unfinished=True)


def read_alarms(run: Path) -> list[Alarm]:
    """Return the alarms of a run, oldest first; raises UserError where the file holds something else."""
    path = run / ALARMS
    try:
        return [Alarm(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): it says how often the run went back; bring it back") from error


def write_alarms(run: Path, alarms: Sequence[Alarm]) -> None:
    """Write the alarms of a run, all of them; without any, there is no file."""
    if alarms:
        lines = "".join(json.dumps(asdict(alarm)) + "\n" for alarm in alarms)
        write_atomically(run / ALARMS, lines.encode(), "alarms")
    else:
        remove(run / ALARMS, "alarms")


def going_back(alarms: Sequence[Alarm]) -> list[Alarm]:
    """Return the alarms after which the run went back."""
    return [alarm for alarm in alarms if alarm.back_to is not None]


def up_to(alarms: Sequence[Alarm], step: int) -> list[Alarm]:
    """Return the alarms of a run that continues after a step: those that come later will be raised again."""
    settled = max((place for place, alarm in enumerate(alarms, 1) if alarm.back_to is not None), default=0)
    return [*alarms[:settled], *(alarm for alarm in alarms[settled:] if alarm.step <= step)]
