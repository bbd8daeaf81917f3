"""Records whole training steps as CUDA graphs, once for each shape of the inputs, and replays them.

A step launches some thousand kernels, most of which take less time than their launch. A graph launches them all at once
and the host has nothing to do but to hand over the next images. `system/cuda_graph.py` records it.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from cyclegan_fast.system.cuda_graph import GraphRecorder, Inputs, Outputs, Recording
from cyclegan_fast.system.device import first_line
from cyclegan_fast.training.rehearsal import Rehearsal, rehearsal_of_outputs

Shapes = tuple[tuple[str, torch.Size], ...]

WARM_UP = 3
"""The steps of one shape before it is recorded: cuDNN times its algorithms in them, kernels and networks compile."""

MOST_SHAPES = 4
"""The most shapes that are recorded: an epoch has two, its last batch may be short; each holds buffers of its own."""


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
