"""Computes the gradients of residual blocks' weights on a second stream, beside the rest of the backward pass.

A backward pass alternates between convolutions, which keep the multiprocessors busy, and norms, which keep the memory
busy, and each waits for the one before. Nothing in it waits for the gradients of weights: on a stream of their own they
fill what norms leave idle.

The second stream waits for the current one in front of each gradient (fork), and the current one for it behind the
whole pass (join). What a gradient is computed from is held until then, see `direction_streams.py` for why, which costs
four activations a block. The sums are those of one stream, bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import Tensor

from cyclegan_fast.kernels.convolution.weight_gradients import Computation, weight_gradients_by
from cyclegan_fast.training.update.direction_streams import StreamPair


class WeightGradientStream:
    """Gives gradients of weights the second stream of a pair."""

    def __init__(self, pair: StreamPair) -> None:
        self.pair = pair
        self._held: list[tuple[Tensor, ...]] = []
        self._function: Computation

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Surround a backward pass; behind it all gradients are ready for the current stream."""
        try:
            with weight_gradients_by(self._compute) as self._function:
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
        if self._held:  # else the second stream is in no recording, whose stream may not wait for it
            self.pair.join()

    def _compute(self, dy: Tensor, padded: Tensor, weight: Tensor) -> Tensor | None:
        self._held.append((dy, padded))
        self.pair.fork()
        with self.pair.second():
            return self._function(dy, padded, weight)
