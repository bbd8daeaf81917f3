"""Keeps exponential moving averages of the generators, which draw better images than the newest weights."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cyclegan_fast.methods.model import Model, average_of
from cyclegan_fast.training.update.working_networks import running_statistics


class MovingAverages:
    """Moves the averages of a model's generators towards their newest weights, once a step.

    Args:
        decay: the share of the average that a step keeps; 0 keeps no averages.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = model
        self.decay = decay
        parameter = next(model.parameters())
        # Fused SGD reads its rate in float32 on a GPU, and in the precision of the weights on a CPU.
        dtype = torch.float32 if parameter.is_cuda else parameter.dtype
        self._weights = {  # of the newest weights
            name: torch.zeros((), device=parameter.device, dtype=dtype) for name in model.method.generators
        }
        self._trained: Collection[str] = ()

    def begin_trained(self, networks: Collection[str]) -> None:
        """Say which generators began with trained weights: their averages lose these no faster than any later ones."""
        self._trained = networks

    def begin_step(self, step: int) -> None:
        """Decide how far the averages move in this step, counted from 1."""
        if self.decay:
            # A short history is averaged over its own length, so that the random initial weights do not linger.
            short = min(self.decay, (1 + step) / (10 + step))
            for name, weight in self._weights.items():
                weight.fill_(1 - (self.decay if name in self._trained else short))

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages; the device does it alone, so that a CUDA graph can hold it."""
        if not self.decay:
            return
        for name in self.model.method.generators:
            average, network = self.model.get_submodule(average_of(name)), self.model.get_submodule(name)
            averages: list[Tensor] = list(average.parameters())
            newest: list[Tensor] = list(network.parameters())
            _move_towards(averages, newest, self._weights[name])
            # Running statistics are averages already; PyTorch's AveragedModel keeps the newest ones, too.
            for kept, statistics in zip(average.buffers(), network.buffers(), strict=True):
                kept.copy_(statistics)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Surround a recording of `update`: one that took the weight of this moment would move nothing."""
        before = {name: weight.clone() for name, weight in self._weights.items()}
        try:
            for weight in self._weights.values():
                weight.zero_()
            yield
        finally:
            for name, weight in self._weights.items():
                weight.copy_(before[name])

    def written(self) -> dict[str, list[Tensor]]:
        """Return the averages that `update` writes, by a description of each group."""
        found: dict[str, list[Tensor]] = {}
        if self.decay:
            for name in self.model.method.generators:
                average = self.model.get_submodule(average_of(name))
                found[f"averages of {name}"] = list(average.parameters())
                found |= running_statistics(average_of(name), average)
        return found


def _move_towards(averages: list[Tensor], newest: list[Tensor], weight: Tensor) -> None:
    """Let each average become average + weight * (newest - average); `weight` is a scalar on the device.

    `_foreach_lerp_` would launch a kernel for each of them, since a weight that it reads on the device must have the
    tensors' shapes. Fused SGD reads its rate there for all of them at once: uphill along `newest`, with weight decay 1,
    it moves an average by -rate * (average - newest). It walks through both tensors' memory side by side.
    """
    assert all(average.stride() == new.stride() for average, new in zip(averages, newest, strict=True))
    # Others a CPU leaves as they are.
    assert all(average.dtype in (torch.float32, torch.float64) for average in averages)
    torch._fused_sgd_(
        averages,
        newest,
        [],
        weight_decay=1.0,
        momentum=0.0,
        lr=weight,
        dampening=0.0,
        nesterov=False,
        maximize=True,
        is_first_step=False,
    )
