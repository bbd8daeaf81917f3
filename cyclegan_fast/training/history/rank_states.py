"""Deals what each process of a run has of its own to another number of processes.

Weights, optimisers, schedule, epochs and the images of a step are the same whatever their number: `shares.py`. Here is
what belongs to one process. Its rule:

- *Pools.* Slot k of rank r of N is place k * N + r of one pool of all; the images in those places, in order, are dealt
  to the new ranks in the same way. So none is lost, and dealt back they are where they were.
- *Losses of the epoch so far*, which policy plateau waits for: every rank gets their mean.
- *Random states.* A rank whose number there was goes on with its own. A new one begins with states made from the run's
  seed, the step and its number.
"""

import random
from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from cyclegan_fast.checkpoint.content import LossState, PoolState, RankState, RankStepState, RunCheckpoint
from cyclegan_fast.config.options import Config
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.words import counted, listed
from cyclegan_fast.training.history.shares import RankShares


def state_of_rank(saved: RunCheckpoint, ranks: Ranks, seed: int, device: torch.device) -> RankState:
    """Return what a rank continues with: its own state where the number of ranks is that of the checkpoint.

    Args:
        seed: the run's.
        device: the one that a new rank draws random numbers on.
    """
    states = saved["ranks"]
    if len(states) == ranks.count:
        return states[ranks.index]
    own = states[min(ranks.index, len(states) - 1)]
    if ranks.index >= len(states):
        own = _newly_drawn(own, f"{seed} at step {saved['log']['step']} on rank {ranks.index}", device)
    step: RankStepState = {
        **own["step"],
        "pool_A": _dealt_to(ranks, [state["step"]["pool_A"] for state in states]),
        "pool_B": _dealt_to(ranks, [state["step"]["pool_B"] for state in states]),
    }
    dealt_out: RankState = {**own, "step": step}
    if "schedule" in own:
        losses = _mean_losses([state["schedule"]["losses"] for state in states])
        dealt_out["schedule"] = {**own["schedule"], "losses": losses}
    return dealt_out


def remark_on_ranks(saved: RunCheckpoint, ranks: Ranks, shares: RankShares, config: Config) -> str | None:
    """Say what stays and what cannot, where the number of ranks is another than that of the checkpoint; else None."""
    before = len(saved["ranks"])
    if before == ranks.count:
        return None
    others = ["the decisions of the pools"] if shares.pool else []
    others += ["dropout"] if config.networks.dropout else []
    others += ["statistics of batch norm"] if config.networks.has_batch_norm else []
    others += ["the last step of an epoch"]
    processes, images = counted(before, "process", "processes"), counted(shares.batch, "image")
    return (
        f"trained by {processes} so far, and by {ranks.count} from here on: steps of {images}, weights, optimisers and "
        "schedule stay as they were, images in the pools are dealt out anew; "
        f"{listed(others)} may be others than with {before}"
    )


def dealt(pools: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return the images of all ranks' pools in one order: the first of each rank, the second of each, and so on."""
    return [image for images in zip_longest(*pools) for image in images if image is not None]


def _dealt_to(ranks: Ranks, pools: Sequence[PoolState]) -> PoolState:
    return {"images": dealt([pool["images"] for pool in pools])[ranks.index :: ranks.count]}


def _mean_losses(losses: Sequence[LossState | None]) -> LossState | None:
    """Return the mean over ranks of sums and counts, as `LossSums.over` does; None where no step was counted."""
    known = [of_rank for of_rank in losses if of_rank]
    if not known:
        return None
    return {
        "names": known[0]["names"],
        "sums": torch.stack([one["sums"] for one in known]).mean(0),
        "finite": torch.stack([one["finite"].double() for one in known]).mean(0),
        "lost": torch.stack([one["lost"].double() for one in known]).mean(0),
        "in_a_row": torch.stack([one["in_a_row"] for one in known]).amax(0),
    }


def _newly_drawn(state: RankState, text: str, device: torch.device) -> RankState:
    """Return a rank's state with random states that are made from a text."""
    source = random.Random(text)

    def seeded(on: str | torch.device) -> Tensor:
        return torch.Generator(on).manual_seed(source.getrandbits(63)).get_state()

    penalty, cpu = seeded("cpu"), seeded("cpu")
    cuda = seeded(device) if device.type == "cuda" else None
    version, words, gauss = source.getstate()
    step: RankStepState = {
        **state["step"],
        "penalty_random": penalty,
        "pool_random": [version, list(words), gauss],
    }
    return {**state, "random": {"cpu": cpu, "cuda": cuda}, "step": step}
