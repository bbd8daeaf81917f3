"""Writes what people read of a run: reports of losses, sample grids, evaluations, the gallery, and the final table."""

import json
import math
import time
from collections.abc import Callable

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.content import BestEvaluation
from cyclegan_fast.checkpoint.names import kept_under
from cyclegan_fast.config.options import Config
from cyclegan_fast.evaluation.score_table import scalars, table
from cyclegan_fast.runs import RESULTS
from cyclegan_fast.system.device import describe, peak_gib
from cyclegan_fast.system.errors import UserError, printable
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.interruption import Interruption, Stopped
from cyclegan_fast.system.words import counted
from cyclegan_fast.training.callbacks.dispatch import Callbacks
from cyclegan_fast.training.gallery import write_index
from cyclegan_fast.training.health.monitor import HealthMonitor
from cyclegan_fast.training.log import RunLog
from cyclegan_fast.training.run_folder import RunFolder
from cyclegan_fast.training.samples import SampleImages, write_grids
from cyclegan_fast.training.state import TrainingState
from cyclegan_fast.training.validation import Evaluator

GALLERY_EVERY_S = 10.0


class Records:
    """Writes the records of a run into its folder, on the first rank; the others only take part where they must.

    Args:
        samples: the images that every grid shows.
        evaluator: measures the generators; None on all ranks but the first.
        health: watches what is reported.
        tell: prints a line beside the progress bar.
        callbacks: are told what was written.
    """

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        state: TrainingState,
        log: RunLog,
        samples: SampleImages,
        evaluator: Evaluator | None,
        health: HealthMonitor,
        tell: Callable[[str], None],
        callbacks: Callbacks,
    ) -> None:
        self.config, self.run, self.state, self.log = config, run, state, log
        self.samples, self.evaluator, self.health = samples, evaluator, health
        self.tell, self.callbacks = tell, callbacks
        self.ranks, self.device = state.ranks, state.device
        self._gallery_written_s = -math.inf

    @property
    def best(self) -> BestEvaluation | None:
        """Return the best evaluation so far, on the first rank; None on the others, and where there is none."""
        return self.evaluator.best if self.evaluator else None

    def report(self, epoch: int, learning_rate: float) -> None:
        """Write the mean losses since the last report; raises NonFiniteLoss where one is not finite any more.

        Raises GoingBack where they show that the training is in trouble, and the run is to go back then.
        """
        self.state.step.check_loss_scales()
        report = self.log.report(
            epoch=epoch,
            learning_rate=learning_rate,
            batch_size=self.state.shares.batch,
            peak_gib=peak_gib(self.device),
        )
        if report:
            with self.log.paused():
                self.callbacks.on_report(report)
            self.health.see(report.step, report.losses)
        self.refresh_gallery()

    def draw_samples(self) -> None:
        """Write the sample grids of this step."""
        if not self.ranks.is_first:
            return
        self.run.raise_if_gone()
        with self.log.paused():
            pictures = write_grids(self.run.path, self.log.step, self.samples.grids(self.state.model))
            self.callbacks.on_samples(self.log.step, pictures)
        self.refresh_gallery(at_once=True)

    def evaluate(self, interruption: Interruption) -> bool:
        """Measure the generators, once for all ranks; returns whether they are the best so far."""
        return self.ranks.any(self._evaluate(interruption) if self.ranks.is_first else False)

    def _evaluate(self, interruption: Interruption) -> bool:
        assert self.evaluator is not None  # the first rank's
        if self.log.is_evaluated:
            return False
        step = self.log.step
        with self.log.paused():
            try:
                with interruption.at_once():
                    found = self.evaluator.evaluate(self.state.model, step)
            except Stopped:  # the next start makes up for it
                return False
            except UserError as error:  # the training itself lacks nothing, and goes on
                self.tell(f"note: step {step} was not evaluated: {error}")
                return False
            is_best = self.evaluator.is_best(step, found)
            self.log.evaluated(scalars(found.scores), is_best)
            self.callbacks.on_evaluation(step, scalars(found.scores))
        self.refresh_gallery(at_once=True)
        return is_best

    def say_kept(self, name: str) -> None:
        """Say under which name the commands take a checkpoint that was just kept, if they take it under one."""
        path = self.run.path
        if which := kept_under(path / checkpoint.FOLDER / name):
            self.tell(printable(f"kept: --checkpoint {path}@{which}"))

    def ends_by_patience(self) -> bool:
        """Tell, alike on all ranks, whether the best score has stood for as long as it may; says so."""
        if not self.config.evaluation.patience:
            return False
        ended = self.evaluator.why_it_ends(self.log.evaluated_steps()) if self.evaluator else None
        if ended:
            self.tell(f"the run ends at step {self.log.step}: {ended}")
        return self.ranks.any(ended is not None)

    def refresh_gallery(self, *, at_once: bool = False) -> None:
        """Rewrite index.html, at most every few seconds unless something new must be seen `at_once`."""
        is_due = at_once or time.monotonic() - self._gallery_written_s > GALLERY_EVERY_S
        if self.ranks.is_first and is_due:
            self.run.raise_if_gone()
            with self.log.paused():
                write_index(self.run.path)
            self._gallery_written_s = time.monotonic()

    def conclude(self, interruption: Interruption) -> str:
        """Score the run, write results.json and the gallery, and return the table; raises Stopped."""
        training_s, peak = self.log.elapsed_s, peak_gib(self.device)
        assert self.evaluator is not None  # the first rank's
        best = self.evaluator.best
        with interruption.at_once():
            found = self.evaluator.evaluate(self.state.model, self.log.step)
        if not self.log.is_evaluated:  # else they were told of it
            self.callbacks.on_evaluation(self.log.step, scalars(found.scores))
        notes = [*found.notes, *self.health.notes()]
        if best:
            value = f"{best['name']} was {best['value']:.4g}, at step {best['step']}"
            notes.append(f"the best {value}; checkpoints/{checkpoint.BEST}, RUN@best, is the checkpoint of that step")
        results = {
            "step": self.log.step,
            "total_steps": self.log.total_steps,
            "images": sum(found.counts.values()),
            "training_s": round(training_s, 1),
            "peak_gib": round(peak, 2),
            "device": describe(self.device),
            "rows": [score.to_dict() for score in found.scores],
            "notes": notes,
        }
        # The results last: a run that has them is finished.
        self.draw_samples()
        write_atomically(self.run.path / RESULTS, json.dumps(results, indent=2).encode(), "results")
        self.refresh_gallery(at_once=True)
        took = f"took {training_s:.0f} s and {peak:.2f} GiB of memory at most"
        lines = [f"{counted(self.log.step, 'step')} {took}"]
        lines += ["means over the test images:", table(found.scores)] if found.scores else []
        return "\n".join([*lines, *(f"note: {note}" for note in notes)])
