"""Shares a run's batches and image pools among its processes, so that the run stays the same by any number of them."""

from dataclasses import dataclass, replace
from typing import Self

from cyclegan_fast.checkpoint.content import RunCheckpoint, SharesState
from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.words import alternatives, counted


@dataclass(frozen=True)
class RankShares:
    """Holds what all processes of a run take together; it stays as it was when the run began.

    batch: images of each domain in a step.
    pool: places for generated images in all pools of a domain.
    """

    batch: int
    pool: int

    @classmethod
    def of(cls, config: Config, saved: RunCheckpoint | None, ranks: int) -> Self:
        """Return what the processes of a run take together.

        Args:
            config: the settings that the run is given, which are those of each process, or with --share-batch those of
                all together.
            saved: the checkpoint to continue from; None for a new run.
            ranks: the processes that begin a new run.
        """
        if saved and "shares" in saved:
            return cls(**saved["shares"])
        began = len(saved["ranks"]) if saved else ranks  # older checkpoints are of as many as the run began with
        times = 1 if config.data.share_batch else began
        return cls(config.data.batch_size * times, config.loss.pool_size * times)

    def state_dict(self) -> SharesState:
        """Return plain values, for a checkpoint."""
        return {"batch": self.batch, "pool": self.pool}

    def problem(self, config: Config, ranks: int) -> str | None:
        """Say why so many processes cannot share the batch, and how many can; None where they can."""
        crops = config.data.preprocess in CROPPING
        possible = [n for n in range(1, self.batch + 1) if self.batch % n == 0 and (crops or n == self.batch)]
        if ranks in possible:
            return None
        reason = "" if crops else f" (--preprocess {config.data.preprocess} takes one image at a time)"
        images, processes = counted(self.batch, "image"), counted(ranks, "process", "processes")
        return (
            f"a step takes {images} of each domain, which {processes} cannot share equally{reason}: start "
            f"{alternatives([str(n) for n in possible])} instead"
        )

    def settings(self, config: Config, ranks: Ranks) -> Config:
        """Return the settings of one process: its share of the batch, and its places in the pools.

        It computes no more images at once than it would with the batch that was given: where its share is larger, in
        more parts. Batch norm, which cannot do that, takes its share at once.
        """
        images = self.batch // ranks.count
        at_once = config.data.batch_size // config.optimizer.accumulate
        if config.networks.has_batch_norm:
            at_once = images
        parts = next(n for n in range(1, images + 1) if images % n == 0 and images // n <= at_once)
        places = self.pool // ranks.count + (ranks.index < self.pool % ranks.count)
        return replace(
            config,
            data=replace(config.data, batch_size=images),
            loss=replace(config.loss, pool_size=places),
            optimizer=replace(config.optimizer, accumulate=parts),
        )
