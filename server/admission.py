"""Lets requests in, makes them wait or refuses them, by the rows they may decode at once.

First come, first served: a wide request at the head of the queue is not overtaken, so it never
starves. Capacity is the server's (`limits.rows`), not one engine's. It knows no strategy and no
HTTP.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from decoders.core.base import Estimate, LimitError, RequestError
from server.auth import Key
from server.rates import Clock, Rates, Reservation
from server.settings.spec import Limits

SHORTEST, LONGEST = 1.0, 60.0
"""Bounds of what a refused client is told to wait, in seconds."""


@dataclass(slots=True)
class Ticket:
    """A request that was let in; `waited` is its time in the queue, in seconds."""

    rows: int
    waited: float
    _reservation: Reservation

    def settle(self, generated_tokens: int) -> None:
        """Books what was really sampled against the key's rate; unsettled, the estimate stands."""
        self._reservation.settle(generated_tokens)


class Admission:
    """The one door. Not thread-safe: it belongs to the event loop."""

    def __init__(self, limits: Limits, *, clock: Clock = time.monotonic) -> None:
        self.limits = limits
        self.rows = 0
        self.running = 0
        self.draining = False
        self._clock = clock
        self._rates = Rates(clock)
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._mean = SHORTEST

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def width(self, estimate: Estimate) -> int:
        """The rows that a request needs; RequestError for more than one request may have."""
        if estimate.rows > self.limits.branches:
            raise RequestError(
                f"the request may decode {estimate.rows} sequences at once; "
                f"the server allows {self.limits.branches}",
                param="decoding.params",
                code="too_many_branches",
            )
        return max(1, estimate.rows)

    @asynccontextmanager
    async def admit(
        self, estimate: Estimate, *, key: Key | None = None, deadline: float | None = None
    ) -> AsyncIterator[Ticket]:
        """Holds the estimated rows while it is open; `deadline` is on the event loop's clock.

        Raises RequestError for a request wider than `limits.branches`, LimitError 429 for a spent
        rate, LimitError 503 when draining, when the queue is full, or for a deadline that passes
        in the queue.
        """
        rows = self.width(estimate)
        if self.draining:
            raise LimitError("the server is shutting down", SHORTEST)
        reservation = self._rates.take(key, estimate.generated_tokens)
        arrived = self._clock()
        try:
            await self._enter(rows, deadline)
        except BaseException:
            reservation.undo()
            raise
        started = self._clock()
        try:
            yield Ticket(rows, started - arrived, reservation)
        finally:
            self._mean += 0.1 * (self._clock() - started - self._mean)
            self._leave(rows)

    async def drain(self, seconds: float) -> bool:
        """Refuses everything new and what waits; True if all running ones ended in time."""
        self.draining = True
        for _, turn in self._queue:
            if not turn.done():
                turn.set_exception(LimitError("the server is shutting down", SHORTEST))
        self._queue.clear()
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _enter(self, rows: int, deadline: float | None) -> None:
        if self._queue or self.rows + rows > self.limits.rows:
            await self._wait(rows, deadline)
        else:
            self._hold(rows)

    async def _wait(self, rows: int, deadline: float | None) -> None:
        if len(self._queue) >= self.limits.queue:
            raise LimitError("the queue is full", self._retry_after())
        turn = asyncio.get_running_loop().create_future()
        entry = (rows, turn)
        self._queue.append(entry)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException as fault:
            self._give_up(entry)
            if isinstance(fault, TimeoutError):
                message = "the deadline passed while the request waited in the queue"
                raise LimitError(message, self._retry_after()) from None
            raise

    def _give_up(self, entry: tuple[int, asyncio.Future[None]]) -> None:
        """Leaves the queue; a turn that came in the same moment is passed on."""
        rows, turn = entry
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._leave(rows)
        elif entry in self._queue:
            self._queue.remove(entry)
            self._admit_waiting()

    def _hold(self, rows: int) -> None:
        self.rows += rows
        self.running += 1
        self._idle.clear()

    def _leave(self, rows: int) -> None:
        self.rows -= rows
        self.running -= 1
        self._admit_waiting()
        if not self.running:
            self._idle.set()

    def _admit_waiting(self) -> None:
        while self._queue and self.rows + self._queue[0][0] <= self.limits.rows:
            rows, turn = self._queue.popleft()
            if not turn.done():
                self._hold(rows)
                turn.set_result(None)

    def _retry_after(self) -> float:
        """About when the queue will have moved, from how long requests have lasted lately."""
        ahead = sum(rows for rows, _ in self._queue) + self.rows
        return min(LONGEST, max(SHORTEST, self._mean * ahead / self.limits.rows))
