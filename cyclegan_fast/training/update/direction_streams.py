"""Computes the two directions of a step, and its two discriminators, on two streams of a GPU.

At batch 1 a launch of one direction leaves half of a large GPU idle; the other direction's launches fill it. The first
part goes to a second stream and the others to the current one. In a CUDA graph these are two branches.

Order. The second stream waits for the current one before its part (fork), and the current one for the second one behind
both (join). A backward pass runs on the stream of its forward pass, by PyTorch's rule, and its gradients stay apart for
each part; gradients of one weight are added behind the join, in the order of the parts. So the two streams never write
one tensor, and the sums are those of one stream, bit for bit.

Memory. The allocator gives memory that was freed to the next who asks on the stream that it was made on, at once, since
work there is done in order; it does not know of readers on the other stream. `Tensor.record_stream` would tell it, and
in a CUDA graph cost the memory for as long as the graph lives. It is not needed, by three rules:

- What the second stream reads of the current one's memory is held until the join: `items`, by whoever calls `map`.
- What the second stream hands over is read behind the join, and its memory is used again behind the next fork only,
  which waits for these reads: nothing else runs on this stream.
- What both read at any time stays where it is between steps: weights, and scales of losses. What is made at first use
  inside of a part is read behind the join only.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

import torch

from cyclegan_fast.training.update.step_parts import Item, Result, StepParts


class StreamPair(Protocol):
    """Has a second stream beside the current one."""

    def fork(self) -> None:
        """Let the second stream wait for what the current one was given so far."""

    def second(self) -> AbstractContextManager[Any]:
        """Make a context in which work goes to the second stream."""

    def join(self) -> None:
        """Let the current stream wait for what the second one was given so far."""

    def mark(self) -> Any:
        """Return a mark of what the second stream was given so far."""

    def join_mark(self, mark: Any) -> None:
        """Let the current stream wait for what the second one was given in front of a mark."""


class CudaStreamPair:
    """Has a CUDA stream beside the current one, also where that is recording a CUDA graph.

    PyTorch hands out 32 streams of a GPU in turn, so that whoever asks for many more gets this one as well. Work of
    others on it would be waited for, and would break the second rule above. A training asks for a few, once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._second = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def fork(self) -> None:
        """Let the second stream wait; a recording that the current stream is in spreads to it."""
        self._second.wait_stream(torch.cuda.current_stream(self.device))

    def second(self) -> AbstractContextManager[Any]:
        """Make a context in which PyTorch's and Triton's launches go to the second stream."""
        return torch.cuda.stream(self._second)

    def join(self) -> None:
        """Let the current stream wait for the second one."""
        torch.cuda.current_stream(self.device).wait_stream(self._second)

    def mark(self) -> torch.cuda.Event:
        """Record an event on the second stream."""
        event: torch.cuda.Event = self._second.record_event()
        return event

    def join_mark(self, mark: torch.cuda.Event) -> None:
        """Let the current stream wait for an event of the second one."""
        torch.cuda.current_stream(self.device).wait_event(mark)


class DirectionStreams(StepParts):
    """Gives the first of several parts a stream of its own."""

    count = 2

    def __init__(self, pair: StreamPair) -> None:
        self.pair = pair

    def map(self, compute: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
        """Return the results of `compute`, ready for the current stream; what draws random numbers does so in order."""
        if len(items) == 1:
            return map(compute, items)
        self.pair.fork()
        try:
            with self.pair.second():
                first = compute(items[0])
            others = [compute(item) for item in items[1:]]
        except BaseException:
            with suppress(RuntimeError):  # the error above says more; a recording ends well only if all streams joined
                self.pair.join()
            raise
        self.pair.join()
        return [first, *others]
