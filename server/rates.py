"""Requests and tokens per minute, per key: token buckets that refill continuously."""

from collections.abc import Callable
from dataclasses import dataclass

from decoders.core.base import LimitError
from server.auth import Key

Clock = Callable[[], float]


class Bucket:
    """Holds at most `capacity`, a minute's worth; may go into debt, which must be paid back."""

    def __init__(self, capacity: int, clock: Clock) -> None:
        self.capacity = capacity
        self._clock = clock
        self._level = float(capacity)
        self._at = clock()

    def _fill(self) -> None:
        now = self._clock()
        refilled = self._level + (now - self._at) * self.capacity / 60
        self._level, self._at = min(float(self.capacity), refilled), now

    def wait(self, amount: float) -> float:
        """Seconds until `amount` is there; 0 if it is now."""
        self._fill()
        return max(0.0, amount - self._level) * 60 / self.capacity

    def take(self, amount: float) -> None:
        """Takes `amount`; a negative one gives back."""
        self._fill()
        self._level = min(float(self.capacity), self._level - amount)


@dataclass(slots=True)
class Reservation:
    """What one request took from its key's buckets."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    reserved: int = 0

    def settle(self, used: int) -> None:
        """Books the tokens really sampled instead of the estimate; the first call counts."""
        if self.tokens is not None:
            self.tokens.take(used - self.reserved)
        self.requests = self.tokens = None

    def undo(self) -> None:
        """Gives everything back: the request never ran."""
        if self.requests is not None:
            self.requests.take(-1)
        self.settle(0)


class Rates:
    """The buckets of all keys, made when a key first asks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def _bucket(self, key: Key, what: str, capacity: int | None) -> Bucket | None:
        if capacity is None:
            return None
        if (key.name, what) not in self._buckets:
            self._buckets[key.name, what] = Bucket(capacity, self._clock)
        return self._buckets[key.name, what]

    def take(self, key: Key | None, tokens: int) -> Reservation:
        """Reserves one request and `tokens` (at most a minute's worth); LimitError 429 if spent."""
        if key is None:
            return Reservation()
        requests = self._bucket(key, "requests", key.rate.requests_per_minute)
        sampled = self._bucket(key, "tokens", key.rate.tokens_per_minute)
        reserved = min(tokens, sampled.capacity) if sampled else 0
        for bucket, amount, what in ((requests, 1, "requests"), (sampled, reserved, "tokens")):
            if bucket is not None and (wait := bucket.wait(amount)):
                message = f"this key's {bucket.capacity} {what} per minute are spent"
                raise LimitError(message, retry_after=wait, status=429)
        if requests:
            requests.take(1)
        if sampled:
            sampled.take(reserved)
        return Reservation(requests, sampled, reserved)
