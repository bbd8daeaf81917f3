"""Runs the training loop: steps, and what is due after them."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.config import values
from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.data.training_images import Data
from cyclegan_fast.evaluation.score_table import scalars, table
from cyclegan_fast.methods.base import Surroundings
from cyclegan_fast.methods.model import Model
from cyclegan_fast.runs import RESULTS
from cyclegan_fast.system.device import describe, name_of, peak_gib, remark_on_choice, set_determinism, working_dtype
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import NonFiniteLoss, UserError, printable
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.interruption import Interruption, Stopped
from cyclegan_fast.system.words import counted
from cyclegan_fast.training.engine import Engine
from cyclegan_fast.training.gallery import write_index
from cyclegan_fast.training.log import RunLog
from cyclegan_fast.training.run_folder import ANOTHER, RunFolder
from cyclegan_fast.training.samples import Samples, write_samples
from cyclegan_fast.training.schedule import Schedule
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.step_profile import StepProfile
from cyclegan_fast.training.validation import Evaluator

GALLERY_EVERY_S = 10.0


class Training:
    """One run from its configuration to its last checkpoint, on one of its ranks."""

    def __init__(self, config: Config, data: Data, run: RunFolder, device: torch.device, ranks: Ranks) -> None:
        self.config, self.data, self.run, self.device, self.ranks = config, data, run, device, ranks
        self.dtype, remark = working_dtype(device, config.run.amp, config.run.amp_dtype)
        set_determinism(config.run.deterministic, sizes_repeat=config.data.preprocess in CROPPING)
        torch.manual_seed(config.run.seed)
        self.model = Model(config).to(device)
        if not ranks.is_first:
            torch.manual_seed(config.run.seed + ranks.index)  # what a U-Net drops is each rank's own
        self.step = TrainingStep(self.model, config, self.dtype, ranks=ranks)
        method = self.model.method
        self.schedule = Schedule(config.optimizer, [name for name in method.losses if name not in method.judged])
        everything = config.total_epochs * data.training.steps_per_epoch
        self.total_steps = min(everything, config.run.max_steps or everything)
        self.samples = Samples.of(data, config.data.crop_size)
        best = run.checkpoint.get("best") if run.checkpoint else None  # older checkpoints have none
        self.evaluator = Evaluator(config, data, device, best) if ranks.is_first else None
        if run.checkpoint:
            self._restore(run.checkpoint)
        if ranks.is_first:
            run.begin(config)
        chosen = remark_on_choice(config.run.device, device)
        remarks = [*run.warnings, *data.warnings, *(said for said in (chosen, remark) if said), *self._prepare_method()]
        if ranks.count > 1 and config.networks.norm == "batch":
            remarks.append(
                "batch norm takes its statistics from each process's own images; the running ones that are kept are "
                "those of the first process"
            )
        if config.networks.norm != "instance" and config.loss.method != "cogan":
            remarks.append(
                f"norm {config.networks.norm} runs on PyTorch's own operators: the fused ones are instance norm's"
            )
        if ranks.is_first:
            self._announce(remarks)
        self.engine = Engine(self.step, config, self._tell)
        self.log = RunLog(
            run.path,
            self.total_steps,
            run.checkpoint["log"] if run.checkpoint else None,
            scaled=self.dtype == torch.float16,
            ranks=ranks,
        )
        measured = config.run.profile if ranks.is_first else 0
        self.profile = StepProfile(measured, device, run.path, self.step.threads, self._tell)
        self.step.phase = self.profile.phase
        self.saved_step: int | None = self.log.step if run.checkpoint else None
        self.gallery_written_s = -math.inf

    def _prepare_method(self) -> list[str]:
        """Let the method get ready what it needs of the data; returns what there is to say of it."""
        training = self.data.training
        around = Surroundings(
            (training.images_A, training.images_B), self.run.path, self.device, self.dtype, self.ranks
        )
        prepared = self.model.method.prepare(around)
        self.prepared_digest = prepared.digest if prepared else None
        before = self.run.checkpoint.get("prepared") if self.run.checkpoint else None
        if before not in (None, self.prepared_digest):
            raise UserError(
                f"the loss of {self.run.path} had another network than there is now ({prepared}): bring that one "
                f"back, or {ANOTHER}"
            )
        return [prepared.description] if prepared else []

    def _announce(self, remarks: list[str]) -> None:
        training, ranks = self.data.training, self.ranks.count
        print(
            f"{counted(len(training.images_A), 'image')} A, {counted(len(training.images_B), 'image')} B; "
            f"{f'{ranks} times ' if ranks > 1 else ''}{describe(self.device)}; {name_of(self.dtype)}"
        )
        print(printable(f"run: {self.run.path}, steps {self.run.step} to {self.total_steps}"))
        if self.config.loss.has_penalty and self.model.method.judged:
            remarks.append("wgan-gp needs second derivatives, so the discriminators run on the reference operators")
        for remark in remarks:
            print(f"note: {printable(remark)}")

    def _tell(self, text: str) -> None:
        """Print beside the progress bar, once for all ranks."""
        if self.ranks.is_first:
            tqdm.write(text)

    def _restore(self, state: dict[str, Any]) -> None:
        training = self.data.training
        saved = state["data"], state.get("content", training.content)  # older checkpoints have no content
        if saved != (training.fingerprint, training.content):
            raise UserError(f"the images changed since {self.run.path} was saved: bring them back, or {ANOTHER}")
        if state["dtype"] != name_of(self.dtype):
            raise UserError(
                f"{self.run.path} was trained in {state['dtype']} and this device gives {name_of(self.dtype)} for the "
                f"same flags: continue it where it began, or {ANOTHER}"
            )
        checkpoint.load_weights(self.model, state["model"], str(self.run.path))
        self.step.load_state_dict(state["step"])
        own = state["ranks"][self.ranks.index]
        self.step.load_rank_state_dict(own["step"])
        if "schedule" in own:  # older checkpoints have none
            self.schedule.load_state_dict(own["schedule"], self.device)
        torch.set_rng_state(own["random"]["cpu"])
        if self.device.type == "cuda" and own["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(own["random"]["cuda"], self.device)

    def train(self, interruption: Interruption) -> bool:
        """Run the steps that are left; False where it was asked to stop. The last state is saved either way."""
        training, self.interruption = self.data.training, interruption
        if self.log.step == 0:
            self.draw_samples()
        elif self.is_evaluation_due(self.log.step) and self.evaluate(self.log.step):
            self.save([checkpoint.BEST])  # the run was asked to stop before
        stopping = self.ranks.any(interruption.requested)
        while self.log.step < self.total_steps and not stopping:
            epoch, first_step = divmod(self.log.step, training.steps_per_epoch)
            rate = self.schedule.rate(epoch + 1)
            self.step.set_learning_rate(rate)
            for batch in self.measured(training.epoch(epoch + 1, first_step)):
                losses = self.engine(batch)
                self.log.add(losses)
                self.schedule.hear(losses)
                if self.log.step % training.steps_per_epoch == 0:
                    self.schedule.end_epoch(self.ranks)
                with self.profile.phase("report"):
                    self.keep_records(epoch + 1, rate)
                self.profile.end_step()
                # Ranks end after the same step, whichever of them was told.
                stopping = self.ranks.any(interruption.requested)
                if stopping or self.log.step == self.total_steps:
                    break
        if self.saved_step != self.log.step:
            self.save()
        self.profile.finish()
        return not stopping

    def measured(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, with a look at the clock before and after each is waited for."""
        while True:
            self.profile.begin_step()
            with self.profile.phase("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def keep_records(self, epoch: int, learning_rate: float) -> None:
        """Report, draw samples, save: whatever is due after this step, which had this learning rate."""
        options, now = self.config.run, self.log.step
        if now % options.report_every == 0:
            self.step.check_loss_scales()
            self.log.report(
                epoch=epoch,
                learning_rate=learning_rate,
                batch_size=self.config.data.batch_size * self.ranks.count,
                peak_gib=peak_gib(self.device),
            )
            self.refresh_gallery()
        if now % options.sample_every == 0:
            self.draw_samples()
        names = self.names_to_keep(now)
        if self.is_evaluation_due(now) and self.evaluate(now):
            names.append(checkpoint.BEST)
        if now % options.checkpoint_every == 0 or names:
            self.save(names)

    def names_to_keep(self, step: int) -> list[str]:
        """The name to keep this step's checkpoint under for good: at the end of every `keep_every_epochs`-th epoch."""
        epoch, rest = divmod(step, self.data.training.steps_per_epoch)
        every = self.config.run.keep_every_epochs
        return [f"epoch_{epoch:04d}.pt"] if every and not rest and epoch % every == 0 else []

    def is_evaluation_due(self, step: int) -> bool:
        every = self.config.evaluation.evaluate_every
        return bool(every) and (step % every == 0 or step == self.total_steps)

    def evaluate(self, step: int) -> bool:
        """Measure the generators, once for all ranks; whether they are the best so far."""
        return self.ranks.any(self._evaluate(step) if self.ranks.is_first else False)

    def _evaluate(self, step: int) -> bool:
        assert self.evaluator is not None  # the first rank's
        if self.log.is_evaluated:
            return False
        with self.log.paused():
            try:
                with self.interruption.at_once():
                    found = self.evaluator.evaluate(self.model, step)
            except Stopped:  # the next start makes up for it
                return False
            except UserError as error:  # of no concern to the training, which goes on
                self._tell(f"note: step {step} was not evaluated: {error}")
                return False
            is_best = self.evaluator.is_best(step, found)
            self.log.evaluated(scalars(found.scores), is_best)
        self.refresh_gallery(at_once=True)
        return is_best

    def draw_samples(self) -> None:
        if not self.ranks.is_first:
            return
        with self.log.paused():
            write_samples(self.run.path, self.log.step, self.samples.grids(self.model))
        self.refresh_gallery(at_once=True)

    def refresh_gallery(self, *, at_once: bool = False) -> None:
        """Rewrite index.html, at most every few seconds unless something new must be seen `at_once`."""
        is_due = at_once or time.monotonic() - self.gallery_written_s > GALLERY_EVERY_S
        if self.ranks.is_first and is_due:
            with self.log.paused():
                write_index(self.run.path)
            self.gallery_written_s = time.monotonic()

    def save(self, keep_as: Sequence[str] = ()) -> None:
        """Write a checkpoint, unless something in it is not finite: the last good one then stays."""
        self.log.check_finite()
        for name, value in self.model.named_parameters():
            if not torch.isfinite(value).all():
                raise NonFiniteLoss(f"weights {name} are not finite at step {self.log.step}")
        on_cuda = self.device.type == "cuda"
        random = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }
        with self.log.paused():
            of_ranks = self.ranks.gather(
                {
                    "step": self.step.rank_state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "random": random,
                }
            )
            if self.ranks.is_first:
                self._write(of_ranks, keep_as)
        self.saved_step = self.log.step

    def _write(self, of_ranks: list[dict[str, Any]], keep_as: Sequence[str]) -> None:
        state = {
            "config": values.to_dict(self.config),
            "data": self.data.training.fingerprint,
            "content": self.data.training.content,
            "dtype": name_of(self.dtype),
            "model": dict(self.model.state_dict()),
            "step": self.step.state_dict(),
            "log": self.log.state_dict(),
            "ranks": of_ranks,
            "prepared": self.prepared_digest,
            "finished": self.log.step == self.total_steps,
            "best": self.evaluator.best if self.evaluator else None,
        }
        self.log.sync()
        checkpoint.save(self.run.path, state, keep_as=keep_as)

    def conclude(self) -> str:
        """Score the run, write results.json and the gallery, and return the table; raises Stopped."""
        training_s, peak = self.log.elapsed_s, peak_gib(self.device)
        assert self.evaluator is not None  # the first rank's
        best = self.evaluator.best
        with self.interruption.at_once():
            found = self.evaluator.evaluate(self.model, self.log.step)
        notes = list(found.notes)
        if best:
            value = f"{best['name']} was {best['value']:.4g}, at step {best['step']}"
            notes.append(f"the best {value}; checkpoints/{checkpoint.BEST} is the checkpoint of that step")
        results = {
            "step": self.log.step,
            "images": sum(found.counts.values()),
            "training_s": round(training_s, 1),
            "peak_gib": round(peak, 2),
            "device": describe(self.device),
            "rows": [score.to_dict() for score in found.scores],
            "notes": notes,
        }
        # The results last: a run that has them is finished.
        self.draw_samples()
        write_atomically(self.run.path / RESULTS, json.dumps(results, indent=2).encode())
        self.refresh_gallery(at_once=True)
        took = f"took {training_s:.0f} s and {peak:.2f} GiB of memory at most"
        lines = [f"{counted(self.log.step, 'step')} {took}"]
        lines += ["means over the test images:", table(found.scores)] if found.scores else []
        return "\n".join([*lines, *(f"note: {note}" for note in notes)])
