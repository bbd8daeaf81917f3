"""Computes on a second stream what paired generators on their way back leave time for (`--paired`).

Their passes alternate between convolutions, which keep the multiprocessors busy, and norms, which keep the memory busy,
and each waits for the one before. On a stream of its own runs what they do not wait for:

- beside the forward pass of the way back the discriminators' scores of the translations, for the generators' losses;
- beside the backward pass the training of the discriminators: what they look at was made before, and their new weights
  are read in the next step;
- beside the rest of the backward pass the gradients of blocks' weights. When that pass is through, the last of them are
  still to come; meanwhile Adam, which waits for memory, updates the other weights where it can (`direct_update.py`).

The second stream waits for the current one in front of each of these (fork), and the current one for it behind the way
back and behind the backward pass (join). By PyTorch's rule the gradients of what ran there are computed there as well,
and autograd waits where they meet the others. What the second stream reads of the current one's memory is held until
the join, see `direction_streams.py` for why: four activations a block and use, and by the caller what the
discriminators look at. What a step makes first on the second stream, such as Adam's moments, is read behind a join. The
numbers are those of one stream, bit for bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor

from cyclegan_fast.kernels.convolution.weight_gradients import Computation, weight_gradients_by
from cyclegan_fast.methods.base import DirectionNetworks, NetworkFunctions
from cyclegan_fast.training.update.direction_streams import StreamPair
from cyclegan_fast.training.update.step_parts import Result

LATE_GRADIENTS = 2
"""of blocks' weights, for which Adam does not wait at first, at the end of a backward pass (`bench.model`, an H200)"""


class SecondStream:
    """Gives the second stream of a pair what can be computed beside a backward pass."""

    def __init__(self, pair: StreamPair) -> None:
        self.pair = pair
        self._weight_gradient: Computation
        self._held: list[tuple[Tensor, ...]] = []
        self._marks: list[Any] = []  # behind each of the things that were computed
        self._gradients: list[int] = []  # what tells the memory of each weight's gradient
        self._is_forked = False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Surround all that may be given to the second stream; behind it that is ready for the current one."""
        try:
            yield
        except BaseException:
            with suppress(RuntimeError):  # the error above says more; a recording ends well only if all streams joined
                self._join()
            raise
        else:
            self._join()
        finally:
            self._held.clear()
            self._marks.clear()
            self._gradients.clear()

    def _join(self) -> None:
        if self._is_forked:  # else the second stream is in no recording, whose stream may not wait for it
            self._is_forked = False
            self.pair.join()

    def compute(self, function: Callable[[], Result]) -> Result:
        """Call a function on the second stream, which waits for what the current one was given so far.

        The result is not ready for the current stream.
        """
        self._is_forked = True
        self.pair.fork()
        with self.pair.second():
            result = function()
        self._marks.append(self.pair.mark())
        return result

    def scoring_beside(self, forward: NetworkFunctions, direction: DirectionNetworks) -> NetworkFunctions:
        """Return the networks, of which the judge computes beside the way back; its scores are ready behind that."""
        judge, back = forward[direction.judge], forward[direction.back]

        def go_back(translation: Tensor) -> Tensor:
            reconstructed = back(translation)
            self._join()
            return reconstructed

        return {**forward, direction.judge: lambda images: self.compute(lambda: judge(images)), direction.back: go_back}

    @contextmanager
    def weight_gradients(self) -> Iterator[None]:
        """Surround a backward pass whose gradients of blocks' weights the second stream computes."""
        with weight_gradients_by(self._gradient_beside) as self._weight_gradient:
            yield

    def _gradient_beside(self, dy: Tensor, padded: Tensor, weight: Tensor) -> Tensor | None:
        self._held.append((dy, padded))
        gradient = self.compute(lambda: self._weight_gradient(dy, padded, weight))
        if gradient is not None:
            self._gradients.append(_memory_of(gradient))
        return gradient

    def join_most(self) -> None:
        """Let the current stream wait for all that was computed but for the last gradients of blocks' weights."""
        late = len(self._late_gradients())
        if len(self._marks) > late:
            self.pair.join_mark(self._marks[-1 - late])

    def is_late(self, gradient: Tensor) -> bool:
        """Tell whether a gradient is one of those that `join_most` left out."""
        return _memory_of(gradient) in self._late_gradients()

    def _late_gradients(self) -> list[int]:
        return self._gradients[max(0, len(self._gradients) - LATE_GRADIENTS) :]


def _memory_of(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
