"""Lets requests in, makes them wait or refuses them, by the rows they may decode at once.

First come, first served: a wide request at the head of the queue is not overtaken, so it never
starves. Capacity is the server's (`limits.rows`), not one engine's; the queue is bounded by number
and by the time that the work in it will take. It knows no strategy and no HTTP.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from decoders.core.base import Estimate, LimitError, RequestError
from server.auth import Key
from server.rates import Clock, Rates, Reservation
from server.settings.spec import Limits

SHORTEST, LONGEST = 1.0, 60.0
"""Bounds of what a refused client is told to wait, in seconds."""


def ending() -> LimitError:
    """What everybody is told once the server shuts down."""
    return LimitError("the server is shutting down", SHORTEST)


def nobody(seconds: float) -> None:
    """Who hears how long a request waited where nobody asked."""


@dataclass(slots=True)
class Ticket:
    """A request that was let in."""

    rows: int
    _reservation: Reservation

    def settle(self, generated_tokens: int) -> None:
        """Books what was really sampled against the key's rate; unsettled, the estimate stands."""
        self._reservation.settle(generated_tokens)


@dataclass(eq=False, slots=True)
class Waiting:
    """A request in the queue; `row_seconds` is its expected cost, 0 while nothing is known."""

    rows: int
    row_seconds: float
    turn: asyncio.Future[None]


class Admission:
    """The one door. Not thread-safe: it belongs to the event loop."""

    def __init__(self, limits: Limits, *, clock: Clock = time.monotonic) -> None:
        self.limits = limits
        self.rows = 0
        self.running = 0
        self.draining = False
        self._clock = clock
        self._rates = Rates(clock)
        self._queue: deque[Waiting] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._mean = SHORTEST

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    @property
    def wait(self) -> float:
        """Seconds until the queue's work is let in, as far as costs are known."""
        return sum(one.row_seconds for one in self._queue) / self.limits.rows

    def beside(self, rows: int) -> int:
        """The rows that others will have in use when a request of so many is let in."""
        return max(0, min(self.rows, self.limits.rows - rows))

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
        self, estimate: Estimate, *, key: Key | None = None, deadline: float | None = None,
        row_seconds: float | None = None, waited: Callable[[float], None] = nobody,
    ) -> AsyncIterator[Ticket]:  # fmt: skip
        """Holds the estimated rows while it is open; `deadline` is on the event loop's clock.

        `row_seconds` is what it is expected to cost, rows times seconds; None is unknown. `waited`
        is told its seconds in the queue, let in or not, unless it is refused at once.
        Raises RequestError for a request wider than `limits.branches`, LimitError 429 for a spent
        rate, LimitError 503 when draining, when the queue is full or too long a wait, or for a
        deadline that passes in the queue.
        """
        rows = self.width(estimate)
        if self.draining:
            raise ending()
        reservation = self._rates.take(key, estimate.generated_tokens)
        try:
            await self._enter(rows, row_seconds or 0.0, deadline, waited)
        except BaseException:
            reservation.undo()
            raise
        started = self._clock()
        try:
            yield Ticket(rows, reservation)
        finally:
            self._mean += 0.1 * (self._clock() - started - self._mean)
            self._leave(rows)

    async def drain(self, seconds: float) -> bool:
        """Refuses everything new and what waits; True if all running ones ended in time."""
        self.draining = True
        for one in self._queue:
            if not one.turn.done():
                one.turn.set_exception(ending())
        self._queue.clear()
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _enter(
        self, rows: int, row_seconds: float, deadline: float | None,
        waited: Callable[[float], None],
    ) -> None:  # fmt: skip
        if not self._queue and self.rows + rows <= self.limits.rows:
            self._hold(rows)
            waited(0.0)
            return
        self._refuse_if_full()
        began, turn = self._clock(), asyncio.get_running_loop().create_future()
        try:
            await self._wait(Waiting(rows, row_seconds, turn), deadline)
        finally:
            waited(self._clock() - began)

    def _refuse_if_full(self) -> None:
        if len(self._queue) >= self.limits.queue:
            raise LimitError("the queue is full", self._retry_after())
        most = self.limits.wait_ms
        if most is not None and self.wait > most / 1000:
            raise LimitError("the queue would take too long", self._retry_after())

    async def _wait(self, entry: Waiting, deadline: float | None) -> None:
        self._queue.append(entry)
        try:
            async with asyncio.timeout_at(deadline):
                await entry.turn
        except BaseException as fault:
            self._give_up(entry)
            if isinstance(fault, TimeoutError):
                message = "the deadline passed while the request waited in the queue"
                raise LimitError(message, self._retry_after()) from None
            raise

    def _give_up(self, entry: Waiting) -> None:
        """Leaves the queue; a turn that came in the same moment is passed on."""
        turn = entry.turn
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._leave(entry.rows)
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
        while self._queue and self.rows + self._queue[0].rows <= self.limits.rows:
            one = self._queue.popleft()
            if not one.turn.done():
                self._hold(one.rows)
                one.turn.set_result(None)

    def _retry_after(self) -> float:
        """About when the queue will have moved: by its work, or by how long requests lasted lately.

        The second where costs are not known yet; both are kept within bounds.
        """
        ahead = sum(one.rows for one in self._queue) + self.rows
        likely = self.wait or self._mean * ahead / self.limits.rows
        return min(LONGEST, max(SHORTEST, likely))
