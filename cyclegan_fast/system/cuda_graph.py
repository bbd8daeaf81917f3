"""Records CUDA graphs, for the steps of a training (`training/cuda_graph.py`) and for translations."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cyclegan_fast.system.device import first_line
from cyclegan_fast.system.errors import UserError

Inputs = dict[str, Tensor]
Outputs = dict[str, Tensor]


class GraphRecorder(Protocol):
    """Records the work of a function on a device."""

    def warm_up(self, function: Callable[[], Outputs]) -> Outputs:
        """Run the function once so that a recording may follow."""

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Record the function without running it; returns what replays it, and the tensors that hold its results."""


class CudaRecorder:
    """Records CUDA graphs.

    Args:
        device: the GPU.
        without: what a user adds to the same command for it to go without graphs, where a recording cannot end.
        shares_memory: all graphs take one pool of memory, which is free again when the last one is gone, and one runs
            at a time; otherwise each has a pool of its own.
    """

    def __init__(self, device: torch.device, without: str, *, shares_memory: bool) -> None:
        self.device = device
        self.without = without
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._pool = torch.cuda.graph_pool_handle() if shares_memory else None

    def warm_up(self, function: Callable[[], Outputs]) -> Outputs:
        """Run the function once, on the stream of the recordings."""
        # On another stream than the default one, as a recording is: libraries keep their workspaces by stream.
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = function()
        current.wait_stream(self._stream)
        # They were made on that stream, which would take their memory again while the current one still reads it.
        for output in outputs.values():
            output.record_stream(current)
        return outputs

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Record the function as a CUDA graph; raises RuntimeError, and UserError where no recording can end."""
        graph = torch.cuda.CUDAGraph()
        gc.collect()
        current = torch.cuda.current_stream(self.device)
        cause: list[RuntimeError] = []

        def recorded() -> Outputs:
            try:
                return function()
            except RuntimeError as error:
                cause.append(error)
                raise

        try:
            # Errors of this thread only: those that prepare images pin memory meanwhile, which a recording forbids.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = recorded()
        except RuntimeError as error:
            torch.cuda.set_stream(current)
            if cause and error is not cause[0]:
                # CUDA refused to end the recording as well, and PyTorch's allocator goes on as if it had not ended.
                raise UserError(
                    f"the recording of a CUDA graph broke off ({first_line(cause[0])}): "
                    f"start the same command with {self.without}"
                ) from error
            raise
        finally:
            cause.clear()  # its traceback holds this list, and all tensors that were made
        return graph.replay, outputs


@dataclass(frozen=True)
class Recording:
    """Holds one graph: inputs are copied into place, then `replay` leaves the results in `outputs`."""

    inputs: Inputs
    replay: Callable[[], None]
    outputs: Outputs

    def __call__(self, inputs: Inputs) -> Outputs:
        for name, place in self.inputs.items():
            place.copy_(inputs[name], non_blocking=True)
        self.replay()
        return self.outputs
