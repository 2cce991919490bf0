"""The order in which finished paths are counted, free of real timing.

Paths run side by side and finish whenever the machine lets them. Both orders take what happens in
any interleaving and release ballots in one order that depends on the paths alone.
"""

import heapq
import math
from collections.abc import Collection, Iterable
from typing import Protocol

from decoders.core.voting.ballots import Ballot


class Order(Protocol):
    """Takes events as they happen, and returns the ballots that each event releases."""

    def progress(self, index: int, tokens: int) -> list[Ballot]:
        """Path `index` has generated `tokens` tokens in all; it may end right there."""
        ...

    def finish(self, ballot: Ballot) -> list[Ballot]:
        """A path has ended, with `ballot.tokens` tokens in all."""
        ...

    def drain(self) -> list[Ballot]:
        """Nothing more will come: what has finished is released, in order."""
        ...


class Paths:
    """The paths still running and how many tokens each has; raises ValueError for a wrong event.

    A path that shrinks, or ends before where it was, would undo a release, so it is an error.
    """

    def __init__(self, paths: Iterable[int]) -> None:
        self._reached = dict.fromkeys(paths, 0)

    def __bool__(self) -> bool:
        return bool(self._reached)

    def move(self, index: int, tokens: int) -> None:
        """Path `index` has `tokens` tokens now."""
        if index not in self._reached:
            raise ValueError(f"path {index} is not running")
        if tokens < self._reached[index]:
            raise ValueError(f"path {index} went back from {self._reached[index]} to {tokens}")
        self._reached[index] = tokens

    def end(self, index: int, tokens: int) -> None:
        """Path `index` ends with `tokens` tokens."""
        self.move(index, tokens)
        del self._reached[index]

    def clear(self) -> None:
        """Take every path as ended."""
        self._reached.clear()

    def frontier(self) -> tuple[float, float]:
        """The earliest (tokens, index) at which a running path may still end."""
        running = ((tokens, index) for index, tokens in self._reached.items())
        return min(running, default=(math.inf, math.inf))


class VirtualOrder:
    """Releases by (token count, index), as if all paths ran in step.

    A path that ended with t tokens is released once no running path can come before it: each has
    t tokens already, and more than t if its index is smaller. So the released ballots are always
    a prefix of one fixed sequence, and real timing only decides when a ballot is released.
    """

    def __init__(self, paths: Iterable[int]) -> None:
        self._running = Paths(paths)
        self._waiting: list[tuple[int, int, Ballot]] = []

    def progress(self, index: int, tokens: int) -> list[Ballot]:
        """Note how far a path is; returns what that releases."""
        self._running.move(index, tokens)
        return self._release()

    def finish(self, ballot: Ballot) -> list[Ballot]:
        """Take in an ended path; returns what that releases."""
        self._running.end(ballot.index, ballot.tokens)
        heapq.heappush(self._waiting, (ballot.tokens, ballot.index, ballot))
        return self._release()

    def drain(self) -> list[Ballot]:
        """Release all that has ended: nothing more will come."""
        self._running.clear()
        return self._release()

    def _release(self) -> list[Ballot]:
        if not self._waiting:
            return []  # The usual case, once per token of every path.
        frontier, released = self._running.frontier(), []
        while self._waiting and self._waiting[0][:2] < frontier:
            released.append(heapq.heappop(self._waiting)[2])
        return released


class IndexOrder:
    """Releases by index: a path waits for all with smaller ones.

    For a stop that judges a sample of the paths: short paths end first, so any order by length
    would judge a biased sample.
    """

    def __init__(self, paths: Collection[int]) -> None:
        self._running = Paths(paths)
        self._queue = sorted(paths, reverse=True)
        self._waiting: dict[int, Ballot] = {}

    def progress(self, index: int, tokens: int) -> list[Ballot]:
        """Check the event; no progress releases anything here."""
        self._running.move(index, tokens)
        return []

    def finish(self, ballot: Ballot) -> list[Ballot]:
        """Take in an ended path; returns what that releases."""
        self._running.end(ballot.index, ballot.tokens)
        self._waiting[ballot.index] = ballot
        released = []
        while self._queue and self._queue[-1] in self._waiting:
            released.append(self._waiting.pop(self._queue.pop()))
        return released

    def drain(self) -> list[Ballot]:
        """Release all that has ended: nothing more will come."""
        self._running.clear()
        released = [self._waiting[index] for index in sorted(self._waiting)]
        self._waiting.clear()
        return released
