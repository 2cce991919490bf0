"""A running vote: events in, the moment of decision and the result out, the same in any timing.

`Vote` does not start or cancel paths; it says when that is due and which text stands.
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

from decoders.core.voting.ballots import Ballot, Standing, decided, returned, tally, winner
from decoders.core.voting.orders import IndexOrder, Order, VirtualOrder
from decoders.core.voting.probability import probable


class Vote:
    """The vote of `paths` paths, numbered from 0.

    Feed `progress` and `finish` as they happen; each returns whether the vote is over. Then cancel
    the `uncounted` paths and read `winner` and `path`. Ballots are counted one by one in virtual
    order and the test runs after each, with every path not yet counted taken as open, even one
    that has really finished: so what is counted, the winner and the returned path are functions
    of the paths alone. Events after the end are ignored: a cancelled path may still send some.

    w_max: bound of a ballot's weight, one for all or by path; inf forbids early decisions.
    early: False counts every path.
    confidence: also stop when the leader is this probably the majority (`probable`); then paths
        are counted in index order. It may change the answer; None, the default, does not.
    """

    def __init__(
        self,
        paths: int,
        *,
        w_max: Mapping[int, float] | float = 1.0,
        early: bool = True,
        confidence: float | None = None,
        seed: int = 0,
    ) -> None:
        if paths < 1:
            raise ValueError("a vote needs a path")
        self._open = set(range(paths))
        order = VirtualOrder if confidence is None else IndexOrder
        self._order: Order = order(range(paths))
        self._w_max, self._early = w_max, early
        self._confidence, self._seed = confidence, seed
        self.counted: list[Ballot] = []
        self.over = False

    def progress(self, index: int, tokens: int) -> bool:
        """Path `index` has generated `tokens` tokens in all. Returns whether the vote is over."""
        if not self.over:
            self._count(self._order.progress(index, tokens))
        return self.over

    def finish(self, ballot: Ballot) -> bool:
        """A path has ended; a failed or cut-off one abstains. Returns whether the vote is over."""
        if not self.over:
            self._check(ballot)
            self._count(self._order.finish(ballot))
        return self.over

    def close(self) -> None:
        """End the vote with what has finished, when time or budget runs out."""
        if not self.over:
            self._count(self._order.drain())
            self.over = True

    @property
    def winner(self) -> Hashable | None:
        """The leading answer of what is counted, None while all abstain."""
        return winner(self.counted)

    @property
    def path(self) -> int | None:
        """Whose text is returned, None while nothing is counted. See `ballots.returned`."""
        return returned(self.counted).index if self.counted else None

    @property
    def uncounted(self) -> tuple[int, ...]:
        """The paths that do not vote: to be cancelled once the vote is over."""
        return tuple(sorted(self._open))

    @property
    def standings(self) -> dict[Hashable, Standing]:
        """Every answer's weight and first path, the best first."""
        return tally(self.counted)

    def _check(self, ballot: Ballot) -> None:
        bound = self._w_max[ballot.index] if isinstance(self._w_max, Mapping) else self._w_max
        if ballot.weight > bound:
            raise ValueError(f"path {ballot.index} weighs {ballot.weight}, more than {bound}")

    def _count(self, released: list[Ballot]) -> None:
        for ballot in released:
            if self.over:
                return
            self._open.discard(ballot.index)
            self.counted.append(ballot)
            self.over = not self._open or (self._early and self._settled())

    def _settled(self) -> bool:
        if decided(self.counted, self._open, self._w_max):
            return True
        if self._confidence is None:
            return False
        return probable(self.counted, self._confidence, self._seed)


@dataclass(frozen=True)
class Savings:
    """Tokens of a recorded vote, in full and with cancelling, and how many ballots it took."""

    full: int
    spent: int
    counted: int

    @property
    def share(self) -> float:
        """The share of all tokens that cancelling saves, in [0, 1]."""
        return 1 - self.spent / self.full if self.full else 0.0


def savings(ballots: Collection[Ballot], w_max: Mapping[int, float] | float = 1.0) -> Savings:
    """What cancelling saves on a recorded vote whose paths run in step, one token each at a time.

    Every path pays up to the token at which the deciding ballot is released: one more than that
    ballot's length where a path has a smaller index (see `VirtualOrder`). A real run can save
    less, where the paths do not run in step. Raises ValueError without ballots.
    """
    if not ballots:
        raise ValueError("no ballots")
    ordered = sorted(ballots, key=lambda ballot: (ballot.tokens, ballot.index))
    count = next(
        n
        for n in range(1, len(ordered) + 1)
        if decided(ordered[:n], [ballot.index for ballot in ordered[n:]], w_max)
    )
    last = ordered[count - 1]
    spent = sum(min(b.tokens, last.tokens + (b.index < last.index)) for b in ordered)
    return Savings(sum(b.tokens for b in ordered), spent, count)
