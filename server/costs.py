"""What requests of each kind really cost, learned as they end: the model that admission weighs by.

A request's cost is the rows it holds times the seconds it holds them. Where enough like it
(strategy, setting, prompt's length) ended beside as many rows of others (by their number's
magnitude), it is expected to cost what they did. Until then it is row-steps, tokens sampled in all,
learned per setting, times the row-seconds that a row-step of that strategy takes under that load.
It is expected twice: as the like of it mostly costs, for whoever asks what one request will cost,
and as it costs on average, for sums: answers mostly have long tails, so the second is mostly the
larger. It knows no strategy and no HTTP; what a request may cost at most is `Estimate`'s.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from math import exp, log
from statistics import fmean
from typing import TypeVar

from decoders.core.base import Budget, DecodeRequest, Estimate

V = TypeVar("V")
KEPT = 1024
"""Settings that are remembered; the one that was not asked for longest is forgotten first."""
RECENT = 64
"""Requests of one setting that are learned from, the last ones."""
ENOUGH = 4
"""Requests of one setting before it is relied on rather than on its strategy as a whole."""
LEAST = 1e-6
"""Row-seconds; less has no logarithm worth the name."""
FAMILIAR = 8
"""Requests of one setting under one load before their seconds are relied on, not steps and pace."""
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
class Line:
    """A quantity over prompt lengths, both as logarithms: a line through the latest requests."""

    seen: int = 0
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    _slope: float = 0.0
    _typical: float = 0.0
    _mean: float = 0.0
    _fitted: int = 0

    def add(self, prompt: int, value: float) -> None:
        """One request that ended."""
        self.seen += 1
        self.recent.append((log(max(1, prompt)), log(max(LEAST, value))))

    def typical(self, prompt: int) -> float:
        """What to expect: half of like requests are as near to it as half can be."""
        self._fit()
        return self._of(prompt) * self._typical

    def mean(self, prompt: int) -> float:
        """What it is on average."""
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
        """Values of the latest requests without what their prompts' lengths do."""
        return [exp(value - self._slope * prompt) for prompt, value in self.recent]


@dataclass(slots=True)
class Pace:
    """Row-seconds per row-step, of late."""

    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT // 2))

    def add(self, seconds: float, steps: int) -> None:
        """What one request held and sampled."""
        if seconds > 0 and steps:
            self.recent.append((seconds, steps))

    @property
    def mean(self) -> float:
        """On average over all steps, as sums go."""
        return sum(one for one, _ in self.recent) / sum(steps for _, steps in self.recent)

    @property
    def typical(self) -> float:
        """As it mostly is for one request: one that ran longer than its like went at another."""
        return typical(sorted(one / steps for one, steps in self.recent))


class Costs:
    """Everything learned so far. Not thread-safe: it belongs to the event loop."""

    def __init__(self) -> None:
        self._steps: OrderedDict[Hashable, Line] = OrderedDict()
        self._seconds: OrderedDict[Hashable, Line] = OrderedDict()
        self._paces: OrderedDict[Hashable, Pace] = OrderedDict()

    def expect(self, made: Sequence[DecodeRequest], bound: Estimate, beside: int = 0) -> Expected:
        """What the requests of one call will cost together; `bound` is the most they may.

        `beside` are the rows that others have in use.
        """
        fine, coarse = keys(made, bound)
        most = float(bound.generated_tokens)
        known = _known(self._steps, (fine, ENOUGH), (coarse, 1))
        if known is None:
            return Expected(most, None, None, 0)
        tokens = length(made)
        likely = known.typical(tokens)
        steps, mean = min(most, likely), min(most, known.mean(tokens))
        familiar = _known(self._seconds, (_under(fine, beside), FAMILIAR))
        if familiar is not None:
            cut = steps / likely
            held, average = familiar.typical(tokens) * cut, familiar.mean(tokens) * cut
            return Expected(steps, held, average, known.seen)
        pace = self._pace(made, beside)
        if pace is None:
            return Expected(steps, None, None, known.seen)
        return Expected(steps, steps * pace.typical, mean * pace.mean, known.seen)

    def _pace(self, made: Sequence[DecodeRequest], beside: int) -> Pace | None:
        """That of the like under such a load; under any, before enough were seen."""
        one = kind(made)
        under, any_load = (self._paces.get(key) for key in (_under(one, beside), one))
        if under is not None and len(under.recent) >= ENOUGH:
            return under
        return any_load if any_load is not None and any_load.recent else None

    def learn(
        self, made: Sequence[DecodeRequest], bound: Estimate, steps: int, held: float,
        beside: int = 0,
    ) -> None:  # fmt: skip
        """A call that ended by itself: what it sampled, and the row-seconds it held."""
        fine, coarse = keys(made, bound)
        tokens = length(made)
        for key in (fine, coarse):
            _kept(self._steps, key, Line()).add(tokens, max(1, steps))
        _kept(self._seconds, _under(fine, beside), Line()).add(tokens, held)
        for key in (_under(kind(made), beside), kind(made)):
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


def kind(made: Sequence[DecodeRequest]) -> tuple[str, str]:
    """The engine and strategy of a call."""
    return made[0].engine.name, made[0].strategy


def keys(made: Sequence[DecodeRequest], bound: Estimate) -> tuple[Hashable, Hashable]:
    """The setting of a call, and the wider kind that it belongs to.

    The wider one leaves out parameters: some hold what no other request has (an expected answer).
    Both have what ends an answer.
    """
    first = made[0]
    sampling = first.sampling
    # A cap that nobody asked for is what the prompt leaves of the context: never twice the same.
    cap = first.max_tokens.bit_length()
    ends = (sampling.ignore_eos, sampling.min_tokens.bit_length(), bool(sampling.structured))
    wide = (*kind(made), bound.rows, sampling.temperature == 0, cap, ends, size(first.budget))
    chosen = (sampling.temperature, first.stop, sampling.stop_token_ids, first.budget)
    return (*wide, *chosen, first.options.model_dump_json()), wide


def size(budget: Budget) -> Hashable:
    """A budget by the magnitude of its limits."""
    return tuple(None if most is None else most.bit_length() for most in astuple(budget))


def length(made: Sequence[DecodeRequest]) -> int:
    """Tokens of all prompts."""
    return sum(len(one.prompt) for one in made)


def _under(key: Hashable, beside: int) -> Hashable:
    """The key beside so many rows of others, by their number's magnitude."""
    return key, beside.bit_length()


def _known(lines: Mapping[Hashable, Line], *wanted: tuple[Hashable, int]) -> Line | None:
    """The first line whose key has as many requests as are asked for with it."""
    found = ((lines.get(key), least) for key, least in wanted)
    return next((one for one, least in found if one is not None and one.seen >= least), None)


def _kept(kept: "OrderedDict[Hashable, V]", key: Hashable, fresh: V) -> V:
    """What is kept under the key, or `fresh`, now kept; the oldest makes room."""
    found = kept.setdefault(key, fresh)
    kept.move_to_end(key)
    if len(kept) > KEPT:
        kept.popitem(last=False)
    return found
