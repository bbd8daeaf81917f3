"""Computes the learning rate of each epoch by the policies of the original implementation; epochs count from 1.

The schedules that torch.optim.lr_scheduler steps through are functions of the epoch here, so that a run that continues
has nothing to restore; only policy plateau depends on what happened before.
"""

import math
from typing import cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cyclegan_fast.checkpoint.content import PlateauCounts, PlateauState, ScheduleState
from cyclegan_fast.config.options import OptimizerConfig
from cyclegan_fast.networks.optimizers import EagerSGD
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.training.loss_sums import LossSums

STEP_FACTOR = 0.1


def linear_factor(epoch: int, epochs: int, decay_epochs: int) -> float:
    """Return the share of the initial learning rate: 1 for `epochs`, then linear towards zero."""
    return 1.0 - max(0, epoch - epochs) / (decay_epochs + 1)


def step_factor(epoch: int, step_epochs: int) -> float:
    """Return the share of the initial learning rate: it falls to a tenth after every `step_epochs`."""
    return float(STEP_FACTOR ** ((epoch - 1) // step_epochs))


def cosine_factor(epoch: int, epochs: int) -> float:
    """Return the share of the initial learning rate: half a cosine down to zero at epoch `epochs` + 1, and up again."""
    return (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2


def rate_of_epoch(options: OptimizerConfig, epoch: int) -> float:
    """Return the learning rate that the settings give an epoch: the initial one with policy plateau, before losses."""
    if options.learning_rate_policy == "plateau":
        return options.learning_rate
    if options.learning_rate_policy == "step":
        return options.learning_rate * step_factor(epoch, options.step_epochs)
    if options.learning_rate_policy == "cosine":
        return options.learning_rate * cosine_factor(epoch, options.epochs)
    return options.learning_rate * linear_factor(epoch, options.epochs, options.decay_epochs)


class Schedule:
    """Gives the learning rate of an epoch, and counts the losses of each step where the rate depends on them.

    Args:
        options: the policy and its numbers.
        watched: the names of the losses whose sum policy plateau watches, as a mean over an epoch.
    """

    def __init__(self, options: OptimizerConfig, watched: list[str]) -> None:
        self.options = options
        self.watched = watched
        self._plateau = Plateau(options.learning_rate) if options.learning_rate_policy == "plateau" else None
        self._losses: LossSums | None = None

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch; policy plateau knows that of the current one only."""
        return self._plateau.rate if self._plateau else rate_of_epoch(self.options, epoch)

    def lower(self, factor: float) -> None:
        """Multiply the learning rate that policy plateau has come to; the others know it from the settings."""
        if self._plateau:
            self._plateau.lower(factor)

    def hear(self, losses: dict[str, Tensor]) -> None:
        """Count the losses of one step; nothing waits for the device."""
        if self._plateau:
            values = torch.stack([losses[name].detach().double() for name in self.watched])
            self._losses = self._losses or LossSums.of(None, self.watched, values.device)
            self._losses.add(values)

    def end_epoch(self, ranks: Ranks) -> None:
        """Decide about the next epoch's learning rate, alike on all ranks."""
        if self._plateau and self._losses:
            self._plateau.watch(sum(self._losses.over(ranks).means().values()))
            self._losses = None

    def state_dict(self) -> ScheduleState:
        """Return what later learning rates depend on, plain values and tensors; each rank has losses of its own."""
        return {
            "plateau": self._plateau.state_dict() if self._plateau else None,
            "losses": self._losses.state_dict() if self._losses else None,
        }

    def load_state_dict(self, state: ScheduleState, device: torch.device) -> None:
        """Continue from what `state_dict` returned, with losses on `device`."""
        if self._plateau and state["plateau"]:
            self._plateau.load_state_dict(state["plateau"])
        saved = state["losses"]
        self._losses = LossSums.of(LossSums(**saved), self.watched, device) if saved else None


class Plateau:
    """Divides the learning rate by 5, as the original, where a loss has not fallen by a hundredth for over 5 epochs.

    PyTorch decides, with an optimiser in place of the real one, whose learning rate is a tensor on the device.
    """

    def __init__(self, learning_rate: float) -> None:
        self._optimizer = EagerSGD([torch.zeros(())], lr=learning_rate)
        self._scheduler = ReduceLROnPlateau(self._optimizer, mode="min", factor=0.2, threshold=0.01, patience=5)

    @property
    def rate(self) -> float:
        """Return the current learning rate."""
        return float(self._optimizer.param_groups[0]["lr"])

    def lower(self, factor: float) -> None:
        """Multiply the current learning rate."""
        self._optimizer.param_groups[0]["lr"] *= factor

    def watch(self, loss: float) -> None:
        """Count the loss of one epoch."""
        self._scheduler.step(loss)

    def state_dict(self) -> PlateauState:
        """Return the scheduler's state and the learning rate."""
        return {"scheduler": cast(PlateauCounts, self._scheduler.state_dict()), "rate": self.rate}

    def load_state_dict(self, state: PlateauState) -> None:
        """Continue from what `state_dict` returned; the policy's own numbers stay those of this object."""
        moved = {name: dict(state["scheduler"])[name] for name in PlateauCounts.__required_keys__}
        self._scheduler.load_state_dict({**self._scheduler.state_dict(), **moved})
        self._optimizer.param_groups[0]["lr"] = state["rate"]
