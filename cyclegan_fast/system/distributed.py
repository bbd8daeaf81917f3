"""Joins several processes that train one model, started by torchrun, by torch.distributed.

Every rank computes its share of a step's images (`training/history/shares.py`); gradients are averaged. The first rank
owns the run's folder: it alone reads and writes there, gathers from the others what a checkpoint needs of them, and
hands them their part of it when a run continues, also as another number of ranks.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
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
from cyclegan_fast.system.fault_points import fault_point

_Result = TypeVar("_Result")

LONGEST_WAIT = timedelta(hours=12)
"""Limits how long hosts wait for one another, as they do while the first rank scores. A dead one is seen at once."""


@dataclass
class Ranks:
    """Knows this process among those that train together; of a single process, every method is the identity.

    Args:
        index, count: the number of this rank, from 0, and the number of ranks.
        control: carries what hosts tell one another, on the CPU also where gradients travel between GPUs; None is the
            default group.
        node, nodes: the number of this rank's torchrun, from 0, and how many of them there are: one a machine.
        is_launched: whether torchrun started this process, be it the only rank. It hands signals on to its ranks, and
            takes every exit status but 0 for a death.
    """

    index: int = 0
    count: int = 1
    control: dist.ProcessGroup | None = None
    node: int = 0
    nodes: int = 1
    is_launched: bool = False

    @property
    def is_first(self) -> bool:
        """True on the rank that owns the run's folder."""
        return self.index == 0

    def from_first(self, function: Callable[[], _Result]) -> _Result:
        """Call `function` on the first rank, and return its result on every rank; its UserError is raised on all."""
        if self.count == 1:
            return function()
        message: list[Any] = [None, None]
        if self.is_first:
            try:
                message[0] = function()
            except (UserError, OSError) as error:
                message[1] = str(error)
                self._tell_all(message)
                raise
        self._tell_all(message)
        result, error_text = message
        if error_text is not None:
            raise ReportedElsewhere(error_text)
        returned: _Result = result
        return returned

    def _tell_all(self, message: list[Any]) -> None:
        with _contact("before_broadcast"):
            dist.broadcast_object_list(message, src=0, group=self.control)

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value in order on the first rank, and an empty list on the others."""
        if self.count == 1:
            return [value]
        values: list[Any] | None = [None] * self.count if self.is_first else None
        with _contact("before_gathering"):
            dist.gather_object(value, values, dst=0, group=self.control)
        return values or []

    def any(self, flag: bool) -> bool:
        """Tell whether a flag is true on any rank."""
        return bool(self.maximum(torch.tensor([int(flag)]))) if self.count > 1 else flag

    def by_node(self, flag: bool) -> list[bool]:
        """Tell of each node whether a flag is true on any rank of it."""
        flags = torch.zeros(self.nodes, dtype=torch.int64)
        flags[self.node] = int(flag)
        return [bool(found) for found in self.maximum(flags)]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over ranks of a small tensor of any device, on the host; waits for the device."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def maximum(self, values: Tensor) -> Tensor:
        """Return the largest of any rank of each number of a small tensor, on the host; waits for the device."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        result = values.detach().cpu().clone()
        if self.count > 1:
            with _contact("before_reduction"):
                dist.all_reduce(result, operation, group=self.control)
        return result

    def share(self, values: list[Tensor]) -> None:
        """Overwrite every rank's tensors with the first rank's."""
        if self.count > 1:
            for value in values:
                # Collectives take dense tensors only, and not channels last, for instance.
                dense = value.detach().contiguous()
                with _contact("before_sharing_weights"):
                    dist.broadcast(dense, src=0)
                value.data.copy_(dense)

    def begin_average(self, values: Tensor) -> Callable[[], None]:
        """Start to average a tensor over ranks in place; call the returned function before the tensor is read."""
        if self.count == 1:
            return lambda: None
        with _contact("before_allreduce"):
            work = dist.all_reduce(values, async_op=True)
        assert work is not None

        def finish() -> None:
            with _contact("before_waiting"):
                work.wait()
            values.div_(self.count)

        return finish


ALONE = Ranks()


@contextmanager
def _contact(moment: str) -> Iterator[None]:
    """Turn what PyTorch raises where another process died into a UserError; `moment` is that of the fault point."""
    fault_point("ranks", moment)
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
        yield Ranks(is_launched=dist.is_torchelastic_launched()), choose_device(device_name)
        return
    local_index = int(os.environ["LOCAL_RANK"])
    if device_name.startswith("cuda:"):
        raise UserError(f"--device {device_name} would be shared by {count} ranks: give cuda, each then takes its own")
    if device_name in ("auto", "cuda") and torch.cuda.is_available():
        device_name = f"cuda:{local_index}"
    device = choose_device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # A module that is imported while there is a group (making an Adam imports this one, in the end) keeps that group
    # for good, as the default argument of its functions.
    importlib.import_module("torch.distributed.nn")
    ranks = Ranks(
        int(os.environ["RANK"]),
        count,
        node=int(os.environ.get("GROUP_RANK", "0")),
        nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        is_launched=dist.is_torchelastic_launched(),
    )
    fault_point("ranks", "before_joining")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=_store_of_this_start(),
        rank=ranks.index,
        world_size=count,
        timeout=None if device.type == "cuda" else LONGEST_WAIT,
    )
    try:
        if device.type == "cuda":
            fault_point("ranks", "before_joining")
            ranks.control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        yield ranks, device
    finally:
        # gloo's threads end with the last reference. One that is about to let go of a tensor when the interpreter ends
        # aborts the process ("terminate called without an active exception").
        ranks.control = None
        fault_point("ranks", "before_parting")
        dist.destroy_process_group()


def _store_of_this_start() -> Store | None:
    """Return the store in which the ranks find one another; None for PyTorch's own choice, by the environment.

    torchrun keeps one store for all its starts, in which ranks that it started again find the addresses of the dead
    ones (pytorch/pytorch issue 135712; seen with 2.13: "Gloo connectFullMesh failed", connection refused). On one
    machine the count of restarts tells the starts apart. Several machines count for themselves;
    docs/several-gpus.md says what to do there.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or int(os.environ["GROUP_WORLD_SIZE"]) > 1:
        return None
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
