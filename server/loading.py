"""Waiting for an engine that loads: not past a request's deadline, nor into the server's end.

It does not know what is loaded, and it ends no load: others may wait for the same one.
"""

import asyncio
from collections.abc import Awaitable, Callable

from decoders.core.base import LimitError
from server.admission import ending

AGAIN = 5.0
"""Seconds after which a load that took longer than a deadline may have ended."""


class Loading:
    """Those who wait."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._over = False

    def end(self) -> None:
        """Sends them away, and whoever comes from now on."""
        self._over = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(0.0)

    async def wait(self, load: Callable[[], Awaitable[None]], deadline: float | None) -> None:
        """Returns once it is loaded.

        Raises LimitError 503 if `deadline`, on the event loop's clock, passes before or the server
        ends, and what `load` raises.
        """
        if self._over:
            raise ending()
        try:
            async with asyncio.timeout_at(deadline) as wait:
                self._waits.add(wait)
                try:
                    await load()
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> LimitError:
        late = "the deadline passed while the model's engine was loading"
        return ending() if self._over else LimitError(late, AGAIN)
