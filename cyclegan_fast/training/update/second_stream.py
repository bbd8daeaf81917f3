"""Computes on a second stream what the backward pass of paired generators leaves time for (`--paired`).

The pass alternates between convolutions, which keep the multiprocessors busy, and norms, which keep the memory busy,
and each waits for the one before. Nothing in it waits for the gradients of blocks' weights, nor for the discriminators:
what these look at is made before, and their new weights are read in the next step. On a stream of their own they fill
what the pass leaves idle: first the discriminators, while it goes the way back, and then gradients of weights.

The second stream waits for the current one in front of each of these (fork), and the current one for it behind the
whole pass (join). What they read of the current stream's memory is held until then, see `direction_streams.py` for why:
four activations a block, and by the caller what the discriminators look at. The numbers are those of one stream, bit
for bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from torch import Tensor

from cyclegan_fast.kernels.convolution.weight_gradients import Computation, weight_gradients_by
from cyclegan_fast.training.update.direction_streams import StreamPair


class SecondStream:
    """Gives the second stream of a pair what can be computed beside a backward pass."""

    def __init__(self, pair: StreamPair) -> None:
        self.pair = pair
        self._weight_gradient: Computation
        self._held: list[tuple[Tensor, ...]] = []
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

    def _join(self) -> None:
        if self._is_forked:  # else the second stream is in no recording, whose stream may not wait for it
            self._is_forked = False
            self.pair.join()

    def compute(self, function: Callable[[], None]) -> None:
        """Call a function on the second stream, which waits for what the current one was given so far."""
        self._is_forked = True
        self.pair.fork()
        with self.pair.second():
            function()

    @contextmanager
    def weight_gradients(self) -> Iterator[None]:
        """Surround a backward pass whose gradients of blocks' weights the second stream computes."""
        with weight_gradients_by(self._gradient_beside) as self._weight_gradient:
            yield

    def _gradient_beside(self, dy: Tensor, padded: Tensor, weight: Tensor) -> Tensor | None:
        self._held.append((dy, padded))
        found: list[Tensor | None] = []
        self.compute(lambda: found.append(self._weight_gradient(dy, padded, weight)))
        return found[0]
