"""Concurrent calls gathered into batches for a function that runs in one worker thread.

Calls that arrive while a batch runs form the next one: nothing waits for a timer. It does not know
what the items are, and the function must give each the result it would have had alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread() -> ThreadPoolExecutor:
    """A worker thread, which begins with its first call."""
    return ThreadPoolExecutor(1, thread_name_prefix="monitor")


class Batcher(Generic[Item, Result]):
    """Awaits of `submit` become calls of `function` with at most `limit` items."""

    def __init__(
        self, function: Callable[[Sequence[Item]], Sequence[Result]], limit: int = 64
    ) -> None:
        self._function = function
        self._limit = limit
        self._thread = thread()
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The function's result for `item`; its exception, if the batch failed."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await answer

    async def close(self) -> None:
        """Lets the running batch end and refuses what waits; it may be used again then."""
        for _, answer in self._waiting:
            # Not cancelled: that would look as if the caller had been, and end its request unheard.
            if not answer.done():
                answer.set_exception(RuntimeError("stopped while a call was waiting"))
        self._waiting.clear()
        if self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False)
        self._thread = thread()

    async def _work(self) -> None:
        while batch := self._next():
            await self._run(batch)

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """The oldest calls that still have someone waiting for them."""
        alive = [entry for entry in self._waiting if not entry[1].done()]
        self._waiting = alive[self._limit :]
        return alive[: self._limit]

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        loop = asyncio.get_running_loop()
        items = [item for item, _ in batch]
        try:
            results = await loop.run_in_executor(self._thread, self._function, items)
        except Exception as error:
            # Each caller gets its own, since a traceback grows with every raise.
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
            return
        for (_, answer), result in zip(batch, results, strict=True):
            if not answer.done():
                answer.set_result(result)
