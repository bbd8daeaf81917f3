"""Translates images that several requests sent, together where they have one size."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cyclegan_fast.images.pixel_type import SampleArray
from cyclegan_fast.system.errors import UserError

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class BatchedResult:
    """Holds the translation of one image, [H, W, C], and how it came about.

    batch: the number of images that were translated at once.
    queue_s: seconds from the request to the begin of the translation.
    compute_s: seconds that the translation of the batch took.
    """

    samples: SampleArray
    batch: int
    queue_s: float
    compute_s: float


@dataclass
class _Pending:
    samples: SampleArray
    result: asyncio.Future[BatchedResult]
    arrived_s: float = field(default_factory=time.monotonic)


class Batcher:
    """Translates images in batches of one shape, one batch at a time; used within one event loop.

    An image waits for others of its shape, `wait_s` seconds at most, unless there are enough already; while a batch is
    translated, the next one gathers. A shape whose first image has waited so long is next, the one that came first of
    several, so that a stream of full batches keeps nobody waiting; then one of which there are enough. What nobody
    waits for any more is left out. An image that cannot be translated does not fail the others of its batch: each is
    then tried by itself.

    Args:
        translate: samples [N, H, W, C] -> samples; called in one thread.
        most_at_once: tells how many images of height and width share a batch, at most.
        wait_s: how long an image waits while nothing is translated.
        name: of the thread.
    """

    def __init__(
        self,
        translate: Callable[[SampleArray], SampleArray],
        most_at_once: Callable[[int, int], int],
        wait_s: float,
        name: str = "translating",
    ) -> None:
        self._translate = translate
        self._most_at_once = most_at_once
        self._wait_s = wait_s
        self._queues: dict[_Shape, deque[_Pending]] = {}
        self._changed = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    async def __call__(self, samples: SampleArray) -> BatchedResult:
        """Translate one image [H, W, C]. Raises what its translation raised, and CancelledError behind `close`."""
        if self._is_closed:
            raise asyncio.CancelledError
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        pending = _Pending(samples, asyncio.get_running_loop().create_future())
        self._queues.setdefault(samples.shape, deque()).append(pending)
        self._changed.set()
        return await pending.result

    @property
    def waiting(self) -> int:
        """Return how many images wait to be translated."""
        return sum(map(len, self._queues.values()))

    async def close(self) -> None:
        """End once the batch that is being translated is through, which is answered.

        Images that still wait are not translated: whoever awaits one gets asyncio.CancelledError at once.
        """
        self._is_closed = True
        for pending in [each for queue in self._queues.values() for each in queue]:
            pending.result.cancel()
        self._queues.clear()
        self._changed.set()
        if self._running is not None:
            await self._running
        await asyncio.to_thread(self._pool.shutdown)

    async def _run(self) -> None:
        while batch := await self._next():
            await self._compute(batch)

    async def _next(self) -> list[_Pending]:
        """Return the images of the next batch, once one is full or its first image has waited long enough.

        Returns none when it is closed.
        """
        while not self._is_closed:
            self._changed.clear()
            self._forget_cancelled()
            if not self._queues:
                await self._changed.wait()
                continue
            oldest, *others = sorted(self._queues, key=lambda shape: self._queues[shape][0].arrived_s)
            left_s = self._queues[oldest][0].arrived_s + self._wait_s - time.monotonic()
            ready = [oldest] if left_s <= 0 else list(filter(self._is_full, (oldest, *others)))
            if ready:
                return self._taken(ready[0])
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
        return []

    def _is_full(self, shape: _Shape) -> bool:
        return len(self._queues[shape]) >= self._most_at_once(*shape[:2])

    def _taken(self, shape: _Shape) -> list[_Pending]:
        """Take the images of the next batch of a shape out of its queue."""
        queue = self._queues[shape]
        batch = [queue.popleft() for _ in range(min(self._most_at_once(*shape[:2]), len(queue)))]
        if not queue:
            del self._queues[shape]
        return batch

    def _forget_cancelled(self) -> None:
        for shape, queue in list(self._queues.items()):
            alive = deque(pending for pending in queue if not pending.result.done())
            if alive:
                self._queues[shape] = alive
            else:
                del self._queues[shape]

    async def _compute(self, batch: list[_Pending]) -> None:
        begun_s = time.monotonic()
        try:
            translated = await self._in_thread([pending.samples for pending in batch])
            translations = list(zip(batch, translated, strict=True))  # in here: nothing may end the loop over batches
        except UserError as error:
            if len(batch) > 1:
                for pending in batch:
                    if not pending.result.done():
                        await self._compute([pending])
                return
            _fail(batch, error)
        except Exception as error:
            _fail(batch, error)
        else:
            ended_s = time.monotonic()
            for pending, samples in translations:
                if not pending.result.done():
                    queue_s = begun_s - pending.arrived_s
                    pending.result.set_result(BatchedResult(samples, len(batch), queue_s, ended_s - begun_s))

    async def _in_thread(self, images: list[SampleArray]) -> SampleArray:
        stacked = np.stack(images)
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(self._translate, stacked))


def _fail(batch: list[_Pending], error: Exception) -> None:
    for pending in batch:
        if not pending.result.done():
            pending.result.set_exception(error)
