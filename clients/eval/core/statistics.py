"""Intervals and tests: bootstrap by cluster, paired differences, Wilson, Holm.

Questions of one template resemble each other, so whole templates are resampled, never questions.
Pure functions over arrays; everything random takes a seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, fsum, lgamma, log, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 20_000
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A value with its 95% confidence interval, from `n` observations; `p` is two-sided."""

    value: float
    low: float
    high: float
    n: int
    p: float | None = None


def mean(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Interval:
    """The mean and its percentile interval, clusters resampled with replacement."""
    sums, sizes = _by_cluster(values, clusters)
    draws = _resampled(sums, sizes, seed)
    return _interval(float(np.mean(values)), draws, len(values))


def difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    clusters: Sequence[str],
    seed: int = 0,
    null: float = 0.0,
) -> Interval:
    """The mean of paired differences, `ours` minus `theirs`; p tests that it is `null`.

    p is twice the smaller tail of the bootstrap there, never below 2 / (resamples + 1).
    """
    pairs = np.asarray(ours, float) - np.asarray(theirs, float)
    sums, sizes = _by_cluster(pairs.tolist(), clusters)
    draws = _resampled(sums, sizes, seed)
    tail = min(int((draws <= null).sum()), int((draws >= null).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(draws) + 1))
    return _interval(float(pairs.mean()), draws, len(pairs), p)


def ratio(
    above: Sequence[float], below: Sequence[float], clusters: Sequence[str], seed: int = 0
) -> Interval:
    """The sum of `above` over the sum of `below`, both of the same resampled clusters."""
    top, _ = _by_cluster(above, clusters)
    bottom, _ = _by_cluster(below, clusters)
    draws = _resampled(top, bottom, seed)
    return _interval(float(np.sum(above) / np.sum(below)), draws, len(above))


def reduction(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[str],
    seed: int = 0,
    least: float = 1.0,
) -> Interval:
    """How many times rarer something is after than before: 0s and 1s, paired; p tests `least`.

    Every draw of clusters gets half an event before and after, so that it divides by no zero; the
    value itself only if there is none after. A bootstrap of few events is too sure of itself, one
    of none knows nothing: `low` is at most the events before over the exact Poisson limit of those
    after (3.69 where none was seen), and p at least the Poisson tail at `least`.
    """
    top, _ = _by_cluster(before, clusters)
    bottom, _ = _by_cluster(after, clusters)
    draws = _resampled(top + 0.5 / len(top), bottom + 0.5 / len(top), seed)
    events, left = float(np.sum(before)), int(np.sum(after))
    value = events / left if left else (events + 0.5) / 0.5
    low, high = (float(bound) for bound in np.quantile(draws, [0.025, 0.975]))
    low = min(low, value, events / poisson_limit(left))
    below = (int((draws <= least).sum()) + 1) / (len(draws) + 1)
    p = min(1.0, 2 * max(below, poisson_tail(left, events / least)))
    return Interval(value, low, max(high, value), len(before), p)


def poisson_tail(count: int, expected: float) -> float:
    """The chance of `count` events or fewer where `expected` are."""
    if expected <= 0:
        return 1.0
    # By logarithms, since exp(-expected) alone is 0 for some hundreds.
    return fsum(exp(k * log(expected) - expected - lgamma(k + 1)) for k in range(count + 1))


def poisson_limit(count: int, tail: float = 0.025) -> float:
    """The expectation of which `count` events or fewer come only with a chance of `tail`."""
    low, high = 0.0, count + 10 * sqrt(count + 1) + 10
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if poisson_tail(count, middle) > tail else (low, middle)
    return high


def auroc(
    high: Sequence[float], low: Sequence[float], seed: int = 0, resamples: int = 2000
) -> Interval:
    """The chance that one of `high` exceeds one of `low`, ties half; both resampled."""
    above, below = np.asarray(high, float), np.asarray(low, float)
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(len(above), np.full(len(above), 1 / len(above)), size=resamples)
    columns = rng.multinomial(len(below), np.full(len(below), 1 / len(below)), size=resamples)
    draws = np.einsum("ri,ij,rj->r", rows, wins, columns, optimize=True) / wins.size
    return _interval(float(wins.mean()), draws, len(above) + len(below))


def wilson(successes: float, n: int) -> Interval:
    """A share of `n` independent trials with Wilson's score interval, right at 0 and n too.

    Successes need not be whole: trials may be means themselves.
    """
    if n < 1:
        raise ValueError("a share needs at least one trial")
    share = successes / n
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    # At the ends the bound is the share itself, but for rounding.
    low = 0.0 if successes == 0 else middle - half
    return Interval(share, low, 1.0 if successes == n else middle + half, n)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values, by the same names: each may be compared with the level itself."""
    adjusted: dict[str, float] = {}
    worst = 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        worst = max(worst, min(1.0, p[name] * (len(p) - rank)))
        adjusted[name] = worst
    return adjusted


def _by_cluster(values: Sequence[float], clusters: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum and size of every cluster, in the order of their names."""
    if len(values) != len(clusters) or not values:
        raise ValueError("there must be one cluster for each value, and at least one")
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(codes, weights=np.asarray(values, float))
    return sums.astype(float), np.bincount(codes).astype(float)


def _resampled(above: Floats, below: Floats, seed: int) -> Floats:
    """The ratio of both sums in each of many draws of as many clusters as there are."""
    draws = _draws(len(above), seed)
    # A draw of nothing over nothing says nothing; the interval leaves it out.
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = (draws @ above) / (draws @ below)
    return result


@lru_cache(maxsize=4)
def _draws(count: int, seed: int) -> Floats:
    """How often each of `count` clusters is in each draw; the same for all of a table's cells."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)


def _interval(value: float, draws: Floats, n: int, p: float | None = None) -> Interval:
    low, high = np.nanquantile(draws, [0.025, 0.975])
    # Where all draws agree, rounding may put them beside the value.
    return Interval(value, min(float(low), value), max(float(high), value), n, p)
