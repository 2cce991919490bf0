"""What is drawn anew of a point, to know how sure a figure of it is.

Prompts with all their requests, single requests, or stretches of time; it knows no other point.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clients.bench.figures import Floats, Metric, Point
from clients.bench.record import Record

LEAST = 5
"""Prompts, or else requests, of which a bootstrap can say something."""
STRETCHES = 10
"""Of a round under arrivals that do not wait for answers, where rounds are too few."""


@dataclass(frozen=True)
class Units:
    """Parts of a point: their names, the values in each and its share of the point's seconds."""

    names: Sequence[str]
    values: Sequence[Floats]
    seconds: Floats

    @property
    def enough(self) -> bool:
        """Whether so many have a value that drawing them says something."""
        return sum(len(one) > 0 for one in self.values) >= LEAST

    def figure(self, of: Metric, drawn: Iterable[int]) -> float | None:
        """The figure over the units that were drawn; None of nothing."""
        chosen = list(drawn)
        values = np.concatenate([self.values[i] for i in chosen])
        return of.figure(values, float(self.seconds[chosen].sum()))


def units(point: Point, of: Metric) -> Units | None:
    """What is drawn of a point for a figure; None where it is too little.

    A rate's duration varies with its requests: clients that wait for answers take as long as these
    do. Of arrivals that wait for none, rounds are drawn, or stretches of too few rounds, with what
    ended in each.
    """
    records = point.records
    if len(records) < LEAST:
        return None
    if of.rate and point.load.kind != "closed":
        return _stretches(point, of)
    found = _grouped(point, of, [one.prompt for one in records])
    if not found.enough:
        found = _grouped(point, of, [f"{place:06}" for place in range(len(records))])
    return found if found.enough else None


def _grouped(point: Point, of: Metric, names: Sequence[str]) -> Units:
    """Requests of one name together."""
    values, took = defaultdict[str, list[float]](list), defaultdict[str, float](float)
    for name, one in zip(names, point.records, strict=True):
        values[name] += of.of(one)
        took[name] += one.took
    known = sorted(values)
    shares = _shares([took[name] for name in known], point.seconds)
    return Units(known, [np.asarray(values[name]) for name in known], shares)


def _stretches(point: Point, of: Metric) -> Units:
    """Rounds, or equal stretches of each if they are few, with the sum of what ended in them."""
    rounds: dict[int, list[Record]] = {}
    for one in point.records:
        rounds.setdefault(one.round, []).append(one)
    parts = 1 if len(rounds) >= LEAST else STRETCHES
    names, values, seconds = list[str](), list[Floats](), list[float]()
    for turn, ones in sorted(rounds.items()):
        ends = [one.sent + one.took for one in ones]
        edges = np.linspace(min(one.sent for one in ones), max(ends), parts + 1)
        sums, _ = np.histogram(ends, edges, weights=[sum(of.of(one)) for one in ones])
        names += [f"{turn} {i}" for i in range(parts)]
        values += [sums[i : i + 1] for i in range(parts)]
        seconds += np.diff(edges).tolist()
    return Units(names, values, _shares(seconds, point.seconds))


def _shares(parts: Sequence[float], whole: float) -> Floats:
    """Parts that add up to the whole."""
    sizes = np.asarray(parts)
    return sizes * (whole / sizes.sum()) if sizes.any() else sizes
