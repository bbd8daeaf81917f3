"""Makes each format in a process of its own, so that a converter that crashes, or is killed, ends nothing else."""

import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cyclegan_fast.system.errors import printable
from export.formats.making import FormatJob, make_and_measure
from export.formats.table import FormatRow

PRELOADED = ["torch", "export.formats.making"]
"""What the processes have in common is imported once, by the server that they are copies of."""


def run_job(job: FormatJob, tick: Callable[[], object] = lambda: None) -> FormatRow:
    """Return the row of a job that a process of its own carried out, or that says how that process ended.

    Where it failed, what its converter printed is kept beside the files, and the row names that log. An exception here,
    such as that of Ctrl-C, ends the process. `tick` is called once a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    result = job.log.with_suffix(".row")
    # Pickled here: PyTorch's own way hands tensors over in shared memory, which containers have little of.
    process = context.Process(target=_work, args=(pickle.dumps(job), job.log, result), name=job.name)
    process.start()
    try:
        while process.is_alive():
            process.join(1.0)
            tick()
    finally:
        if process.is_alive():
            process.kill()
            process.join()
        shutil.rmtree(job.staging, ignore_errors=True)  # a process that was killed leaves it
    if process.exitcode == 0 and result.exists():
        row: FormatRow = pickle.loads(result.read_bytes())
    else:
        row = replace(job.row(), failure=f"could not be made: {_ending(process.exitcode)}")
    return _with_log(job, row)


def _work(pickled: bytes, log: Path, result: Path) -> None:
    """Carry out a job, with all that is printed in a log, and write its row to a file."""
    with open(log, "wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    row = make_and_measure(pickle.loads(pickled))
    result.write_bytes(pickle.dumps(row))


def _ending(status: int | None) -> str:
    """Return how a process ended that wrote no row."""
    if status is None or status >= 0:
        return f"its process ended with status {status}"
    name = signal.Signals(-status).name
    return f"its process ended by {name}{', for want of memory perhaps' if name == 'SIGKILL' else ''}"


def _has_words(log: Path) -> bool:
    return log.exists() and log.stat().st_size > 0


def _with_log(job: FormatJob, row: FormatRow) -> FormatRow:
    """Keep the log of a job that failed in more words than its row has, and name it there; remove that of another."""
    kept = job.out / job.log.name
    if row.failure is None or not row.failure.startswith(("could not", "was made")) or not _has_words(job.log):
        kept.unlink(missing_ok=True)
        return row
    kept.write_bytes(job.log.read_bytes())
    return replace(row, failure=f"{printable(row.failure)}; {kept.name} has the converter's words")
