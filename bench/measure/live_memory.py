"""Follows how much tensor memory is alive while something is computed, by PyTorch's operators, on any device.

On the device "meta" tensors have shapes and no memory, so that the largest step is followed in a second on any machine;
the fused operators' own code runs there too, with all that it allocates; only the launches of kernels are left out.

PyTorch's own tracker, `torch.distributed._tools.mem_tracker.MemTracker`, cannot take its place (tried with PyTorch
2.13). It is in a private package. On "meta" it cannot run a step, whose fused Adam reads its learning rate. On any
device it refuses a module whose weights are frozen, as the discriminators' are in the generators' part of a step
("cannot register a hook on a tensor that doesn't require gradient"). And it takes a fused operator for one operator:
of a norm of [1, 64, 256, 256] in float32 it counts 768 bytes beside the result, where 49 KiB are allocated.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bench.measure.phases import PhaseMode
from cyclegan_fast.kernels.launching import launching_with
from cyclegan_fast.kernels.registration import NAMESPACE
from cyclegan_fast.training.first_use.without_memory import run_operator

BYTES_PER_GIB = 1 << 30
ALLOCATION_UNIT = 512  # bytes: PyTorch's allocator on a GPU hands out whole units


class LiveMemory(PhaseMode):  # type: ignore[no-untyped-call]  # torch leaves its base untyped
    """Counts the storages that operators make on one device, each once and until nobody holds it.

    It does not see what an operator of PyTorch allocates and frees inside itself; it sees what a fused operator does.

    Attributes:
        now: bytes that are alive.
        peak: the most bytes that were alive since `begin` was last called.
        phase_of_peak: the value of `phase` when the peak was reached.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.now = self.peak = 0
        self.phase_of_peak = ""
        self._alive: set[int] = set()

    def begin(self) -> None:
        """Forget the peak so far."""
        self.peak, self.phase_of_peak = self.now, self.phase

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        result = self.run(operator, arguments, options or {})
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == self.device:
                self._count(leaf.untyped_storage())
        return result

    def run(self, operator: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Return the operator's result; a fused operator's own allocations are counted while it runs."""
        if operator.namespace != NAMESPACE:
            return operator(*arguments, **options)
        # Its implementation runs, which the CPU has in common with GPUs, not its registered fake: every buffer counts.
        with self:
            return operator._op_dk(torch._C.DispatchKey.CPU, *arguments, **options)

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive:
            return
        size = -(-storage.nbytes() // ALLOCATION_UNIT) * ALLOCATION_UNIT
        self._alive.add(key)
        weakref.finalize(storage, self._forget, key, size)
        self.now += size
        if self.now > self.peak:
            self.begin()

    def _forget(self, key: int, size: int) -> None:
        self._alive.remove(key)
        self.now -= size


class LiveMemoryOnMeta(LiveMemory):  # type: ignore[no-untyped-call]  # as above
    """Counts tensors without memory."""

    def __init__(self) -> None:
        super().__init__("meta")

    def run(self, operator: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if operator.namespace != NAMESPACE:
            return run_operator(operator, arguments, options)
        return super().run(operator, arguments, options)


@contextmanager
def live_memory(device: str) -> Iterator[LiveMemory]:
    """Follow what is computed on `device`, "cpu" or "meta".

    No kernel of the fused operators runs on either, since Triton's interpreter would allocate tensors of its own: what
    they should have written stays unwritten. Fused Adam, which knows no "meta", is built there all the same.
    """
    with launching_with(lambda kernel, grid, arguments, options: None):
        if device != "meta":
            with LiveMemory(device) as memory:
                yield memory
            return
        with mock.patch("torch.optim.adam._device_dtype_check_for_fused"), LiveMemoryOnMeta() as memory:
            yield memory
