"""Two sets of records against each other: differences and ratios with 95% intervals.

Requests with the same prompt are resampled together, and both sides by the same draw where they
asked the same prompts. What one run has in common (a busy machine) no interval of one run shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clients.bench.figures import Floats, Metric, Point
from clients.bench.record import Record

RESAMPLES = 1000
LEAST = 2


@dataclass(frozen=True)
class Ratio:
    """`ours` over `theirs` with a 95% interval; n is the smaller number of requests.

    `ratio`, `low` and `high` are None where `theirs` is 0 or either side has nothing.
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


def ratio(ours: Sequence[Record], theirs: Sequence[Record], of: Metric, seed: int = 0) -> Ratio:
    """A figure of ours over the same of theirs."""
    above, below = of.value(ours), of.value(theirs)
    n = min(len(ours), len(theirs))
    if above is None or not below or n < LEAST:
        return Ratio(above, below, None if above is None or not below else above / below,
                     None, None, n)  # fmt: skip
    draws = _draws(_by_prompt(ours, of), _by_prompt(theirs, of), of, seed)
    if len(draws) < RESAMPLES // 2:
        return Ratio(above, below, above / below, None, None, n)
    low, high = (float(bound) for bound in np.quantile(draws, [0.025, 0.975]))
    value = above / below
    return Ratio(above, below, value, min(low, value), max(high, value), n)


def _by_prompt(records: Sequence[Record], of: Metric) -> dict[str, Floats]:
    found: dict[str, list[float]] = {}
    for one in records:
        found.setdefault(one.prompt, []).extend(of.of(one))
    return {name: np.asarray(values) for name, values in found.items()}


def _draws(
    ours: Mapping[str, Floats], theirs: Mapping[str, Floats], of: Metric, seed: int
) -> list[float]:
    """The ratio in every draw of prompts that has one."""
    rng, found = np.random.default_rng(seed), list[float]()
    names, others = sorted(ours), sorted(theirs)
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(names), size=len(names))
        also = drawn if names == others else rng.integers(len(others), size=len(others))
        above = np.concatenate([ours[names[i]] for i in drawn])
        below = np.concatenate([theirs[others[i]] for i in also])
        if len(above) and len(below) and (under := of.fold(below)):
            found.append(of.fold(above) / under)
    return found


def matched(ours: Sequence[Point], theirs: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Points of the same arm and load in both runs, in our order."""
    known = {(one.arm.name, one.load.name): one for one in theirs}
    pairs = ((one, known.get((one.arm.name, one.load.name))) for one in ours)
    return [(one, other) for one, other in pairs if other is not None]
