"""`python -m cyclegan_fast.train`: train CycleGAN, or continue a run that was interrupted."""

import json
import math
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import FrameType
from typing import Any

import torch

from cyclegan_fast import checkpoint, config as configuration
from cyclegan_fast.config import Config
from cyclegan_fast.data import Data, check_data, open_data
from cyclegan_fast.device import (
    choose_device,
    describe,
    is_out_of_memory,
    peak_gib,
    set_determinism,
    working_dtype,
)
from cyclegan_fast.errors import INTERRUPTED, UserError, printable, run_command
from cyclegan_fast.files import write_atomically
from cyclegan_fast.gallery import write_index
from cyclegan_fast.held_out import SCORED, Samples, scores
from cyclegan_fast.images import UnreadableImage
from cyclegan_fast.log import NonFiniteLoss, RunLog
from cyclegan_fast.model import CycleGAN
from cyclegan_fast.run_folder import ANOTHER, RESULTS, RunFolder, completed, open_run
from cyclegan_fast.sample_grid import write_samples
from cyclegan_fast.scores import table
from cyclegan_fast.step import TrainingStep, learning_rate_factor
from kernels.dispatch import choose

GALLERY_EVERY_S = 10.0


class Interruption:
    """Turns the first Ctrl-C (or SIGTERM) into a request to stop after the current step; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.restore()

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Training:
    """One run from its configuration to its last checkpoint."""

    def __init__(self, config: Config, data: Data, run: RunFolder) -> None:
        self.config, self.data, self.run = config, data, run
        self.device = choose_device(config.run.device)
        self.dtype, remark = working_dtype(self.device, config.run.amp, config.run.amp_dtype)
        set_determinism(config.run.deterministic)
        torch.manual_seed(config.run.seed)
        self.model = CycleGAN(config).to(self.device)
        self.step = TrainingStep(self.model, config, self.dtype)
        everything = config.total_epochs * data.training.steps_per_epoch
        self.total_steps = min(everything, config.run.max_steps or everything)
        self.samples = Samples.of(data, config.data.crop_size)
        if run.checkpoint:
            self._restore(run.checkpoint)
        run.begin(config)
        self._announce([*run.warnings, *data.warnings, *([remark] if remark else [])])
        self.log = RunLog(run.path, self.total_steps, run.checkpoint["log"] if run.checkpoint else None)
        self.saved_step: int | None = self.log.step if run.checkpoint else None
        self.gallery_written_s = -math.inf

    def _announce(self, remarks: list[str]) -> None:
        training = self.data.training
        print(
            f"{len(training.images_A)} images A, {len(training.images_B)} images B; {describe(self.device)}, "
            f"{name_of(self.dtype)}; {self.run.path}, steps {self.run.step} to {self.total_steps}"
        )
        if self.config.loss.gan_loss == "wgan-gp":
            remarks.append("wgan-gp needs second derivatives: the discriminators run on the reference operators")
        for remark in remarks:
            print(f"note: {printable(remark)}")

    def _restore(self, state: dict[str, Any]) -> None:
        if state["data"] != self.data.training.fingerprint:
            raise UserError(f"the images changed since {self.run.path} was saved; {ANOTHER}")
        if state["dtype"] != name_of(self.dtype):
            raise UserError(
                f"{self.run.path} was trained in {state['dtype']} and this device gives {name_of(self.dtype)} for the "
                f"same flags: continue it where it began, or {ANOTHER}"
            )
        checkpoint.load_weights(self.model, state["model"], str(self.run.path))
        self.step.load_state_dict(state["step"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and state["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)

    def train(self, interruption: Interruption) -> bool:
        """Run the steps that are left; False where it was interrupted. The last state is saved either way."""
        options, training = self.config.run, self.data.training
        if self.log.step == 0:
            self.draw_samples()
        while self.log.step < self.total_steps and not interruption.requested:
            epoch, first_step = divmod(self.log.step, training.steps_per_epoch)
            epoch += 1
            learning_rate = self.learning_rate(epoch)
            self.step.set_learning_rate(learning_rate)
            for batch in training.epoch(epoch, first_step):
                self.log.add(self.step(*batch.to(self.device)))
                now = self.log.step
                if now % options.report_every == 0:
                    self.log.report(
                        epoch=epoch,
                        learning_rate=learning_rate,
                        batch_size=self.config.data.batch_size,
                        peak_gib=peak_gib(self.device),
                    )
                    self.refresh_gallery()
                if now % options.sample_every == 0:
                    self.draw_samples()
                keep_as = self.name_to_keep(now)
                if now % options.checkpoint_every == 0 or keep_as:
                    self.save(keep_as)
                if interruption.requested or now == self.total_steps:
                    break
        if self.saved_step != self.log.step:
            self.save()
        return self.log.step == self.total_steps

    def name_to_keep(self, step: int) -> str | None:
        """The name to keep this step's checkpoint under for good: at the end of every `keep_every_epochs`-th epoch."""
        epoch, rest = divmod(step, self.data.training.steps_per_epoch)
        every = self.config.run.keep_every_epochs
        return f"epoch_{epoch:04d}.pt" if every and not rest and epoch % every == 0 else None

    def learning_rate(self, epoch: int) -> float:
        options = self.config.optimizer
        return options.learning_rate * learning_rate_factor(epoch, options.epochs, options.decay_epochs)

    def draw_samples(self) -> None:
        with self.log.paused():
            write_samples(self.run.path, self.log.step, self.samples.grids(self.model))
        self.refresh_gallery(at_once=True)

    def refresh_gallery(self, *, at_once: bool = False) -> None:
        """Rewrite index.html, at most every few seconds unless something new must be seen `at_once`."""
        if at_once or time.monotonic() - self.gallery_written_s > GALLERY_EVERY_S:
            with self.log.paused():
                write_index(self.run.path)
            self.gallery_written_s = time.monotonic()

    def save(self, keep_as: str | None = None) -> None:
        """Write a checkpoint, unless something in it is not finite: the last good one then stays."""
        self.log.check_finite()
        for name, value in self.model.named_parameters():
            if not torch.isfinite(value).all():
                raise NonFiniteLoss(f"weights {name} are not finite at step {self.log.step}")
        on_cuda = self.device.type == "cuda"
        state = {
            "config": configuration.to_dict(self.config),
            "data": self.data.training.fingerprint,
            "dtype": name_of(self.dtype),
            "model": dict(self.model.state_dict()),
            "step": self.step.state_dict(),
            "log": self.log.state_dict(),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.device) if on_cuda else None,
            },
            "finished": self.log.step == self.total_steps,
        }
        with self.log.paused():
            self.log.sync()
            checkpoint.save(self.run.path, state, keep_as=keep_as)
        self.saved_step = self.log.step

    def conclude(self) -> str:
        """Score the run, write results.json and the gallery, and return the table."""
        training_s, peak = self.log.elapsed_s, peak_gib(self.device)
        rows, notes = scores(self.model, self.data)
        results = {
            "step": self.log.step,
            "images": sum(min(SCORED, len(held.images)) for held in (self.data.test_A, self.data.test_B) if held),
            "training_s": round(training_s, 1),
            "peak_gib": round(peak, 2),
            "device": describe(self.device),
            "rows": [asdict(row) for row in rows],
            "notes": notes,
        }
        # The results last: a run that has them is finished.
        self.draw_samples()
        write_atomically(self.run.path / RESULTS, json.dumps(results, indent=2).encode())
        self.refresh_gallery(at_once=True)
        lines = [f"{self.log.step} steps in {training_s:.0f} s, {peak:.2f} GiB of memory at most"]
        lines += ["means over held-out images:", table(rows)] if rows else []
        return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_device(config: Config) -> None:
    """Refuse a device or an implementation of the operators that cannot be had, before anything is written."""
    device = choose_device(config.run.device)
    try:
        for operator in ("reflection_pad", "instance_norm", "residual_block"):
            choose(operator, config.networks.impl, torch.empty(0, device=device))
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from error


