"""Structured concurrency for decoders: several token sources driven side by side.

Everything that a scope starts has ended when it is left, by whatever way. It knows no budget and
no engine.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T]):
    """Drives every source in a task of its own; iterating gives `(index, item)` as they come.

    `(index, None)` says that a source has ended. An exception of a source is raised here, at the
    moment it happens. Leaving the context cancels what still runs and waits for it.
    """

    def __init__(self, sources: Sequence[AsyncGenerator[T, None]]) -> None:
        """Takes ownership of the sources; nothing runs before the context is entered."""
        self._sources = sources
        self._moments: asyncio.Queue[tuple[int, T | None, BaseException | None]] = asyncio.Queue()
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        for index, source in enumerate(self._sources):
            self._tasks[index] = asyncio.create_task(self._drive(index, source))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _drive(self, index: int, source: AsyncGenerator[T, None]) -> None:
        fault: BaseException | None = None
        try:
            async for item in source:
                self._moments.put_nowait((index, item, None))
        except Exception as caught:
            fault = caught
        finally:
            await source.aclose()
        self._moments.put_nowait((index, None, fault))

    def cancel(self, index: int) -> None:
        """Ends one source; no further moment of it is given."""
        self._tasks[index].cancel()

    @property
    def running(self) -> int:
        """How many sources have neither ended nor been cancelled."""
        return sum(not task.done() and not task.cancelling() for task in self._tasks.values())

    async def __aiter__(self) -> AsyncIterator[tuple[int, T | None]]:
        open_sources = set(self._tasks)
        while open_sources:
            open_sources -= {i for i, task in self._tasks.items() if task.cancelling()}
            if not open_sources:
                return
            index, item, fault = await self._moments.get()
            if fault is not None:
                raise fault
            if index not in open_sources:
                continue
            if item is None:
                open_sources.discard(index)
            yield index, item


class Ahead(Generic[T, R]):
    """Reads a source ahead and makes a call for each item beside it; gives (item, result) in order.

    Calls overlap, and begin for the `limit` oldest items that are not done with, so with a limit of
    one never before the item ahead has been accepted. An exception of the source or of a call is
    raised when its item's turn has come. Leaving the context cancels everything and waits for it.
    """

    def __init__(
        self,
        source: AsyncGenerator[T, None],
        call: Callable[[T], Coroutine[Any, Any, R]],
        limit: int,
    ) -> None:
        """Takes ownership of the source; nothing runs before the context is entered."""
        self._source, self._call = source, call
        self._room = asyncio.Semaphore(limit)
        self._turns: asyncio.Queue[tuple[T, asyncio.Task[R]] | Exception | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        self._tasks.append(asyncio.create_task(self._read()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._source.aclose()  # a task cancelled before its first step never saw it

    async def _read(self) -> None:
        fault: Exception | None = None
        try:
            async for item in self._source:
                task = asyncio.create_task(self._called(item))
                self._tasks.append(task)
                self._turns.put_nowait((item, task))
        except Exception as caught:
            fault = caught
        finally:
            await self._source.aclose()
        self._turns.put_nowait(fault)

    async def _called(self, item: T) -> R:
        await self._room.acquire()
        return await self._call(item)

    async def __aiter__(self) -> AsyncIterator[tuple[T, R]]:
        while (turn := await self._turns.get()) is not None:
            if isinstance(turn, Exception):
                raise turn
            item, task = turn
            yield item, await task
            # Not when the call ends: the next one could begin before its result has been seen.
            self._room.release()


async def in_turn(
    source: AsyncGenerator[T, None], call: Callable[[T], Coroutine[Any, Any, R]]
) -> AsyncGenerator[tuple[T, R], None]:
    """What `Ahead` gives, with nothing read while a call is under way."""
    async with aclosing(source):
        async for item in source:
            yield item, await call(item)
