"""Says what a case of `kernels.check` is, and how large the networks are whose operators it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .accuracy import MARGIN


@dataclass(frozen=True)
class PreparedCase:
    """Holds a case whose operands are in memory.

    Args:
        run: launches the operator as the networks do, and returns its results.
        plain: computes the same from the same operands, in the dtype that it is given, by PyTorch's operators.
        inputs: the tensors that must be read once.
    """

    run: Callable[[], list[Tensor]]
    plain: Callable[[torch.dtype], list[Tensor]]
    inputs: Sequence[Tensor]


@dataclass(frozen=True)
class OperatorCase:
    """Describes one operator at one place in a network, in one dtype and at one batch size."""

    operator: str
    place: str
    dtype: torch.dtype
    batch: int
    prepare: Callable[[torch.device], PreparedCase]
    margin: float = MARGIN


@dataclass(frozen=True)
class NetworkSize:
    """Says how large the networks are."""

    side: int = 256
    """side of the images in pixels"""
    width: int = 64
    """number of channels behind a network's first convolution"""


SMALL = NetworkSize(side=32, width=16)
"""networks that Triton's interpreter, some ten thousand times slower than a GPU, runs in a minute"""

OTHER_CHANNELS = (1, 4, 6, 13, 16)
"""channels of images other than a photograph's three, whose convolutions are checked in one dtype and batch size"""

Prepare = Callable[[torch.device], PreparedCase]
"""puts a case's operands into a device's memory"""
