"""Waiting for what tells nobody that it has happened: a number to look at, not an event."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Looks until it holds; TimeoutError after that time, which a slow machine may need."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
