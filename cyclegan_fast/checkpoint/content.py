"""Describes what a checkpoint of a run holds: the one description that it is written by and checked against.

`training/state.py` fills it and continues from it, `files.py` stores it and checks it with description.py, and
consistency.py says which entries must agree. Whoever changes an entry so that an older version cannot go on with it
raises CHECKPOINT_FORMAT.
"""

from typing import Annotated, Any, NotRequired, TypedDict

import torch
from torch import Tensor

from cyclegan_fast.checkpoint.description import AndOthers, Elements, Length, Settings, Within
from cyclegan_fast.system.ranges import MOST_STEPS

CHECKPOINT_FORMAT = 1
"""The number of this format; files from before it was counted have none."""

_Count = Annotated[int, Within(0, MOST_STEPS)]
_Positive = Annotated[int, Within(1, MOST_STEPS)]
_NotNegative = Annotated[float, Within(0)]
_Weight = Annotated[Tensor, Elements((torch.float32, torch.int64))]  # batch norms count batches
_Counts = Annotated[Tensor, Elements((torch.int64, torch.float64), 1, least=0)]  # means over ranks are no integers
_RandomState = Annotated[Tensor, Elements((torch.uint8,), 1)]
_PoolImage = Annotated[Tensor, Elements((torch.float32, torch.float16, torch.bfloat16), 3, -1, 1)]


class LossState(TypedDict):
    """Holds the losses since the last report, one number each: `LossSums.state_dict`."""

    names: list[str]
    sums: Annotated[Tensor, Elements((torch.float64,), 1)]
    finite: _Counts
    lost: _Counts
    in_a_row: _Counts


class LogState(TypedDict):
    """Holds where the run is: `RunLog.state_dict`."""

    step: _Count
    elapsed_s: _NotNegative
    losses: LossState | None
    count: _Count
    since_s: _NotNegative


class AdamMoments(TypedDict):
    """Holds what Adam keeps of one parameter."""

    step: Annotated[Tensor, Elements((torch.float32,), 0, 0, MOST_STEPS)]
    exp_avg: Annotated[Tensor, Elements((torch.float32,))]
    exp_avg_sq: Annotated[Tensor, Elements((torch.float32,), least=0)]


class AdamGroup(TypedDict):
    """Holds the settings of Adam; only the learning rate is taken from there."""

    lr: Annotated[Tensor, Elements((torch.float32, torch.float64), 0, 0)] | _NotNegative
    params: list[_Count]


class AdamState(TypedDict):
    """Holds the state of an optimiser, as PyTorch writes it."""

    state: dict[int, AdamMoments]
    param_groups: Annotated[list[Annotated[AdamGroup, AndOthers()]], Length(1, 1)]


class ScalerState(TypedDict):
    """Holds the state of a loss scaler, as PyTorch writes it."""

    scale: Annotated[float, Within(1e-30)]
    growth_factor: float
    backoff_factor: float
    growth_interval: int
    _growth_tracker: _Count


class NoScaler(TypedDict):
    """Stands for a loss scaler that is off."""


class DescentState(TypedDict):
    """Holds one side of the training: `Descent.state_dict`."""

    optimizer: AdamState
    scaler: ScalerState | NoScaler


class StepState(TypedDict):
    """Holds both optimisers, their loss scalers and the number of steps: `TrainingStep.state_dict`."""

    generators: DescentState
    discriminators: DescentState
    steps_taken: _Count


class PoolState(TypedDict):
    """Holds the images of a pool, each [C, H, W] in [-1, 1]: `ImagePool.state_dict`."""

    images: list[_PoolImage]
    filled: NotRequired[_Count]
    """their number, so that one that is missing shows; older checkpoints have none"""


class RankStepState(TypedDict):
    """Holds image pools, and the random states that decide about them: `TrainingStep.rank_state_dict`."""

    pool_A: PoolState
    pool_B: PoolState
    pool_random: Annotated[list[Any], Length(3, 3)]
    """the three parts of `random.Random.getstate`"""
    penalty_random: _RandomState


class RandomStates(TypedDict):
    """Holds the states of PyTorch's generators, uint8 [n]."""

    cpu: _RandomState
    cuda: _RandomState | None


class PlateauCounts(TypedDict):
    """Holds what PyTorch's ReduceLROnPlateau has come to; its state has settings as well."""

    best: Annotated[float, Within(or_infinite=True)]
    num_bad_epochs: _Count
    last_epoch: _Count
    cooldown_counter: _Count


class PlateauState(TypedDict):
    """Holds what policy plateau has come to: `Plateau.state_dict`."""

    scheduler: Annotated[PlateauCounts, AndOthers()]
    rate: _NotNegative


class ScheduleState(TypedDict):
    """Holds what the learning rate of later epochs depends on: `Schedule.state_dict`."""

    plateau: PlateauState | None
    losses: LossState | None


class RankState(TypedDict):
    """Holds what each process of a run has of its own."""

    step: RankStepState
    schedule: NotRequired[ScheduleState]
    """older checkpoints have none"""
    random: RandomStates


class EpochsState(TypedDict):
    """Says how a run counts its epochs: `Epochs.state_dict`."""

    steps: _Positive
    from_step: _Count
    from_epoch: _Count
    images: Annotated[list[_Count], Length(2, 2)]


class BestEvaluation(TypedDict):
    """Holds the best evaluation so far."""

    step: _Count
    name: str
    value: float


class SharesState(TypedDict):
    """Holds what all processes of a run take together: `RankShares.state_dict`."""

    batch: _Positive
    pool: _Count


class RunCheckpoint(TypedDict):
    """Holds everything that the next step of a run depends on, as plain values and tensors."""

    checkpoint_format: NotRequired[_Positive]
    """CHECKPOINT_FORMAT of the version that wrote it; older checkpoints have none"""
    written_by: NotRequired[str]
    """that version of cyclegan-fast; older checkpoints have none"""
    config: dict[str, dict[str, Annotated[Any, Settings()]]]
    """the run's configuration, section by section"""
    data: str
    """the digest of the training images' names: a run continues on the same images, unless its user agrees to others"""
    content: NotRequired[str]
    """the same for what is in their files; older checkpoints have none"""
    dtype: str
    """the name of the precision that convolutions compute in"""
    model: dict[str, _Weight]
    """the weights of all networks ("G_A.stem.weight") and of the generators' moving averages ("G_A_ema.stem.weight")"""
    step: StepState
    log: LogState
    ranks: Annotated[list[RankState], Length(1)]
    """one entry for each process that trained, in the order of ranks"""
    shares: NotRequired[SharesState]
    """what all processes take together, whatever their number; older checkpoints have none,
    and are of as many processes as the run began with"""
    prepared: NotRequired[str | None]
    """the digest of what the method's losses need besides the networks; older checkpoints have none"""
    epochs: NotRequired[EpochsState]
    """older checkpoints have none"""
    begun_with: NotRequired[list[str]]
    """the networks that began with weights of others; older checkpoints have none"""
    finished: bool
    """whether this is the run's last step"""
    best: NotRequired[BestEvaluation | None]
    """older checkpoints have none"""
    rollbacks: NotRequired[_Count]
    """how often the run had gone back to an earlier checkpoint; older checkpoints have none"""


CHECKPOINT_KEYS = RunCheckpoint.__required_keys__
