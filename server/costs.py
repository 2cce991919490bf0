"""What requests of each kind really cost, learned as they end: the model that admission weighs by.

A request's cost is the rows it holds times the seconds it holds them. It is expected as row-steps
(tokens sampled in all, learned per strategy and setting, longer prompts apart from shorter ones)
times the row-seconds that a row-step of that strategy takes beside so many rows of others as are in
use (learned by their number's magnitude). It is expected twice: as the like of it mostly costs, for
whoever asks what one request will cost, and as it costs on average, for sums: answers mostly have
long tails, so the second is mostly the larger. It knows no strategy and no HTTP; what a request may
cost at most is `Estimate`'s.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from math import exp, log
from statistics import fmean
from typing import TypeVar

from decoders.core.base import DecodeRequest, Estimate

V = TypeVar("V")
KEPT = 1024
"""Settings that are remembered; the one that was not asked for longest is forgotten first."""
RECENT = 64
"""Requests of one setting that are learned from, the last ones."""
MEMORY = 0.98
"""Weight of the pace so far at the next request: the last fifty count."""
ENOUGH = 4
"""Requests of one setting before it is relied on rather than on its strategy as a whole."""
STEADY = 1.0
"""Squared deviations of log prompt lengths that the slope is held to zero with."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request will probably cost; never more than it may.

    `generated_tokens` are its row-steps, `row_seconds` rows times the time they are held, under the
    load of late; both as like requests mostly cost. `mean_row_seconds`: as they cost on average.
    Seconds are None while unknown. `seen`: the like requests that this rests on; 0 means that the
    most it may cost is all that is known.
    """

    generated_tokens: float
    row_seconds: float | None
    mean_row_seconds: float | None
    seen: int


@dataclass(slots=True)
class Learned:
    """Row-steps over prompt lengths, both as logarithms: a line through the latest requests."""

    seen: int = 0
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    _slope: float = 0.0
    _typical: float = 0.0
    _mean: float = 0.0
    _fitted: int = 0

    def add(self, prompt: int, steps: int) -> None:
        """One request that ended."""
        self.seen += 1
        self.recent.append((log(max(1, prompt)), log(max(1, steps))))

    def steps(self, prompt: int) -> float:
        """The row-steps to expect: half of like requests are as near to it as half can be."""
        self._fit()
        return self._of(prompt) * self._typical

    def mean(self, prompt: int) -> float:
        """Row-steps on average."""
        self._fit()
        return self._of(prompt) * self._mean

    def _of(self, prompt: int) -> float:
        """What a prompt's length does."""
        return exp(self._slope * log(max(1, prompt)))

    def _fit(self) -> None:
        """A line through all, then one through the half that lies closest together."""
        if self._fitted == self.seen:
            return
        self._slope = slope(self.recent)
        rest = self._rest()
        low, high = closest_half(sorted(rest))
        near = [one for one, r in zip(self.recent, rest, strict=True) if low <= r <= high]
        self._slope = slope(near)
        rest = self._rest()
        self._typical, self._mean, self._fitted = typical(sorted(rest)), fmean(rest), self.seen

    def _rest(self) -> list[float]:
        """Row-steps of the latest requests without what their prompts' lengths do."""
        return [exp(steps - self._slope * prompt) for prompt, steps in self.recent]


@dataclass(slots=True)
class Pace:
    """Row-seconds per row-step, of late."""

    seconds: float = 0.0
    steps: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT // 2))

    def add(self, seconds: float, steps: int) -> None:
        """What one request held and sampled."""
        self.seconds = self.seconds * MEMORY + seconds
        self.steps = self.steps * MEMORY + steps
        if seconds > 0 and steps:
            self.recent.append(seconds / steps)

    @property
    def mean(self) -> float:
        """On average over all steps, as sums go."""
        return self.seconds / self.steps

    @property
    def typical(self) -> float:
        """As it mostly is for one request: one that ran longer than its like went at another."""
        return typical(sorted(self.recent))


class Costs:
    """Everything learned so far. Not thread-safe: it belongs to the event loop."""

    def __init__(self) -> None:
        self._learned: OrderedDict[Hashable, Learned] = OrderedDict()
        self._paces: OrderedDict[Hashable, Pace] = OrderedDict()

    def expect(self, made: Sequence[DecodeRequest], bound: Estimate, beside: int = 0) -> Expected:
        """What the requests of one call will cost together; `bound` is the most they may.

        `beside` are the rows that others have in use.
        """
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
            return Expected(most, None, None, 0)
        steps, mean = (min(most, of(length(made))) for of in (known.steps, known.mean))
        pace = self._pace(made, beside)
        if pace is None:
            return Expected(steps, None, None, known.seen)
        return Expected(steps, steps * pace.typical, mean * pace.mean, known.seen)

    def _pace(self, made: Sequence[DecodeRequest], beside: int) -> Pace | None:
        """That of the like under such a load; under any, before enough were seen."""
        under, any_load = (self._paces.get(key) for key in paces(made, beside))
        if under is not None and len(under.recent) >= ENOUGH:
            return under
        return any_load if any_load is not None and any_load.recent else None

    def learn(
        self, made: Sequence[DecodeRequest], bound: Estimate, steps: int, held: float,
        beside: int = 0,
    ) -> None:  # fmt: skip
        """A call that ended by itself: what it sampled, and the row-seconds it held."""
        for key in keys(made, bound):
            _kept(self._learned, key, Learned()).add(length(made), steps)
        for key in paces(made, beside):
            _kept(self._paces, key, Pace()).add(held, steps)


def slope(points: Collection[tuple[float, float]]) -> float:
    """Of the line through these, by least squares, held to zero where they say little."""
    x, y = fmean(one for one, _ in points), fmean(one for _, one in points)
    xx = sum((one - x) ** 2 for one, _ in points)
    return sum((one - x) * (other - y) for one, other in points) / (xx + STEADY)


def closest_half(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the stretch that holds half of these sorted, positive values at the least ratio.

    As in the least median of squares (Rousseeuw 1984): no tail moves it.
    """
    return min(
        zip(values, values[len(values) // 2 :], strict=False), key=lambda ends: ends[1] / ends[0]
    )


def typical(values: Sequence[float]) -> float:
    """Whose largest relative error over half of these sorted, positive values is the smallest.

    It is as far, relatively, from both ends of their closest half: the ends' harmonic mean.
    """
    low, high = closest_half(values)
    return 2 * low * high / (low + high)


def paces(made: Sequence[DecodeRequest], beside: int) -> tuple[Hashable, Hashable]:
    """Whose pace is a call's: its kind's beside that many rows, by magnitude, and its kind's."""
    return (*kind(made), beside.bit_length()), kind(made)


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