def train(config: Config, origin: str) -> int:
    """Train the run that `config` describes to its end; returns the exit status."""
    check_device(config)
    check_data(config.data)
    config = completed(config, origin)
    with open_run(config) as run:
        return train_in(run, config)


def train_in(run: RunFolder, config: Config) -> int:
    """Train in the run's folder; what goes wrong on the way becomes a UserError that says what is kept."""
    training = Training(config, open_data(config.data, config.run.seed), run)
    interruption = Interruption()
    try:
        finished = training.train(interruption)
        training.log.close()
        print("" if finished else f"interrupted after step {training.log.step}; the same command continues")
        print(training.conclude())
    except UnreadableImage as error:
        training.save()
        raise UserError(f"{error}; step {training.saved_step} is saved, the same command continues") from error
    except (NonFiniteLoss, OSError) as error:
        kept = f"the checkpoint of step {training.saved_step} is kept" if training.saved_step else "nothing was saved"
        diverged = isinstance(error, NonFiniteLoss)
        advice = "; a smaller --learning-rate or another --seed, with --name NEW, may help" if diverged else ""
        raise UserError(f"{error}; {kept}{advice}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"the memory of {training.device} does not suffice; train with --amp or --checkpoint-blocks, compute each "
            "batch in parts with --accumulate, or lower --crop-size or --batch-size"
        ) from error
    finally:
        training.log.close()
        interruption.restore()
    print(f"gallery: {run.path / 'index.html'}")
    return 0 if finished else INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(lambda: train(*configuration.parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
