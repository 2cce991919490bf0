"""Ballots, their count, and the exact test of whether a vote can still change.

Knows nothing of when ballots arrive; see `orders` for that.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Ballot:
    """What one path says: its index, its answer (None abstains), weight and length in tokens.

    A weight of zero is an abstention, too. Raises ValueError for a negative or infinite weight.
    """

    index: int
    answer: Hashable | None
    weight: float = 1.0
    tokens: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"the weight of path {self.index} is {self.weight}")

    @property
    def counts(self) -> bool:
        """Whether it says anything: an answer, with a weight above zero."""
        return self.answer is not None and self.weight > 0


class Standing(NamedTuple):
    """How an answer stands: its summed weight and the smallest index of a path that gave it."""

    weight: float
    first: int


def tally(ballots: Iterable[Ballot]) -> dict[Hashable, Standing]:
    """Every answer's standing, the best first: highest weight, then smallest path index."""
    standings = {
        answer: Standing(math.fsum(b.weight for b in group), min(b.index for b in group))
        for answer, group in _by_answer(ballots).items()
    }
    ranked = sorted(standings.items(), key=lambda item: (-item[1].weight, item[1].first))
    return dict(ranked)


def winner(ballots: Iterable[Ballot]) -> Hashable | None:
    """The answer with the highest weight, ties to the smallest path index; None if all abstain."""
    return next(iter(tally(ballots)), None)


def returned(ballots: Collection[Ballot]) -> Ballot:
    """The ballot whose path's text is returned: the winner's earliest in virtual time.

    Virtual time is (tokens, index). Ballots are counted in that order, so whatever is cancelled
    once a vote is decided comes later than every ballot counted, and at least one of those is the
    winner's: the earliest is the same with and without cancelling. The smallest index would not
    be: a supporter with a smaller index may be among the cancelled. If all abstain, nothing was
    cancelled, and the earliest path speaks. Raises ValueError without ballots.
    """
    answer = winner(ballots)
    supporters = [b for b in ballots if answer is None or (b.counts and b.answer == answer)]
    return min(supporters, key=lambda ballot: (ballot.tokens, ballot.index))


def decided(
    ballots: Collection[Ballot],
    outstanding: Collection[int],
    w_max: Mapping[int, float] | float = 1.0,
) -> bool:
    """Whether no completion of the outstanding paths can change the winner.

    An outstanding path may give any answer, seen or not, with a weight in [0, w_max], or abstain.
    The leader L stands iff for every other answer a, and for one unseen answer,
    W(a) + sum of w_max < W(L), or equal and first(L) < min(first(a), smallest outstanding index).
    Unbounded weights (w_max = inf) are never decided early. Sums are exactly rounded (fsum), hence
    monotone and free of order. Derived and checked against every completion of small votes.
    """
    weights = {path: w_max[path] if isinstance(w_max, Mapping) else w_max for path in outstanding}
    open_weights = {path: weight for path, weight in weights.items() if weight > 0}
    if not open_weights:
        return True
    groups = _by_answer(ballots)
    leader = winner(ballots)
    if leader is None:
        return False
    rivals = [group for answer, group in groups.items() if answer != leader]
    return all(_out_of_reach(rival, groups[leader], open_weights) for rival in [*rivals, []])


def _out_of_reach(
    rival: list[Ballot], leader: list[Ballot], open_weights: dict[int, float]
) -> bool:
    reach = math.fsum([*(b.weight for b in rival), *open_weights.values()])
    weight = math.fsum(b.weight for b in leader)
    if reach != weight:
        return reach < weight
    return min(b.index for b in leader) < min([*(b.index for b in rival), *open_weights])


def _by_answer(ballots: Iterable[Ballot]) -> dict[Hashable, list[Ballot]]:
    groups: defaultdict[Hashable, list[Ballot]] = defaultdict(list)
    for ballot in ballots:
        if ballot.counts:
            groups[ballot.answer].append(ballot)
    return groups
