"""Two sets of records against each other: differences and ratios with 95% intervals.

Both sides are resampled by the same draw where they have the same parts (`resampling`). What one
run has in common (a busy machine) no interval of one run shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from clients.bench.figures import Metric, Point
from clients.bench.resampling import units

RESAMPLES = 1000


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
    draws = _draws(ours, theirs, of, seed)
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
    """The ratio in every draw in which both sides have something; none of too little."""
    above, below = units(ours, of), units(theirs, of)
    if above is None or below is None:
        return []
    rng, found = np.random.default_rng(seed), list[float]()
    size, other_size, same = len(above.names), len(below.names), above.names == below.names
    for _ in range(RESAMPLES):
        # One fewer than there are: as many vary too little where they are few (Rao and Wu).
        drawn = rng.integers(size, size=size - 1)
        also = drawn if same else rng.integers(other_size, size=other_size - 1)
        figure, other = above.figure(of, drawn), below.figure(of, also)
        if figure is not None and other is not None:
            found.append(over(figure, other))
    return found


def matched(ours: Sequence[Point], theirs: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Points of the same arm and load in both runs, in our order."""
    known = {(one.arm.name, one.load.name): one for one in theirs}
    pairs = ((one, known.get((one.arm.name, one.load.name))) for one in ours)
    return [(one, other) for one, other in pairs if other is not None]


def over_first(points: Sequence[Point], of: Metric) -> list[Ratio | None]:
    """A figure of every point over the first arm's under the same load; None where that is missing.

    That of the first arm itself is 1 and needs no interval.
    """
    first = {one.load.name: one for one in points if one.arm.name == points[0].arm.name}
    return [_over_base(one, first.get(one.load.name), of) for one in points]


def _over_base(one: Point, base: Point | None, of: Metric) -> Ratio | None:
    if base is None:
        return None
    if one is not base:
        return ratio(one, base, of)
    value = of.value(one)
    return Ratio(value, value, None if value is None else 1.0, None, None, len(one.records))
