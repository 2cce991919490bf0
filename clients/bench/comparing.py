"""Two sets of records against each other: differences and ratios with 95% intervals.

Requests with the same prompt are resampled together, and both sides by the same draw where they
asked the same prompts. What one run has in common (a busy machine) no interval of one run shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from clients.bench.figures import Floats, Metric, Point

RESAMPLES = 1000
LEAST = 2


@dataclass(frozen=True)
class Ratio:
    """`ours` over `theirs` with a 95% interval; n is the smaller number of requests.

    `ratio` is None where either side has nothing, infinite over 0, and 1 of 0 over 0; `low` and
    `high` are None where there is too little for an interval.
    """

    ours: float | None
    theirs: float | None
    ratio: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def ratio(ours: Point, theirs: Point, of: Metric, seed: int = 0) -> Ratio:
    """A figure of our point over the same of theirs."""
    above, below = of.value(ours), of.value(theirs)
    n = min(len(ours.records), len(theirs.records))
    if above is None or below is None:
        return Ratio(above, below, None, None, None, n)
    value = over(above, below)
    draws = _draws(ours, theirs, of, seed) if n >= LEAST else []
    if len(draws) < RESAMPLES // 2:
        return Ratio(above, below, value, None, None, n)
    # Draws may be infinite, between which nothing can be interpolated.
    low, high = (float(one) for one in np.quantile(draws, [0.025, 0.975], method="nearest"))
    return Ratio(above, below, value, min(low, value), max(high, value), n)


def over(above: float, below: float) -> float:
    """A ratio; what is equal is 1 times the other, also if it is nothing."""
    if below == 0:
        return 1.0 if above == 0 else inf
    return above / below


def _draws(ours: Point, theirs: Point, of: Metric, seed: int) -> list[float]:
    """The ratio in every draw of prompts in which both sides have something."""
    rng, found = np.random.default_rng(seed), list[float]()
    (names, values), (others, their_values) = _by_prompt(ours, of), _by_prompt(theirs, of)
    scale, their_scale = of.scale(ours), of.scale(theirs)
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(names), size=len(names))
        also = drawn if names == others else rng.integers(len(others), size=len(others))
        above = np.concatenate([values[i] for i in drawn])
        below = np.concatenate([their_values[i] for i in also])
        if len(above) and len(below):
            found.append(over(of.fold(above) * scale, of.fold(below) * their_scale))
    return found


def _by_prompt(point: Point, of: Metric) -> tuple[list[str], list[Floats]]:
    """Prompts in order, each with the values of all its records."""
    found: dict[str, list[float]] = {}
    for one in point.records:
        found.setdefault(one.prompt, []).extend(of.of(one))
    names = sorted(found)
    return names, [np.asarray(found[name]) for name in names]


def matched(ours: Sequence[Point], theirs: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Points of the same arm and load in both runs, in our order."""
    known = {(one.arm.name, one.load.name): one for one in theirs}
    pairs = ((one, known.get((one.arm.name, one.load.name))) for one in ours)
    return [(one, other) for one, other in pairs if other is not None]
