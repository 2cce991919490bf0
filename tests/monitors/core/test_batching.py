"""Batches: what waits when they end is told so, and is not taken for cancelled."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from monitors.core.batching import Batcher


async def test_a_call_that_waits_when_all_ends_fails_and_is_not_cancelled() -> None:
    running, release = threading.Event(), threading.Event()

    def slow(items: Sequence[int]) -> Sequence[int]:
        running.set()
        release.wait(5)
        return items

    batches = Batcher(slow, limit=1)
    first, second = (asyncio.create_task(batches.submit(n)) for n in (1, 2))
    await asyncio.to_thread(running.wait, 5)
    closing = asyncio.create_task(batches.close())
    await asyncio.sleep(0)
    release.set()
    await closing
    assert await first == 1
    with pytest.raises(RuntimeError, match="stopped"):
        await second
