"""Says what a checkpoint of a run holds; `training/state.py` writes it and continues from it, `files.py` stores it."""

from typing import Any, NotRequired, TypedDict

from torch import Tensor


class RandomStates(TypedDict):
    """Holds the states of PyTorch's generators, uint8 [n]."""

    cpu: Tensor
    cuda: Tensor | None


class RankState(TypedDict):
    """Holds what each process of a run has of its own."""

    step: dict[str, Any]
    """image pools, and the random states that decide about them: `TrainingStep.rank_state_dict`"""
    schedule: NotRequired[dict[str, Any]]
    """what the learning rate of later epochs depends on: `Schedule.state_dict`; older checkpoints have none"""
    random: RandomStates


class RunCheckpoint(TypedDict):
    """Holds everything that the next step of a run depends on, as plain values and tensors."""

    config: dict[str, Any]
    """the run's configuration, section by section"""
    data: str
    """the digest of the training images' names: a run continues on the same images, unless its user agrees to others"""
    content: NotRequired[str]
    """the same for what is in their files; older checkpoints have none"""
    dtype: str
    """the name of the precision that convolutions compute in"""
    model: dict[str, Tensor]
    """the weights of all networks ("G_A.stem.weight") and of the generators' moving averages ("G_A_ema.stem.weight")"""
    step: dict[str, Any]
    """both optimisers, their loss scalers and the number of steps: `TrainingStep.state_dict`"""
    log: dict[str, Any]
    """the step, the training time, and the losses since the last report: `RunLog.state_dict`"""
    ranks: list[RankState]
    """one entry for each process that trained, in the order of ranks"""
    shares: NotRequired[dict[str, int]]
    """what all processes take together, whatever their number: `RankShares.state_dict`; older checkpoints have none,
    and are of as many processes as the run began with"""
    prepared: NotRequired[str | None]
    """the digest of what the method's losses need besides the networks; older checkpoints have none"""
    epochs: NotRequired[dict[str, Any]]
    """how the run counts its epochs: `Epochs.state_dict`; older checkpoints have none"""
    begun_with: NotRequired[list[str]]
    """the networks that began with weights of others; older checkpoints have none"""
    finished: bool
    """whether this is the run's last step"""
    best: NotRequired[dict[str, Any] | None]
    """the best evaluation so far, by "step", "name" and "value"; older checkpoints have none"""
    rollbacks: NotRequired[int]
    """how often the run had gone back to an earlier checkpoint; older checkpoints have none"""
