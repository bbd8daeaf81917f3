"""Collects what is known of each device: the newest comparison of every task, from all files of a folder."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.measure.limits import Limits
from bench.measure.machine import DRY_RUN
from bench.measure.records import Comparison, RecordedRun, newest, read
from bench.reporting.plots import Plot, plots_of
from cyclegan_fast.system.errors import UserError


@dataclass(frozen=True)
class Device:
    """Holds a device's newest comparison of each task with its run; never empty."""

    name: str
    entries: list[tuple[RecordedRun, Comparison]]

    @property
    def runs(self) -> list[RecordedRun]:
        """Return the runs of the comparisons, oldest first."""
        found = {id(run): run for run, _ in self.entries}
        return sorted(found.values(), key=lambda run: run.stamp.date)

    @property
    def is_gpu(self) -> bool:
        return self.runs[-1].stamp.cuda != "none"

    @property
    def comparisons(self) -> list[Comparison]:
        """Return the comparisons, smaller batches first, otherwise in the order in which they were first measured."""
        return sorted((each for _, each in self.entries), key=lambda each: each.batch)

    @property
    def plots(self) -> list[Plot]:
        return plots_of(self.name, self._limits_of("operators"), self.comparisons)

    def of(self, subject: str) -> list[Comparison]:
        return [each for each in self.comparisons if each.subject == subject]

    def _limits_of(self, subject: str) -> Limits:
        """Return the limits of the newest run that has this subject, or of the newest run."""
        having = [run for run, each in self.entries if each.subject == subject] or self.runs
        return max(having, key=lambda run: run.stamp.date).limits


def devices(folder: Path) -> list[Device]:
    """Return the devices that the files of a folder have results of: GPUs first, then by name.

    Raises UserError for a folder that is missing and for a file that is no file of results.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} to read results from")
    runs: dict[str, list[RecordedRun]] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name == "schema.json":
            continue
        try:
            for run in read(path):
                if run.stamp.device.endswith(DRY_RUN):
                    raise UserError(f"{path} is of a {DRY_RUN} and measures nothing: remove it")
                runs.setdefault(run.stamp.device, []).append(run)
        except ValueError as error:
            raise UserError(str(error)) from error
    found = [Device(name, _newest(its_runs)) for name, its_runs in runs.items()]
    return sorted((device for device in found if device.entries), key=lambda device: (not device.is_gpu, device.name))


def _newest(runs: Iterable[RecordedRun]) -> list[tuple[RecordedRun, Comparison]]:
    """Return the newest comparisons with their runs, by date, whatever the file.

    Contenders are in the order of their names, because JSON does not promise an order and equal times happen.
    """
    return [
        (run, replace(each, contenders=dict(sorted(each.contenders.items()))))
        for run, each in newest(sorted(runs, key=lambda run: run.stamp.date))
    ]
