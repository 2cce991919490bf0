"""Medians of repeats with 95% intervals by order statistics, which take six repeats at least.

It knows nothing of what was repeated.
"""

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from math import comb
from statistics import median

LEAST = 6
"""From the least of five to the greatest is an interval of 93.75%, of six one of 96.9%."""


def middle(values: Sequence[float]) -> dict[str, float]:
    """The median, its 95% interval and of how many. Raises ValueError for too few."""
    ordered = sorted(values)
    skip = interval_rank(len(ordered))
    return {
        "value": median(ordered), "low": ordered[skip], "high": ordered[-1 - skip],
        "n": len(ordered),
    }  # fmt: skip


def interval_rank(n: int) -> int:
    """How many order statistics to leave out at each end for 95% coverage of the median."""
    if n < LEAST:
        raise ValueError(f"{n} give no 95% interval of their median, {LEAST} do")
    rank = 0
    while 2 * sum(comb(n, i) for i in range(rank + 2)) / 2**n <= 0.05:
        rank += 1
    return rank


def ratio(found: Mapping[str, float]) -> str:
    """A ratio with its interval."""
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def repeats(text: str) -> int:
    """A number of repeats on the command line, refused before anything is measured."""
    try:
        interval_rank(n := int(text))
    except ValueError as fault:
        raise ArgumentTypeError(str(fault)) from None
    return n
