"""Runs the training loop (Zhu et al. 2017, section 4): batches, updates, learning rates, and what is due after a step.

`step.py` computes an update, `records.py` writes what people read, `state.py` saves checkpoints; `session.py` opens
them all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.config.options import Config
from cyclegan_fast.data.training_images import TrainingImages
from cyclegan_fast.system.interruption import Interruption
from cyclegan_fast.training.callbacks.dispatch import Callbacks
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.log import RunLog
from cyclegan_fast.training.records import Records
from cyclegan_fast.training.state import TrainingState
from cyclegan_fast.training.step_profile import StepProfile


@dataclass
class Training:
    """Trains the networks of a run from its newest checkpoint to its last step, on one of its ranks."""

    config: Config
    images: TrainingImages
    state: TrainingState
    engine: TrainingEngine
    log: RunLog
    records: Records
    profile: StepProfile
    callbacks: Callbacks
    total_steps: int
    prepared: str | None
    """the digest of what the method prepared before training"""
    saved_step: int | None
    """the step of the newest checkpoint; None where there is none yet"""
    count_steps: Callable[[int], None] = lambda steps: None
    """called with the number of steps that earlier starts did, then with 1 after each step"""

    def train(self, interruption: Interruption) -> bool:
        """Run the steps that are left; returns False where it was asked to stop. The last state is saved either way."""
        images, log, state, ranks = self.images, self.log, self.state, self.state.ranks
        self._begin(interruption)
        stopping = ranks.any(interruption.requested or self.callbacks.wants_stop)
        while log.step < self.total_steps and not stopping:
            epoch, first_step = state.epochs.at(log.step)
            learning_rate = state.schedule.rate(epoch + 1)
            state.step.set_learning_rate(learning_rate)
            for batch in self.profile.waiting_for(images.epoch(epoch + 1, first_step)):
                losses = self.engine(batch)  # updates generators and discriminators once
                log.add(losses)
                state.schedule.hear(losses)
                if state.epochs.at(log.step)[1] == 0:
                    state.schedule.end_epoch(ranks)
                with self.profile.phase("report"):
                    self.keep_records(epoch + 1, learning_rate, interruption)
                self.profile.end_step()
                # Ranks end after the same step, whichever of them was told.
                stopping = ranks.any(interruption.requested or self.callbacks.wants_stop)
                if stopping or log.step == self.total_steps:
                    break
        if self.saved_step != log.step:
            self.save()
        self.profile.finish()
        return not stopping

    def _begin(self, interruption: Interruption) -> None:
        """Draw the first samples of a new run; of a run that was stopped, make up for its last evaluation."""
        self.count_steps(self.log.step)
        self.records.health.begin()
        if self.log.step == 0:
            self.records.draw_samples()
            return
        is_best = self.is_evaluation_due(self.log.step) and self.records.evaluate(interruption)
        is_ended = self.end_where_patience_does()
        if is_best or is_ended:
            self.save([checkpoint.BEST] if is_best else [])

    def keep_records(self, epoch: int, learning_rate: float, interruption: Interruption) -> None:
        """Report, draw samples, evaluate, save: whatever is due after this step, which had this learning rate."""
        options, step = self.config.run, self.log.step
        if step % options.report_every == 0:
            self.records.report(epoch, learning_rate)
        if step % options.sample_every == 0:
            self.records.draw_samples()
        names = self.names_to_keep(step)
        if self.is_evaluation_due(step):
            if self.records.evaluate(interruption):
                names.append(checkpoint.BEST)
            self.end_where_patience_does()
        if step % options.checkpoint_every == 0 or names:
            self.save(names)
        if not self.state.epochs.at(step)[1]:
            with self.log.paused():
                self.callbacks.on_epoch_end(epoch)
        self.count_steps(1)

    def names_to_keep(self, step: int) -> list[str]:
        """Return the names to keep this step's checkpoint under.

        One is for good, after every `keep_every_epochs`-th epoch; one is to go back to, with --rollback.
        """
        epoch, rest = self.state.epochs.at(step)
        every = self.config.run.keep_every_epochs
        of_epoch = [checkpoint.kept_as(epoch)] if every and not rest and epoch % every == 0 else []
        return [*of_epoch, *self.records.health.names_to_keep(step)]

    def end_where_patience_does(self) -> bool:
        """Make this step the run's last one where its best score has stood for long enough; returns whether it did."""
        if not self.records.ends_by_patience():
            return False
        self.total_steps = self.log.total_steps = self.log.step
        return True

    def is_evaluation_due(self, step: int) -> bool:
        """Tell whether the generators are measured after this step."""
        every = self.config.evaluation.evaluate_every
        return bool(every) and (step % every == 0 or step == self.total_steps)

    def save(self, keep_as: Sequence[str] = ()) -> None:
        """Write a checkpoint; raises NonFiniteLoss, and writes nothing, where something in it is not finite."""
        self.records.run.raise_if_gone()
        run = self.records.run.path
        self.state.save(
            run,
            self.log,
            prepared=self.prepared,
            best=self.records.best,
            finished=self.log.step == self.total_steps,
            rollbacks=self.records.health.attempt,
            keep_as=keep_as,
        )
        self.records.health.saved()
        self.saved_step = self.log.step
        for name in keep_as:
            self.records.say_kept(name)
        with self.log.paused():
            self.callbacks.on_checkpoint(self.log.step, run / checkpoint.FOLDER / checkpoint.LAST)
