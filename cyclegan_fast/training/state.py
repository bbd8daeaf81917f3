"""Holds what the next step of a training depends on, writes it into checkpoints and continues from them.

`checkpoint/content.py` lists every entry of a checkpoint; `checkpoint/files.py` brings it to the disk.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.checkpoint.content import BestEvaluation, RandomStates, RankState, RunCheckpoint
from cyclegan_fast.checkpoint.description import NotFiniteEntry, WrongEntry, is_finite
from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config
from cyclegan_fast.data.training_images import TrainingImages
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.device import name_of
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import NonFiniteLoss, UserError
from cyclegan_fast.training.health.rollback import with_fresh_randomness
from cyclegan_fast.training.history.epochs import Epochs, epochs_after
from cyclegan_fast.training.history.initial_weights import InitialWeights, begin_with
from cyclegan_fast.training.history.rank_states import state_of_rank
from cyclegan_fast.training.history.shares import RankShares
from cyclegan_fast.training.log import RunLog
from cyclegan_fast.training.run_folder import ANOTHER
from cyclegan_fast.training.schedule import Schedule
from cyclegan_fast.training.step import TrainingStep


class TrainingState:
    """Holds the networks of a run, their optimisers with the image pools, and the schedule of the learning rate.

    Makes them anew, from the configured seed; `restore` then brings back what a checkpoint kept.

    Args:
        images: what the run trains on; a checkpoint continues on the same images, unless the configuration says that
            they may change.
        dtype: the precision that convolutions compute in.
        ranks: the processes that train together; each saves a part of its own.
        shares: what they take together; by default what that many begin a run with.
    """

    def __init__(
        self,
        config: Config,
        images: TrainingImages,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks,
        shares: RankShares | None = None,
    ) -> None:
        self.config, self.images, self.device, self.dtype, self.ranks = config, images, device, dtype, ranks
        self.shares = shares or RankShares.of(config, None, ranks.count)
        torch.manual_seed(config.run.seed)
        self.model = Model(config).to(device)
        if not ranks.is_first:
            torch.manual_seed(config.run.seed + ranks.index)  # each rank of a U-Net drops activations of its own
        self.step = TrainingStep(self.model, self.shares.settings(config, ranks), dtype, ranks=ranks)
        self.epochs = Epochs.of(images)
        self.begun_with: list[str] = []
        """names of the networks that began with trained weights"""
        method = self.model.method
        self.schedule = Schedule(config.optimizer, [name for name in method.losses if name not in method.judged])

    def begin_with(self, weights: InitialWeights) -> str:
        """Begin a new run with trained weights; returns what to tell the user. Raises UserError as `begin_with`."""
        self.begun_with, description = begin_with(weights, self.model, self.config)
        self.step.averages.begin_trained(self.begun_with)
        return description

    def restore(self, saved: RunCheckpoint, run: Path, *, behind: int = 0) -> str | None:
        """Continue from a checkpoint of `run`; returns what to tell the user where its images changed.

        Where it is `behind` by some attempts, the random numbers go on from this state's seed instead. Raises UserError
        where images (unless they may), precision or networks are others.
        """
        # A run that goes back to before its images changed was allowed to go on with those of now.
        may_change = self.config.data.data_may_change or behind > 0
        self.epochs, changed = epochs_after(saved, self.images, run, may_change=may_change)
        if saved["dtype"] != name_of(self.dtype):
            raise UserError(
                f"{run} was trained in {saved['dtype']} and this device gives {name_of(self.dtype)} for the "
                f"same flags: continue it where it began, or {ANOTHER}"
            )
        checkpoint.load_weights(self.model, saved["model"], str(run))
        self.begun_with = saved.get("begun_with", [])
        self.step.averages.begin_trained(self.begun_with)
        own = state_of_rank(saved, self.ranks, self.config.run.seed, self.device)
        if behind:
            own = with_fresh_randomness(own, self._of_this_rank())
        self.step.load_state_dict(saved["step"])
        self.step.load_rank_state_dict(own["step"])
        if "schedule" in own:
            self.schedule.load_state_dict(own["schedule"], self.device)
            self.schedule.lower(0.5**behind)
        torch.set_rng_state(own["random"]["cpu"])
        if self.device.type == "cuda" and own["random"]["cuda"] is not None:
            found, due = len(own["random"]["cuda"]), len(torch.cuda.get_rng_state(self.device))
            if found != due:
                raise UserError(
                    f"the checkpoint of {run} has {found} bytes of a GPU's random state, and PyTorch has {due} here: "
                    f"continue it with the version that it was written with, or {ANOTHER}"
                )
            torch.cuda.set_rng_state(own["random"]["cuda"], self.device)
        return changed

    def save(
        self,
        run: Path,
        log: RunLog,
        *,
        prepared: str | None,
        best: BestEvaluation | None,
        finished: bool,
        rollbacks: int = 0,
        keep_as: Sequence[str] = (),
    ) -> None:
        """Write a checkpoint of `run`, unless something in it is not finite: the last good one then stays.

        All ranks must call it; the first one writes.

        Args:
            prepared: the digest of what the method prepared before training.
            best: the best evaluation so far.
            finished: whether this is the run's last step.
            rollbacks: how often the run has gone back.
            keep_as: further names to keep the file under for good.

        Raises NonFiniteLoss naming what is not finite.
        """
        log.check_finite()
        self._check_finite(log.step)
        with log.paused():
            of_ranks = self.ranks.gather(self._of_this_rank())

            def write() -> str | None:
                content: RunCheckpoint = {
                    "config": values.to_dict(self.config),
                    "data": self.images.fingerprint,
                    "content": self.images.content,
                    "dtype": name_of(self.dtype),
                    "model": dict(self.model.state_dict()),
                    "step": self.step.state_dict(),
                    "log": log.state_dict(),
                    "ranks": of_ranks,
                    "shares": self.shares.state_dict(),
                    "prepared": prepared,
                    "epochs": self.epochs.state_dict(),
                    "begun_with": self.begun_with,
                    "finished": finished,
                    "best": best,
                    "rollbacks": rollbacks,
                }
                log.sync()
                try:
                    checkpoint.save(run, content, keep_as=keep_as)
                except NotFiniteEntry as error:
                    return f"{error} at step {log.step}"
                except WrongEntry as error:
                    raise UserError(
                        f"what was to be saved at step {log.step} contradicts itself ({error}), so that nothing was "
                        "written, and what was saved before is unharmed: please report it"
                    ) from error
                return None

            # The others wait, as they would in the next step: where it fails, the first one alone says why.
            lost = self.ranks.from_first(write)
            if lost:
                raise NonFiniteLoss(lost)

    def _check_finite(self, step: int) -> None:
        """Raise NonFiniteLoss, on all ranks alike, where weights or moments of Adam are not finite."""
        for name, value in self.model.named_parameters():
            if not is_finite(value):
                raise NonFiniteLoss(f"weights {name} are not finite at step {step}")
        for descent in (self.step.generators, self.step.discriminators):
            for moments in descent.optimizer.state.values():
                if not (is_finite(moments["exp_avg"]) and is_finite(moments["exp_avg_sq"])):
                    raise NonFiniteLoss(f"moments of Adam are not finite at step {step}")

    def _of_this_rank(self) -> RankState:
        on_cuda = self.device.type == "cuda"
        random: RandomStates = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }
        return {"step": self.step.rank_state_dict(), "schedule": self.schedule.state_dict(), "random": random}
