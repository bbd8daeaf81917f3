"""Batcher: which images are translated together, and next; what becomes of them when it ends."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from cyclegan_fast.images.pixel_type import SampleArray
from export.serving.batching import Batcher
from tests.export.serving.service import negative, picture

SMALL, WIDE = picture(8, 8), picture(8, 12)


def run(steps: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await steps()

    asyncio.run(bounded())


def test_a_full_batch_does_not_wait_for_an_older_image_of_another_shape() -> None:
    async def steps() -> None:
        batcher = Batcher(negative, lambda height, width: 2, wait_s=60)
        lonely = asyncio.create_task(batcher(SMALL))
        await asyncio.sleep(0)
        results = await asyncio.gather(batcher(WIDE), batcher(WIDE))
        assert [result.batch for result in results] == [2, 2]
        assert np.array_equal(results[0].samples, 255 - WIDE)
        assert not lonely.done()
        other = asyncio.create_task(batcher(SMALL))
        assert (await lonely).batch == (await other).batch == 2
        await batcher.close()

    run(steps)


def test_full_batches_keep_no_image_waiting_for_longer_than_was_said() -> None:
    shapes: list[tuple[int, ...]] = []

    def watched(samples: SampleArray) -> SampleArray:
        shapes.append(samples.shape)
        return negative(samples)

    async def steps() -> None:
        batcher = Batcher(watched, lambda height, width: 2, wait_s=0)
        lonely = batcher(SMALL)
        await asyncio.gather(lonely, *(batcher(WIDE) for _ in range(6)))
        await batcher.close()

    run(steps)
    assert shapes == [(1, 8, 8, 3), *[(2, 8, 12, 3)] * 3]


def test_at_the_end_what_is_translated_is_answered_and_what_waits_is_cancelled() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(samples: SampleArray) -> SampleArray:
        begun.set()
        assert may_end.wait(20)
        return negative(samples)

    async def steps() -> None:
        batcher = Batcher(slow, lambda height, width: 1, wait_s=0)
        translated = asyncio.create_task(batcher(SMALL))
        assert await asyncio.to_thread(begun.wait, 20)
        waiting = asyncio.create_task(batcher(WIDE))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await batcher(WIDE)
        assert not closing.done()
        may_end.set()
        assert np.array_equal((await translated).samples, 255 - SMALL)
        await closing
        assert batcher.waiting == 0

    run(steps)
