"""Several processes that train one model: torchrun, torch.distributed.

Every rank computes its share of a global batch of `batch_size * count` images; gradients are averaged. The first rank
owns the run's folder: it alone reads and writes there, gathers from the others what a checkpoint needs of them, and
hands them their part of it when a run continues.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import (  # type: ignore[attr-defined]  # public, and not re-exported
    PrefixStore,
    Store,
    TCPStore,
)

from cyclegan_fast.system.device import choose_device
from cyclegan_fast.system.errors import ReportedElsewhere, UserError

Result = TypeVar("Result")


@dataclass
class Ranks:
    """This process among those that train together; alone, every method is the identity.

    Args:
        index, count: this rank, from 0, and how many there are.
        control: carries what hosts tell one another, on the CPU also where gradients travel between GPUs; None is the
            default group.
        restarts: how often torchrun has started all of them again.
    """

    index: int = 0
    count: int = 1
    control: dist.ProcessGroup | None = None
    restarts: int = 0

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def from_first(self, function: Callable[[], Result]) -> Result:
        """What `function` returns on the first rank, on every rank; where it raises a UserError, all of them do."""
        if self.count == 1:
            return function()
        message: list[Any] = [None, None]
        if self.is_first:
            try:
                message[0] = function()
            except (UserError, OSError) as error:
                message[1] = str(error)
                dist.broadcast_object_list(message, src=0, group=self.control)
                raise
        dist.broadcast_object_list(message, src=0, group=self.control)
        result, error_text = message
        if error_text is not None:
            raise ReportedElsewhere(error_text)
        returned: Result = result
        return returned

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value in order, on the first rank; an empty list on the others."""
        if self.count == 1:
            return [value]
        values: list[Any] | None = [None] * self.count if self.is_first else None
        dist.gather_object(value, values, dst=0, group=self.control)
        return values or []

    def any(self, flag: bool) -> bool:
        """Whether it holds on some rank."""
        return bool(self.maximum(torch.tensor([int(flag)]))) if self.count > 1 else flag

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks of a small tensor of any device, on the host; waits for the device."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def maximum(self, values: Tensor) -> Tensor:
        """The largest on any rank of each number of a small tensor, on the host; waits for the device."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        result = values.detach().cpu().clone()
        if self.count > 1:
            with _contact():
                dist.all_reduce(result, operation, group=self.control)
        return result

    def share(self, values: list[Tensor]) -> None:
        """Overwrite every rank's tensors with the first rank's."""
        if self.count > 1:
            for value in values:
                # A dense copy: collectives take no other layout, such as channels last.
                dense = value.detach().contiguous()
                dist.broadcast(dense, src=0)
                value.data.copy_(dense)

    def begin_average(self, values: Tensor) -> Callable[[], None]:
        """Start to average a tensor over ranks in place; call what is returned before it is read."""
        if self.count == 1:
            return lambda: None
        work = dist.all_reduce(values, async_op=True)
        assert work is not None

        def finish() -> None:
            with _contact():
                work.wait()
            values.div_(self.count)

        return finish


ALONE = Ranks()


@contextmanager
def _contact() -> Iterator[None]:
    """What PyTorch raises where another process died becomes a UserError."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"lost contact with another process ({str(error).partition('. ')[0]}); torchrun --max-restarts N starts "
            "all of them again from the last checkpoint"
        ) from error


@contextmanager
def joined(device_name: str) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the ranks that torchrun started, or be alone; yields this rank and the device that is its own.

    Raises UserError where a machine has fewer GPUs than ranks.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, choose_device(device_name)
        return
    local_index = int(os.environ["LOCAL_RANK"])
    if device_name.startswith("cuda:"):
        raise UserError(f"--device {device_name} would be shared by {count} ranks: give cuda, each then takes its own")
    if device_name in ("auto", "cuda") and torch.cuda.is_available():
        device_name = f"cuda:{local_index}"
    device = choose_device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Imported while a group is there (as making an Adam does, in the end), it keeps that group for good: it is the
    # default argument of its functions.
    importlib.import_module("torch.distributed.nn")
    ranks = Ranks(int(os.environ["RANK"]), count, restarts=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=_store_of_this_start(),
        rank=ranks.index,
        world_size=count,
    )
    try:
        ranks.control = dist.new_group(backend="gloo") if device.type == "cuda" else None
        yield ranks, device
    finally:
        # With the last reference go gloo's threads. One that is about to let go of a tensor when the interpreter ends
        # aborts the process ("terminate called without an active exception").
        ranks.control = None
        dist.destroy_process_group()


def _store_of_this_start() -> Store | None:
    """Where the ranks find one another; None for PyTorch's own way, by the environment.

    torchrun keeps one store for all its starts, in which ranks that it started again find the addresses of the dead
    ones (pytorch/pytorch issue 135712; seen with 2.13: "Gloo connectFullMesh failed", connection refused). On one
    machine the count of restarts tells them apart. Machines count for themselves; docs/several-gpus.md says
    what to do there.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or int(os.environ["GROUP_WORLD_SIZE"]) > 1:
        return None
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
