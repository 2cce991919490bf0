"""What the requests of one point of a sweep add up to: quantiles, rates, shares, costs.

Pure functions over records; times come out in milliseconds. Failures count where they should: in
rates of what was done well as nothing, in times not at all, in `failed` always.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.bench.arm import Arm
from clients.bench.goals import Goals, kept
from clients.bench.load import Load
from clients.bench.record import Record
from clients.eval.core.statistics import wilson

QUANTILES = (50, 90, 95, 99)
Floats = NDArray[np.float64]


@dataclass
class Point:
    """One arm under one load: its measured records, all rounds together.

    `seconds` is how long the measured requests took in all, `late_s` how late the sending process
    itself was (99th percentile): where that is not small, times are the generator's, not the
    server's. `server` is what the server's own counters say of the measured requests.
    """

    arm: Arm
    load: Load
    records: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    late_s: float = 0.0
    server: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For progress and faults."""
        return f"{self.arm.name} {self.load.name}"

    @property
    def good(self) -> list[Record]:
        """The complete answers."""
        return [one for one in self.records if one.ok]


def _some(value: float | None) -> list[float]:
    return [] if value is None else [value]


KINDS: Mapping[str, Callable[[Record], list[float]]] = {
    "ttft": lambda one: _some(one.ttft),
    "ttfa": lambda one: _some(one.ttfa),
    "ttfe": lambda one: _some(one.ttfe),
    "tpot": lambda one: _some(one.tpot),
    "itl": lambda one: one.itl,
    "e2e": lambda one: [one.took],
}
"""Seconds of every kind that a record has; gaps between chunks are pooled over requests."""

SHARES: Mapping[str, Callable[[Record, Goals], float | None]] = {
    "goals_met": lambda one, goals: float(kept(one, goals)),
    "accuracy": lambda one, _: None if one.right is None else float(one.right),
    "failed": lambda one, _: float(not one.ok),
    "refused": lambda one, _: float(one.refused),
}
"""What a share counts of a record; None where it has nothing to say."""

RATES: Mapping[str, Callable[[Record, Goals], float]] = {
    "requests_per_s": lambda one, _: 1.0,
    "shown_tokens_per_s": lambda one, _: float(one.shown),
    "generated_tokens_per_s": lambda one, _: float(one.generated),
    "goodput": lambda one, goals: float(kept(one, goals)),
}
"""What a complete answer adds to a rate."""

COUNTED = ("generated_tokens", "shown_tokens")
"""Costs that every answer has, whatever its server says."""


def figures(point: Point, goals: Goals) -> dict[str, Any]:
    """All figures of a point, flat: `e2e_p99`, `goodput`, `generated_tokens`, …"""
    good, seconds = point.good, point.seconds or float("nan")
    found: dict[str, Any] = {
        "n": len(point.records),
        "failed": len(point.records) - len(good),
        "refused": sum(one.refused for one in good),
        "goals_met": fmean(kept(one, goals) for one in point.records) if point.records else 0.0,
        "generator_late_ms": 1000 * point.late_s,
    }
    found |= {name: sum(of(one, goals) for one in good) / seconds for name, of in RATES.items()}
    for name, of in KINDS.items():
        values = [1000 * value for one in good for value in of(one)]
        found |= {f"{name}_p{q}": quantile(values, q) for q in QUANTILES}
    known = costs(good) | judged(point.records) | predicted(good) | paced(good)
    return found | point.server | known


def quantile(values: Sequence[float], q: float) -> float | None:
    """The q-th percentile; None of nothing."""
    return float(np.percentile(np.asarray(values), q)) if values else None


def spent(one: Record) -> dict[str, float]:
    """All numbers that the server says of one answer: what was spent, what its strategy did."""
    told: dict[str, Any] = {**(one.usage.get("decoding") or {}), **one.decoding}
    numbers = {key: float(value) for key, value in told.items() if isinstance(value, int | float)}
    if {"counted", "branches"} <= numbers.keys():  # a vote that was decided before all had voted
        numbers["stopped_early"] = float(numbers["counted"] < numbers["branches"])
    return {"generated_tokens": float(one.generated), **numbers, "shown_tokens": float(one.shown)}


