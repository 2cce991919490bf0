"""What requests of each kind really cost, learned as they end: the model that admission weighs by.

A request's cost is the rows it holds times the seconds it holds them. It is expected as row-steps
(tokens sampled in all, learned per strategy and setting, longer prompts apart from shorter ones)
times the row-seconds that a row-step of that strategy takes under the present load. It knows no
strategy and no HTTP; what a request may cost at most is `Estimate`'s.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TypeVar

from decoders.core.base import DecodeRequest, Estimate

V = TypeVar("V")
KEPT = 1024
"""Settings that are remembered; the one that was not asked for longest is forgotten first."""
MEMORY = 0.98
"""Weight of all that is known at the next request: the last fifty count."""
ENOUGH = 4
"""Requests of one setting before it is relied on rather than on its strategy as a whole."""
STEADY = 4.0
"""Squared deviations of log prompt lengths that the slope is held to zero with."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request will probably cost; never more than it may.

    `generated_tokens` are its row-steps. `row_seconds`: rows times the time they are held, under
    the load of late; None while unknown. `seen`: the like requests that this rests on; 0 means
    that the most it may cost is all that is known.
    """

    generated_tokens: float
    row_seconds: float | None
    seen: int


@dataclass(slots=True)
class Learned:
    """Row-steps over prompt lengths, both as logarithms: a weighted line that forgets."""

    seen: int = 0
    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, prompt: int, steps: int) -> None:
        """One request that ended."""
        x, y = log(max(1, prompt)), log(max(1, steps))
        self.seen += 1
        self.weight = self.weight * MEMORY + 1
        # Means and centred sums, updated as West does, so that nothing large is subtracted.
        dx, dy, share = x - self.x, y - self.y, 1 / self.weight
        self.x += dx * share
        self.y += dy * share
        self.xx = self.xx * MEMORY + dx * (x - self.x)
        self.xy = self.xy * MEMORY + dx * (y - self.y)

    def steps(self, prompt: int) -> float:
        """The row-steps to expect: as often more as less, since the mean is of logarithms."""
        slope = self.xy / (self.xx + STEADY)
        return exp(self.y + slope * (log(max(1, prompt)) - self.x))


@dataclass(slots=True)
class Pace:
    """Row-seconds per row-step, of late."""

    seconds: float = 0.0
    steps: float = 0.0

    def add(self, seconds: float, steps: int) -> None:
        """What one request held and sampled."""
        self.seconds = self.seconds * MEMORY + seconds
        self.steps = self.steps * MEMORY + steps

    @property
    def each(self) -> float | None:
        """None before anything was sampled."""
        return self.seconds / self.steps if self.steps else None


class Costs:
    """Everything learned so far. Not thread-safe: it belongs to the event loop."""

    def __init__(self) -> None:
        self._learned: OrderedDict[Hashable, Learned] = OrderedDict()
        self._paces: OrderedDict[Hashable, Pace] = OrderedDict()

    def expect(self, made: Sequence[DecodeRequest], bound: Estimate) -> Expected:
        """What the requests of one call will cost together; `bound` is the most they may."""
        fine, coarse = keys(made, bound)
        known = next(
            (
                one
                for key, least in ((fine, ENOUGH), (coarse, 1))
                if (one := self._learned.get(key)) is not None and one.seen >= least
            ),
            None,
        )
        most = float(bound.generated_tokens)
        if known is None:
            return Expected(most, None, 0)
        steps = min(most, known.steps(length(made)))
        each = self._paces[kind(made)].each
        return Expected(steps, None if each is None else steps * each, known.seen)

    def learn(
        self, made: Sequence[DecodeRequest], bound: Estimate, steps: int, held: float
    ) -> None:
        """A call that ended by itself: what it sampled, and the row-seconds it held."""
        for key in keys(made, bound):
            _kept(self._learned, key, Learned()).add(length(made), steps)
        _kept(self._paces, kind(made), Pace()).add(held, steps)


def kind(made: Sequence[DecodeRequest]) -> tuple[str, str]:
    """The engine and strategy of a call."""
    return made[0].engine.name, made[0].strategy


def keys(made: Sequence[DecodeRequest], bound: Estimate) -> tuple[Hashable, Hashable]:
    """The setting of a call, and the wider kind that it belongs to.

    The wider one leaves out parameters: some hold what no other request has (an expected answer).
    """
    first = made[0]
    # A cap that nobody asked for is what the prompt leaves of the context: never twice the same.
    cap = first.max_tokens.bit_length()
    wide = (*kind(made), bound.rows, first.sampling.temperature == 0, cap)
    fine = (*wide, first.sampling.temperature, first.options.model_dump_json(), first.budget)
    return fine, wide


def length(made: Sequence[DecodeRequest]) -> int:
    """Tokens of all prompts."""
    return sum(len(one.prompt) for one in made)


def _kept(kept: "OrderedDict[Hashable, V]", key: Hashable, fresh: V) -> V:
    """What is kept under the key, or `fresh`, now kept; the oldest makes room."""
    found = kept.setdefault(key, fresh)
    kept.move_to_end(key)
    if len(kept) > KEPT:
        kept.popitem(last=False)
    return found
