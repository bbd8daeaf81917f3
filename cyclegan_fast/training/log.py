"""Reports a run's progress to the console and to metrics.jsonl; trackers/ brings it to TensorBoard and others."""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast.checkpoint.content import LogState
from cyclegan_fast.runs import EVALUATIONS, METRICS
from cyclegan_fast.system.distributed import ALONE, Ranks
from cyclegan_fast.system.errors import NonFiniteLoss
from cyclegan_fast.system.files import AppendedLines, write_atomically
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.words import counted
from cyclegan_fast.training.callbacks.callback import Report
from cyclegan_fast.training.loss_sums import LossSums

PERSISTENT = 20
"""A run that scales its losses ends after so many steps in a row whose loss is not finite: a scaler that starts at 2^16
comes down to 1 in 16 steps, and whatever overflows then overflows by itself."""


class RunLog:
    """Gathers losses between reports and writes each report once, also across a resume.

    Args:
        run: the run's folder.
        total_steps: the steps of the whole run, for the progress bar.
        state: the `state_dict()` in the run's checkpoint, None for a new run; what was written after it is cut off.
        scaled: whether a loss scaler leaves out updates that overflow, so that a loss may be infinite now and then.
        ranks: the processes whose losses are averaged; the first one writes.
    """

    def __init__(
        self, run: Path, total_steps: int, state: LogState | None, *, scaled: bool = False, ranks: Ranks = ALONE
    ) -> None:
        state = state or {"step": 0, "elapsed_s": 0.0, "losses": None, "count": 0, "since_s": 0.0}
        self.run = run
        self.total_steps = total_steps
        self.scaled = scaled
        self.ranks = ranks
        self.step: int = state["step"]
        self._losses = LossSums(**state["losses"]) if state["losses"] else None
        self._count: int = state["count"]
        self._elapsed_before_s: float = state["elapsed_s"]
        self._since_s: float = state["since_s"]  # elapsed time at the last report
        self._started = time.perf_counter()
        self._paused_s = 0.0
        if ranks.is_first:
            cut_off_after(run / METRICS, self.step)
            cut_off_after(run / EVALUATIONS, self.step)
        self._lines = AppendedLines(run / METRICS if ranks.is_first else Path(os.devnull), "metrics")
        self._bar = progress_bar(
            desc="training",
            unit=" steps",
            total=total_steps,
            initial=self.step,
            smoothing=0.05,
            disable=not ranks.is_first,
        )

    @property
    def elapsed_s(self) -> float:
        """Return the training time so far, without samples, checkpoints, and the time between a stop and a resume."""
        return self._elapsed_before_s + time.perf_counter() - self._started - self._paused_s

    @property
    def is_evaluated(self) -> bool:
        """Tell whether an evaluation after this step is written already."""
        return self.step in self.evaluated_steps()[-1:]

    def evaluated_steps(self) -> list[int]:
        """Return the steps after which there are evaluations, in order."""
        path = self.run / EVALUATIONS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [int(json.loads(line)["step"]) for line in lines]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of the training time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._paused_s += time.perf_counter() - began

    def add(self, losses: dict[str, Tensor]) -> None:
        """Count one step and its losses. Sums stay on the device: nothing waits for it before the next report."""
        values = torch.stack(list(losses.values()))
        if self._losses is None or self._losses.sums.device != values.device:
            self._losses = LossSums.of(self._losses, list(losses), values.device)
        self._losses.add(values)
        self._count += 1
        self.step += 1
        self._bar.update()

    def check_finite(self) -> None:
        """Raise NonFiniteLoss where a loss since the last report was not finite, or is not for many steps now.

        With ranks, all of them must call it; sums and counts are then over all of them.
        """
        if self._losses is None:
            return
        self._losses = self._losses.over(self.ranks)
        for name, lost, in_a_row in zip(
            self._losses.names, self._losses.lost.tolist(), self._losses.in_a_row.tolist(), strict=True
        ):
            if self.scaled and in_a_row >= PERSISTENT:
                raise NonFiniteLoss(f"loss {name} is not finite any more, for {in_a_row} steps up to {self.step}")
            if not self.scaled and lost:
                raise NonFiniteLoss(
                    f"loss {name} became infinite or NaN within the {counted(self._count, 'step')} up to {self.step}"
                )

    def report(self, *, epoch: int, learning_rate: float, batch_size: int, peak_gib: float) -> Report | None:
        """Write the mean of every loss since the last report; raises NonFiniteLoss instead of writing such a line.

        Returns what was written, whose losses all ranks have alike. Where a scaler left out every step since then, the
        next report is due for them: then nothing is written, and None returned.
        """
        self.check_finite()
        assert self._losses is not None
        losses = self._losses.means()
        if not all(math.isfinite(loss) for loss in losses.values()):
            return None
        elapsed_s = self.elapsed_s
        step_s = (elapsed_s - self._since_s) / self._count
        report = Report(
            step=self.step,
            total_steps=self.total_steps,
            epoch=epoch,
            elapsed_s=round(elapsed_s, 2),
            step_ms=round(step_s * 1e3, 2),
            images_per_s=round(batch_size / step_s, 3),
            learning_rate=learning_rate,
            peak_gib=round(peak_gib, 3),
            losses=losses,
        )
        self._lines.append(json.dumps(asdict(report)))
        self._bar.set_postfix_str(f"epoch {epoch}, losses: {in_brief(losses)}", refresh=False)
        self._losses.restart()
        self._count, self._since_s = 0, elapsed_s
        return report

    def evaluated(self, values: dict[str, float], is_best: bool) -> None:
        """Write the values of an evaluation after this step, and whether no earlier one was better."""
        with closing(AppendedLines(self.run / EVALUATIONS, "evaluations")) as lines:
            lines.append(json.dumps({"step": self.step, "best": is_best, "values": values}))
            lines.sync()

    def sync(self) -> None:
        """Bring every line to the disk, before the checkpoint that counts on them."""
        self._lines.sync()

    def state_dict(self) -> LogState:
        """Return what a checkpoint keeps: the step, the training time, and the losses since the last report."""
        return {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "losses": self._losses.state_dict() if self._losses else None,
            "count": self._count,
            "since_s": self._since_s,
        }

    def close(self) -> None:
        """Close the files and the progress bar."""
        self._bar.close()
        self._lines.close()


def in_brief(losses: dict[str, float]) -> str:
    """Return the adversarial losses and the first other kind: "G_A 0.31, G_B 0.40, D_A 0.22, ..., cycle_B 1.87"."""
    kinds: dict[str, list[str]] = {"G": [], "D": []}
    for name, value in losses.items():
        kinds.setdefault(name.partition("_")[0], []).append(f"{name} {value:.2f}")
    return ", ".join(value for values in list(kinds.values())[:3] for value in values)


def cut_off_after(path: Path, step: int) -> None:
    """Keep the whole lines of a metrics file up to `step`: what came after the checkpoint will be written again."""
    if path.exists():
        write_atomically(path, "".join(f"{line}\n" for line, _ in lines_up_to(path, step)).encode(), "cut_lines")


def lines_up_to(path: Path, step: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the whole lines of a metrics file up to `step`, each with what it holds; none where there is no file."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            if entry["step"] > step:
                return
        except (ValueError, TypeError, KeyError):
            return  # the run was killed while it wrote this line
        yield line, entry