def costs(good: Sequence[Record]) -> dict[str, float]:
    """Means per request of all that is spent and done; 0 where an answer does not say."""
    told = [spent(one) for one in good]
    keys = sorted({key for one in told for key in one})
    return {key: fmean(one.get(key, 0.0) for one in told) for key in keys}


def judged(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy with Wilson's interval; a failure is no right answer. Nothing where none has one.

    The interval is that of as many trials as there are prompts: a prompt that is asked again may
    say nothing new.
    """
    known = [bool(one.right) for one in records if one.right is not None]
    if not known:
        return {}
    prompts = len({one.prompt for one in records if one.right is not None})
    found = wilson(sum(known) * prompts / len(known), prompts)
    return {"accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high}


def predicted(good: Sequence[Record]) -> dict[str, float]:
    """How far a dry run's expected tokens were from what was generated: relative to the latter."""
    pairs = [(one.predicted, one.generated) for one in good if one.predicted and one.generated]
    if not pairs:
        return {}
    errors = [abs(told - real) / real for told, real in pairs]
    bias = fmean(told for told, _ in pairs) / fmean(real for _, real in pairs)
    return {"estimate_error": median(errors), "estimate_over_real": bias}


def paced(good: Sequence[Record]) -> dict[str, float]:
    """How far tokens times the time that one mostly takes here are from an answer's time.

    What a cost model in tokens errs by where the length of an answer is known.
    """
    pairs = [(one.took, one.generated) for one in good if one.generated]
    if not pairs:
        return {}
    pace = median(took / tokens for took, tokens in pairs)
    return {"pace_error": median(abs(pace * tokens - took) / took for took, tokens in pairs)}


@dataclass(frozen=True)
class Metric:
    """A figure by name as values of each record and what folds them, so records can be resampled.

    `of` gives no value where a record has none (a failure has no times). `rate`: the figure is what
    is folded over the seconds that it took.
    """

    of: Callable[[Record], list[float]]
    fold: Callable[[Floats], float]
    rate: bool = False

    def value(self, point: Point) -> float | None:
        """The figure; None of nothing."""
        values = [value for one in point.records for value in self.of(one)]
        return self.figure(np.asarray(values), point.seconds)

    def figure(self, values: Floats, seconds: float) -> float | None:
        """The figure of these values, which came within so many seconds."""
        if not len(values) or (self.rate and not seconds):
            return None
        folded = self.fold(values)
        return folded / seconds if self.rate else folded


def metric(name: str, goals: Goals, points: Iterable[Point]) -> Metric:
    """The figure of that name: a quantile, a share, a rate or any mean cost that `points` tell of.

    Raises ValueError for what is none, or is known of a point as a whole only.
    """
    kind, _, q = name.rpartition("_p")
    if kind in KINDS and q.isdigit() and int(q) <= 100:
        return Metric(
            lambda one: [1000 * value for value in KINDS[kind](one)] if one.ok else [],
            lambda values: float(np.percentile(values, int(q))),
        )
    if name in SHARES:
        share = SHARES[name]
        return Metric(lambda one: _some(share(one, goals)), _mean)
    if name in RATES:
        each = RATES[name]
        return Metric(lambda one: [each(one, goals) if one.ok else 0.0], _sum, rate=True)
    told = {*COUNTED, *(key for point in points for one in point.good for key in spent(one))}
    if name not in told:
        known = [*(f"{kind}_pQ" for kind in KINDS), *SHARES, *RATES, *sorted(told)]
        raise ValueError(f"{name!r} is no figure of single requests: {', '.join(known)}")
    return Metric(lambda one: [spent(one).get(name, 0.0)] if one.ok else [], _mean)


def _mean(values: Floats) -> float:
    return float(values.mean())


def _sum(values: Floats) -> float:
    return float(values.sum())
