"""Records whole training steps as CUDA graphs, once for each shape of the inputs, and replays them.

A step launches some thousand kernels, most of which take less time than their launch. A graph launches them all at once
and the host has nothing to do but to hand over the next images.
"""

import gc
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cyclegan_fast.system.device import first_line
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.rehearsal import Rehearsal, rehearsal_of_outputs

Inputs = dict[str, Tensor]
Outputs = dict[str, Tensor]
Shapes = tuple[tuple[str, torch.Size], ...]

WARM_UP = 3
"""The steps of one shape before it is recorded: cuDNN times its algorithms in them, kernels and networks compile."""

MOST_SHAPES = 4
"""The most shapes that are recorded: an epoch has two, its last batch may be short; each holds buffers of its own."""


class GraphRecorder(Protocol):
    """Records the work of a function on a device."""

    def warm_up(self, function: Callable[[], Outputs]) -> Outputs:
        """Run the function once so that a recording may follow."""

    def record(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Record the function without running it; returns what replays it, and the tensors that hold its results."""


class CudaRecorder:
    """Records CUDA graphs, all in one pool of memory, since one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], Outputs]) -> Outputs:
        """Run the function once, on the stream of the recordings."""
        # On another stream than the default one, as a recording is: libraries keep their workspaces by stream.
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = function()
        current.wait_stream(self._stream)
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
                    "start the same command with --cuda-graph off"
                ) from error
            raise
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


class GraphedFunction:
    """Calls a function of tensors on the device; from the fourth call with inputs of one shape on, by a recording.

    Each recording is compared once with the function as it is, see `rehearsal.py`.

    Args:
        function: computes on the device only, from its inputs and from tensors that stay where they are; it reads
            nothing on the host that changes between calls.
        recorder: records on the device.
        give_up: told why a recording failed, before the function is called as it is, now and for good; may raise.
        prepare: makes a context around each recording.
        rehearse: makes a context around the comparison, behind which everything is as it was before.
        agree: tells whether something holds on any of the processes that call the function together. They exchange
            data within it: whether they replay it is decided alike, and asked as often, on all of them.
    """

    def __init__(
        self,
        function: Callable[[Inputs], Outputs],
        recorder: GraphRecorder,
        device: torch.device,
        give_up: Callable[[str], None],
        prepare: Callable[[], AbstractContextManager[None]] = nullcontext,
        rehearse: Callable[[], AbstractContextManager[Rehearsal]] = rehearsal_of_outputs,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        self.function = function
        self.recorder = recorder
        self.device = device
        self.give_up = give_up
        self.prepare = prepare
        self.rehearse = rehearse
        self.agree = agree
        self.recordings: dict[Shapes, Recording] = {}
        self._calls: Counter[Shapes] = Counter()
        self._is_given_up = False

    def __call__(self, inputs: Inputs) -> Outputs:
        """Return the function's results; the next replay overwrites those of a replay. Inputs may be on the host."""
        shapes = tuple((name, tensor.shape) for name, tensor in inputs.items())
        if shapes in self.recordings:
            return self.recordings[shapes](inputs)
        on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}
        self._calls[shapes] += 1
        if self._is_given_up:
            return self.function(on_device)
        if self._calls[shapes] <= WARM_UP:
            return self.recorder.warm_up(lambda: self.function(on_device))
        if len(self.recordings) == MOST_SHAPES:
            return self._without_recording(on_device, f"batches of more than {MOST_SHAPES} shapes")
        with self.rehearse() as rehearsal:
            recording, reason = self._rehearsed(rehearsal, inputs, on_device)
        if recording is None:
            # Earlier recordings go as well: what `give_up` puts back in order may not be what they work on.
            self.forget_recordings()
            return self._without_recording(on_device, reason)
        self.recordings[shapes] = recording
        return recording(inputs)

    def _rehearsed(self, rehearsal: Rehearsal, inputs: Inputs, on_device: Inputs) -> tuple[Recording | None, str]:
        """Return a recording that did what the function does; or None, and why there is none."""
        rehearsal.take_back(self.recorder.warm_up(lambda: self.function(on_device)))
        # Not the values that follow: a recording that holds on to those of its own time would look right with them.
        places = {name: torch.zeros_like(tensor) for name, tensor in on_device.items()}
        recording, reason = self._try_to_record(places)
        if self.agree(recording is None):
            return None, reason or "another process could not record its step"
        assert recording is not None
        difference = rehearsal.difference(recording(inputs))
        if self.agree(difference is not None):
            return None, f"replayed, a step differs from what it is ({difference or 'on another process'})"
        return recording, ""

    def _try_to_record(self, places: Inputs) -> tuple[Recording | None, str]:
        """Return a recording that takes its inputs from `places`; or None, and why there is none."""
        try:
            with self.prepare():
                replay, outputs = self.recorder.record(lambda: self.function(places))
        except RuntimeError as error:
            return None, first_line(error)
        return Recording(places, replay, outputs), ""

    def forget_recordings(self) -> None:
        """Free the graphs and their memory. NCCL's communicators wait at their end for all graphs that use them."""
        self.recordings.clear()

    def _without_recording(self, inputs: Inputs, reason: str) -> Outputs:
        self.give_up(reason)
        self._is_given_up = True
        return self.function(inputs)
