"""Says in which phase of a training step its operators run."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils._python_dispatch import TorchDispatchMode


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
