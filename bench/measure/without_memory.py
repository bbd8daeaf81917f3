"""Runs the operators of a training step on tensors without memory, and says in which phase of the step they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_UPDATES_IN_PLACE = (torch.ops.aten._fused_adam_.tensor_lr, torch.ops.aten._fused_sgd_.tensor_lr)


class PhaseMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Sees operators and knows the phase that they belong to.

    Attributes:
        phase: the name of what is being computed; set by the code that computes it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.phase = ""

    @contextmanager
    def in_phase(self, name: str) -> Iterator[None]:
        """Say that what is computed inside belongs to the phase `name`."""
        outer, self.phase = self.phase, name
        try:
            yield
        finally:
            self.phase = outer


def run_without_memory(operator: Any, arguments: Any, options: Any) -> Any:
    """Run an operator on tensors without memory, with stand-ins for those of a step that refuse them."""
    if operator is torch.ops.aten._local_scalar_dense.default:
        return True  # Adam asks whether the learning rate, a tensor, is positive
    if operator in _UPDATES_IN_PLACE:
        return None
    return operator(*arguments, **options)
