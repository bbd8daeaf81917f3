"""Compares a recorded step once with the same step run eagerly, before the recording is relied on.

A recording repeats what the device was told. What the host decided or computed meanwhile stays as it was, memory that
is not the recording's own may have gone to others, and no error tells of either: losses and weights do.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from cyclegan_fast.system.device import random_state, set_random_state

State = Mapping[str, Sequence[Tensor]]
"""Groups of tensors that a step writes and a later one reads, by names that a message can use."""

FARTHEST = 0.25
"""The largest distance between the ends of two steps, in lengths of the step. A step that was left out is 1 away, and
so is one at twice the learning rate. The same kernels leave 0. Sums without a fixed order change a gradient by
rounding, which Adam enlarges where the gradient itself is that small: in few places, since it is not small
everywhere."""

LOSS_TOLERANCE = 0.01
"""The largest difference of two losses, relative to the larger one, or to `SMALL_LOSS` where both are below. Only the
order of sums in the forward pass can tell them apart."""

SMALL_LOSS = 0.01


class Rehearsal:
    """Takes back one eager step, and compares a recording that starts from the same state with it.

    Everything is kept on the host: beside a recording, the memory of a device may not suffice for a second state.

    Args:
        state: the tensors that the step writes, the same ones each time.
        device: the device whose random numbers the step draws.
        copies: what the step writes besides, each with the tensor of the state that it must be the rounding of. A share
            of a move tells nothing of them: they move by whole roundings or not at all.
    """

    def __init__(self, state: State, device: torch.device, copies: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        self.state = state
        self.device = device
        self.copies = copies
        self._before, self._random = _on_host(state), random_state(device)

    def take_back(self, outputs: Mapping[str, Tensor]) -> None:
        """Remember the step's outputs and the state that it left, and put everything back to where it began."""
        self._outputs = outputs
        self._after = _on_host(self.state)
        self.put_back()

    @torch.no_grad()
    def put_back(self) -> None:
        """Put everything back to where the step began."""
        for name, tensors in self.state.items():
            for place, value in zip(tensors, self._before[name], strict=True):
                place.copy_(value)
        for copy, original in self.copies:
            copy.copy_(original)
        set_random_state(self.device, self._random)

    def difference(self, outputs: Mapping[str, Tensor]) -> str | None:
        """Say where the recording, which just ran from the same beginning, went elsewhere; None where it did not."""
        for name, expected in self._outputs.items():
            found, expected = outputs[name].detach().cpu().double(), expected.detach().cpu().double()
            if not _is_same_loss(found, expected):
                return f"the loss {name} is {found.mean():.6g} instead of {expected.mean():.6g}"
        for name, tensors in self.state.items():
            moved = _distance(self._before[name], self._after[name])
            apart = _distance(_on_host({name: tensors})[name], self._after[name])
            if apart > FARTHEST * moved:
                return f"the {name} end {apart:.3g} away from where a move of {moved:.3g} brings them"
        stale = sum(not torch.equal(copy, original.to(copy.dtype)) for copy, original in self.copies)
        if stale:
            return f"{stale} of {len(self.copies)} weights differ from the copies that networks compute with"
        return None


@contextmanager
def rehearsal_of_outputs() -> Iterator[Rehearsal]:
    """Surround the comparison of a function that writes nothing but its outputs and draws nothing."""
    yield Rehearsal({}, torch.device("cpu"))


def _on_host(state: State) -> dict[str, list[Tensor]]:
    return {name: [tensor.detach().to("cpu", copy=True) for tensor in tensors] for name, tensors in state.items()}


def _is_same_loss(one: Tensor, other: Tensor) -> bool:
    """Tell whether two losses agree; one that is not finite, as a scaler allows, must not be finite in the other."""
    if not (one.isfinite().all() and other.isfinite().all()):
        return torch.equal(one.isfinite(), other.isfinite())
    allowed = LOSS_TOLERANCE * torch.maximum(one.abs(), other.abs()).clamp(min=SMALL_LOSS)
    return bool(((one - other).abs() <= allowed).all())


def _distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Return the Euclidean distance over all tensors of a group; values that are not finite count as 0."""
    squares = 0.0
    for a, b in zip(one, other, strict=True):
        difference = _finite(a) - _finite(b)
        squares += float(difference.square().sum())
    return math.sqrt(squares)


def _finite(values: Tensor) -> Tensor:
    return values.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
