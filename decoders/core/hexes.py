"""The paths of a vote over block sizes: their order, their waves, and which of them stands.

Two orders matter. Paths run, and are preferred for their text, by wave: one seed of every block.
Ties of the vote go to the smallest block, then to the earliest seed. Neither depends on time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf, lcm
from typing import Any

from decoders.core.answers import Canonical
from decoders.core.base import Commit, DecodeRequest
from decoders.core.canvases import LONGEST, CanvasOptions, length_of, schedule_of
from decoders.core.voting import Ballot, decided, tally, winner
from engines.base import Delta, Finish, Schedule

PARTS = (32, 16, 8, 4, 2)
"""Into how many blocks the paper cuts a canvas: 8 to 128 of 256 positions."""
ORDERED = frozenset({"random", "origin"})
"""Rules whose order is drawn, so that seeds differ at temperature 0 as well."""


@dataclass(slots=True)
class Blank:
    """One path: its place in the order of running, its rank in ties, and what came of it."""

    index: int
    rank: int
    seed: int
    schedule: Schedule
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    nll: float | None = None
    forwards: int = 0
    answer: Canonical | None = None

    def add(self, delta: Delta) -> None:
        """Takes what the engine says next."""
        self.tokens += delta.tokens
        self.finish = delta.finish
        self.forwards += delta.forwards
        if delta.fill is not None:
            self.nll = delta.fill.nll

    @property
    def whole(self) -> bool:
        """Whether it was not cut off: it ended by itself or filled all of its canvas."""
        return self.finish is Finish.STOP or len(self.tokens) == self.schedule.length

    @property
    def ballot(self) -> Ballot:
        """Its vote; without an answer it abstains."""
        key = None if self.answer is None else self.answer.key
        return Ballot(self.rank, key, 1.0, len(self.tokens))

    def commits(self) -> list[Commit]:
        """All of its text at once."""
        return [Commit(self.tokens, finish=self.finish)]

    def told(self) -> dict[str, Any]:
        """What a trace says of it."""
        own: dict[str, Any] = {
            "path": self.index,
            "block_length": self.schedule.block,
            "seed": self.seed,
            "length": len(self.tokens),
            "forward_passes": self.forwards,
            "answer": None if self.answer is None else self.answer.shown,
            "key": None if self.answer is None else self.answer.key,
        }
        return own if self.nll is None else {**own, "nll": self.nll}


@dataclass(frozen=True, slots=True)
class Plan:
    """All paths in the order in which they run."""

    length: int
    blocks: tuple[int, ...]
    blanks: list[Blank]

    def waves(self, blanks: Sequence[Blank], tested: bool) -> Iterator[Sequence[Blank]]:
        """One seed of every block at a time; all at once where nothing is tested between them."""
        size = len(self.blocks) if tested else max(1, len(blanks))
        yield from (blanks[at : at + size] for at in range(0, len(blanks), size))


def planned(
    options: CanvasOptions, request: DecodeRequest, sizes: Sequence[int] | None, seeds: int,
    **more: Any,
) -> Plan:  # fmt: skip
    """The paths of `seeds` seeds for each of `sizes`; None: as the paper cuts the canvas.

    Seeds that could not differ count once.
    """
    length = _length(options, request, sizes)
    own = [length // part for part in PARTS if length % part == 0] or [length]
    blocks = tuple(sorted(own if sizes is None else sizes))
    heat = options.temperature
    heat = request.sampling.temperature if heat is None else heat
    seeds = 1 if heat == 0 and options.rule not in ORDERED else seeds
    blanks = [
        Blank(
            seed * len(blocks) + at, at * seeds + seed, seed,
            schedule_of(options, length, block, **more),
        )
        for seed in range(seeds)
        for at, block in enumerate(blocks)
    ]  # fmt: skip
    return Plan(length, blocks, blanks)


def _length(options: CanvasOptions, request: DecodeRequest, sizes: Sequence[int] | None) -> int:
    """No longer than max_tokens if that can be, since an answer that is cut off does not vote."""
    most = min(request.max_tokens, LONGEST)
    unit = lcm(*sizes) if sizes is not None else min(max(PARTS), 1 << most.bit_length() - 1)
    short = replace(request, max_tokens=max(most // unit, 1) * unit)
    return length_of(options, short, unit)


def settled(done: Sequence[Blank], blanks: Sequence[Blank]) -> bool:
    """Whether what is still to run cannot change the vote."""
    left = [blank.rank for blank in blanks[len(done) :]]
    return decided([blank.ballot for blank in done], left)


def best(done: Sequence[Blank], select: str) -> Blank:
    """Whose text stands: of the winning answer the path that ran first.

    By `nll` the likeliest path of all; by `vote_nll` the likeliest of the answers that lead.
    """
    ballots = [blank.ballot for blank in done]
    key = winner(ballots)
    if select == "nll":
        return min(done, key=_unlikely)
    if select == "vote_nll" and key is not None:
        standings = tally(ballots)
        leaders = {one for one, s in standings.items() if s.weight == standings[key].weight}
        return min((blank for blank in done if blank.ballot.answer in leaders), key=_unlikely)
    supporters = (blank for blank in done if key is None or blank.ballot.answer == key)
    return min(supporters, key=lambda blank: blank.index)


def _unlikely(blank: Blank) -> tuple[float, int]:
    return (inf if blank.nll is None else blank.nll, blank.index)


def votes(done: Sequence[Blank]) -> dict[str, int]:
    """How often each answer was given, as it was first written, the leading one first.

    By their keys if two were written alike but mean different things.
    """
    written = {blank.rank: blank.answer for blank in done}
    standings = tally(blank.ballot for blank in done)
    shown = {key: written[standing.first] for key, standing in standings.items()}
    texts = {key: str(key) if one is None else one.shown for key, one in shown.items()}
    alike = len({*texts.values()}) < len(texts)
    return {str(key) if alike else texts[key]: int(s.weight) for key, s in standings.items()}
