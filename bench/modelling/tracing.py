"""Traces a training step on tensors without memory, and lists the kernel launches that a GPU would make.

The step is the project's own, see `cyclegan_fast/training/first_use/without_memory.py`. What a GPU does differently is
put right here: cuDNN lays its results channels last. Our kernels' launches are recorded as planned for the GPU in
question.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from bench.measure.phases import PhaseMode
from bench.modelling.convolutions import ConvolutionCall, backward_call, forward_call
from bench.modelling.kernel_operands import operands_of, operations_of
from bench.modelling.library_operators import LibraryLaunch, bias_gradient, launches_of
from bench.modelling.nodes import Launch, MatrixProduct, NodeKind, StepNode, StorageRange
from cyclegan_fast.config.options import Config
from cyclegan_fast.kernels.gpus import Gpu
from cyclegan_fast.kernels.launching import Grid, launching_with
from cyclegan_fast.kernels.pending_sum import PendingSum
from cyclegan_fast.kernels.registration import LAUNCHES
from cyclegan_fast.training.first_use.without_memory import run_operator, run_step_without_memory
from cyclegan_fast.training.step import TrainingStep


def trace_step(config: Config, gpu: Gpu, dtype: torch.dtype = torch.bfloat16, streams: int = 1) -> list[StepNode]:
    """Return the nodes of a step in the steady state, in the order of their launches.

    Args:
        config: networks, losses, batch and crop size are read from it; the fused operators must be Triton's.
        gpu: the GPU that kernels are planned for.
        dtype: of convolutions and fused operators, 16 bits wide: `--amp`.
        streams: 1 or 2, on which the step puts its launches.
    """
    newest = StepTracer(gpu)

    def traced(step: TrainingStep) -> "StepTracer":
        nonlocal newest
        newest = StepTracer(gpu)
        for network, parameters in reversed(step.networks.by_name.items()):  # of a memory's owners the first one counts
            for name, tensor in (*parameters.named_parameters(), *parameters.named_buffers()):
                newest.know(tensor, network, name.removesuffix(".weight").removesuffix(".dense"))
        step.phase = newest.in_phase
        if streams == 2:
            step.take_streams(newest.streams)
        return newest

    run_step_without_memory(config, gpu, dtype, traced)
    return newest.nodes


@dataclass
class _Accesses:
    """Holds who wrote and who has read the parts of a storage since."""

    writes: list[tuple[StorageRange, int]] = field(default_factory=list)
    reads: list[tuple[StorageRange, int]] = field(default_factory=list)


class TracedStreams:
    """Is a `StreamPair` that notes which nodes each stream has waited for."""

    def __init__(self) -> None:
        self.current = 0
        self._newest: list[int | None] = [None, None]  # of each stream, the index of its last node
        self._waits: list[list[int]] = [[], []]  # of each stream, the nodes that its next one waits for

    def fork(self) -> None:
        self._wait(1, 0)

    @contextmanager
    def second(self) -> Iterator[None]:
        self.current = 1
        try:
            yield
        finally:
            self.current = 0

    def join(self) -> None:
        self._wait(0, 1)

    def mark(self) -> list[int]:
        newest = self._newest[1]
        return [*self._waits[1], *([] if newest is None else [newest])]

    def join_mark(self, mark: list[int]) -> None:
        self._waits[0] += mark

    def _wait(self, waiting: int, waited_for: int) -> None:
        newest = self._newest[waited_for]
        # What a stream has waited for and has put no node behind, others that wait for it wait for as well.
        self._waits[waiting] += [*self._waits[waited_for], *([] if newest is None else [newest])]

    def take(self, index: int) -> tuple[int, ...]:
        """Give the current stream a node; returns the nodes that it waits for."""
        newest = self._newest[self.current]
        found = {*self._waits[self.current], *([] if newest is None else [newest])}
        self._newest[self.current], self._waits[self.current] = index, []
        return tuple(sorted(found))


class StepTracer(PhaseMode):  # type: ignore[no-untyped-call]  # torch leaves its base untyped
    """Lists what is launched, with what each launch must wait for: data to read, and readers of what it overwrites."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.nodes: list[StepNode] = []
        self.streams = TracedStreams()
        self._kept: list[torch.UntypedStorage] = []  # so that no address is given to two storages
        self._accesses: dict[int, _Accesses] = {}
        self._owners: dict[int, tuple[str, str]] = {}  # of a storage: network and layer

    def know(self, tensor: Tensor, network: str, layer: str) -> None:
        """Say whose tensor this is: what is computed with it belongs to that layer."""
        self._owners[self._storage_of(tensor)] = network, layer

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        with self:  # sums that are put off are formed, and launches inside our operators are seen
            arguments = tree_map_only(PendingSum, PendingSum.added, arguments)
            if operator in LAUNCHES:
                with launching_with(self._record_kernel):
                    return LAUNCHES[operator](*arguments, **options)
        result = run_operator(operator, arguments, options)
        if call := forward_call(operator, arguments, result):
            return self._convolve(call)
        if call := backward_call(operator, arguments):
            return self._differentiate(call, *result)
        for launch in launches_of(operator, arguments, options, result):
            self._record_library(launch)
        return result

    # --- kinds of launches -------------------------------------------------------------------------------------------

    def _record_library(self, launch: LibraryLaunch) -> None:
        network, layer = self._owner([*launch.writes, *launch.reads])
        if launch.name.startswith(("_foreach", "_fused")):  # they run over many layers
            layer = ""
        self._add(launch.name, launch.kind, network, layer, launch.reads, launch.writes)

    def _record_kernel(self, kernel: Any, grid: Grid, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        kind, reads, writes = operands_of(kernel, arguments)
        network, layer = self._owner(reads)
        launch = Launch(self.gpu.capability, kernel, grid, arguments, options)
        part = None  # those of convolutions serve both passes
        if kind != "convolution":
            part = "backward" if "backward" in kernel.fn.__name__ else "forward"
        operations = operations_of(kernel, arguments)
        self._add(
            kernel.fn.__name__, kind, network, layer, reads, writes, part=part, launch=launch, operations=operations
        )

    def _convolve(self, call: ConvolutionCall) -> Tensor:
        x, weight = (self._channels_last(tensor) for tensor in (call.x, call.weight))
        y = torch.empty_like(call.y, memory_format=torch.channels_last)
        network, layer = self._owner([weight])
        self.know(y, network, layer)
        product = call.forward()
        self._add("convolution", "convolution", network, layer, [x, weight], [y], product=product, call=call)
        if call.bias is not None:
            self._add("add bias", "elementwise", network, layer, [y, call.bias], [y])
        return y

    def _differentiate(
        self, call: ConvolutionCall, dx: Tensor | None, dw: Tensor | None, db: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        dy, x, weight = (self._channels_last(tensor) for tensor in (call.y, call.x, call.weight))
        network, layer = self._owner([weight])
        if dx is not None:
            dx = torch.empty_like(dx, memory_format=torch.channels_last)
            self._add("dgrad", "convolution", network, layer, [dy, weight], [dx], product=call.dgrad(), call=call)
        if dw is not None:
            dw = torch.empty_like(dw, memory_format=torch.channels_last)
            self._add("wgrad", "convolution", network, layer, [dy, x], [dw], product=call.wgrad(), call=call)
        if db is not None:
            for launch in bias_gradient(dy, db):
                self._add(launch.name, launch.kind, network, layer, launch.reads, launch.writes)
        return dx, dw, db

    def _channels_last(self, tensor: Tensor) -> Tensor:
        """Return the tensor as a convolution reads it; what lies otherwise is copied."""
        if tensor.is_contiguous(memory_format=torch.channels_last):
            return tensor
        copy = torch.empty_like(tensor, memory_format=torch.channels_last)
        self._record_library(LibraryLaunch("copy to channels last", "copy", [tensor], [copy]))
        owner = self._owners.get(self._storage_of(tensor))
        if owner:
            self.know(copy, *owner)
        return copy

    # --- the list ----------------------------------------------------------------------------------------------------

    def _add(
        self,
        name: str,
        kind: NodeKind,
        network: str,
        layer: str,
        reads: Sequence[Tensor],
        writes: Sequence[Tensor],
        *,
        part: str | None = None,
        product: MatrixProduct | None = None,
        call: ConvolutionCall | None = None,
        launch: Launch | None = None,
        operations: int = 0,
    ) -> None:
        if part is None:
            part = "backward" if torch._C._current_graph_task_id() != -1 else "forward"
        if "update" in self.phase:
            part = "update"
        read = tuple(self._region(tensor) for tensor in _each_once(reads))
        written = tuple(self._region(tensor) for tensor in _each_once(writes))
        index = len(self.nodes)
        depends_on = self._dependencies(index, read, written)
        self.nodes.append(
            StepNode(
                name,
                kind,
                network,
                layer,
                part,
                self.phase,
                read,
                written,
                call.operations if call else operations,
                product,
                launch,
                depends_on,
                self.streams.current,
                self.streams.take(index),
            )
        )

    def _dependencies(
        self, index: int, read: Sequence[StorageRange], written: Sequence[StorageRange]
    ) -> tuple[int, ...]:
        found: set[int] = set()
        for region in read:
            accesses = self._accesses.setdefault(region.storage, _Accesses())
            found.update(writer for other, writer in accesses.writes if region.overlaps(other))
            accesses.reads.append((region, index))
        for region in written:
            accesses = self._accesses.setdefault(region.storage, _Accesses())
            for others in (accesses.writes, accesses.reads):
                found.update(other_index for other, other_index in others if region.overlaps(other))
            # What the new write covers entirely, nobody needs to wait for any more.
            accesses.writes = [entry for entry in accesses.writes if not _covers(region, entry[0])]
            accesses.reads = [entry for entry in accesses.reads if not _covers(region, entry[0])]
            accesses.writes.append((region, index))
        return tuple(sorted(found - {index}))

    def _region(self, tensor: Tensor) -> StorageRange:
        first = int(tensor.storage_offset())
        last = first + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        size = tensor.element_size()
        return StorageRange(
            self._storage_of(tensor), first * size, (last + 1) * size if tensor.numel() else 0, tensor.numel() * size
        )

    def _storage_of(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        key: int = storage._cdata
        if key not in self._accesses:
            self._accesses[key] = _Accesses()
            self._kept.append(storage)
        return key

    def _owner(self, tensors: Sequence[Tensor]) -> tuple[str, str]:
        """Return the network and layer of the first of these tensors that belongs to any."""
        owners = (self._owners.get(self._storage_of(tensor)) for tensor in tensors)
        return next((owner for owner in owners if owner), ("", ""))


def _covers(region: StorageRange, other: StorageRange) -> bool:
    return region.first_byte <= other.first_byte and other.end_byte <= region.end_byte


def _each_once(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
