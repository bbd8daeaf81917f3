"""Counts the epochs of a run, also of one whose images changed while it was trained (--data-may-change).

Every random decision about images is a function of seed, epoch and index; so all that a run has to know of its past is
which epoch a step belongs to. Where images change, the steps that were taken stay, and the epoch that had begun begins
anew with the images of now: each of them is seen as often as any other from there on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cyclegan_fast.checkpoint.content import EpochsState, RunCheckpoint
from cyclegan_fast.data.training_images import TrainingImages
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted


@dataclass(frozen=True)
class Epochs:
    """Says which epoch a step belongs to. Epochs and steps count from 0 here: they are what has been taken.

    steps: of each epoch.
    from_step: the steps that were taken when the images last changed.
    from_epoch: the epochs that were whole then.
    images: the numbers of images of A and of B.
    """

    steps: int
    from_step: int = 0
    from_epoch: int = 0
    images: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, images: TrainingImages) -> Self:
        """Return the epochs of a new run on these images."""
        return cls(images.steps_per_epoch, images=(len(images.images_A), len(images.images_B)))

    @classmethod
    def saved_in(cls, checkpoint: RunCheckpoint) -> Self | None:
        """Return the epochs that a checkpoint holds; None for an older one."""
        saved = checkpoint.get("epochs")
        if saved is None:
            return None
        images_A, images_B = saved["images"]
        return cls(saved["steps"], saved["from_step"], saved["from_epoch"], (images_A, images_B))

    def state_dict(self) -> EpochsState:
        """Return plain values, for a checkpoint."""
        return {
            "steps": self.steps,
            "from_step": self.from_step,
            "from_epoch": self.from_epoch,
            "images": list(self.images),
        }

    def at(self, step: int) -> tuple[int, int]:
        """Return how many epochs are whole after `step` steps, and how many steps of the next one are taken."""
        epochs, rest = divmod(step - self.from_step, self.steps)
        return self.from_epoch + epochs, rest

    def begun_by(self, step: int) -> int:
        """Return how many epochs have begun after `step` steps."""
        epochs, rest = self.at(step)
        return epochs + bool(rest)

    def end_of(self, epoch: int) -> int:
        """Return the steps that are taken when so many epochs are whole, none of them before the images changed."""
        return self.from_step + (epoch - self.from_epoch) * self.steps

    def changed(self, step: int, to: Self) -> Self:
        """Return these epochs with other images, those of `to`, from `step` on."""
        return type(self)(to.steps, step, self.at(step)[0], to.images)


def epochs_after(
    saved: RunCheckpoint, images: TrainingImages, run: Path, *, may_change: bool
) -> tuple[Epochs, str | None]:
    """Return how a run counts its epochs after a checkpoint, and what to tell the user where the images changed.

    Args:
        images: those of now.
        run: the run's folder, for messages.
        may_change: whether they may be others than those of the checkpoint.

    Raises UserError where they are others and may not be, and for checkpoints that do not say how long epochs were.
    """
    now, before = Epochs.of(images), Epochs.saved_in(saved)
    if (saved["data"], saved.get("content", images.content)) == (images.fingerprint, images.content):
        return before or now, None
    numbers = f"{_in_words(before)} then, {_in_words(now)} now" if before else f"{_in_words(now)} now"
    if not may_change:
        raise UserError(
            f"the images changed since {run} was saved ({numbers}): bring them back, or go on with those of now "
            "(--data-may-change), or give --name NEW for another run"
        )
    if before is None:
        raise UserError(
            f"{run} was saved by a version that did not note how long its epochs were, so it cannot go on with other "
            "images: continue it for a step with those that it had, or give --name NEW for another run"
        )
    step = int(saved["log"]["step"])
    epoch, rest = before.at(step)
    begins = f"epoch {epoch + 1} {'begins anew' if rest else 'begins'} with them"
    return before.changed(step, now), f"the images changed ({numbers}): {begins}, {counted(now.steps, 'step')} an epoch"


def _in_words(epochs: Epochs) -> str:
    return "{} A and {} B".format(*epochs.images)
