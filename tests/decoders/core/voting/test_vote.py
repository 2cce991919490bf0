"""A vote's result does not depend on real timing, nor on cancelling."""

import itertools
import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.core.voting import Ballot, IndexOrder, VirtualOrder, Vote, returned, savings, winner

Outcome = tuple[object, int | None, tuple[int, ...]]

RECORDED = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["a", "a", "b", "c", None])),
    min_size=1,
    max_size=9,
).map(lambda rows: [Ballot(i, a, tokens=t) for i, (t, a) in enumerate(rows)])


def replay(paths: list[Ballot], schedule: Iterable[int], **options: object) -> Vote:
    """Advance the path named next by one token, or end it; a vote that is over cancels the rest."""
    vote = Vote(len(paths), **options)  # type: ignore[arg-type]
    at = dict.fromkeys(range(len(paths)), 0)
    for index in schedule:
        if index not in at:
            continue
        if at[index] == paths[index].tokens:
            del at[index]
            over = vote.finish(paths[index])
        else:
            at[index] += 1
            over = vote.progress(index, at[index])
        if over:
            break
    assert vote.over
    return vote


def outcome(vote: Vote) -> Outcome:
    return vote.winner, vote.path, vote.uncounted


def schedules(paths: list[Ballot]) -> Iterator[tuple[int, ...]]:
    """Every interleaving of the paths' events."""
    events = {ballot.index: ballot.tokens + 1 for ballot in paths}

    def extend(done: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        left = [i for i, count in events.items() if done.count(i) < count]
        if not left:
            yield done
        for index in left:
            yield from extend((*done, index))

    return extend(())


def shuffled(paths: list[Ballot], seed: int) -> list[int]:
    """A random interleaving, some paths far faster than others."""
    source = random.Random(seed)
    speeds = {b.index: source.choice([0.1, 1.0, 10.0]) for b in paths}
    events = [(b.index, n) for b in paths for n in range(b.tokens + 1)]
    timed = [((n + source.random()) / speeds[i], i) for i, n in events]
    return [index for _, index in sorted(timed)]


def test_every_interleaving_of_small_votes_ends_alike() -> None:
    compared = cancelled = 0
    for answers in itertools.product("ab", repeat=3):
        for lengths in itertools.product((0, 1, 2), repeat=3):
            rows = zip(answers, lengths, strict=True)
            paths = [Ballot(i, a, tokens=t) for i, (a, t) in enumerate(rows)]
            ends = {outcome(replay(paths, schedule)) for schedule in schedules(paths)}
            assert len(ends) == 1
            [(answer, path, uncounted)] = ends
            assert (answer, path) == (winner(paths), returned(paths).index)
            compared += 1
            cancelled += bool(uncounted)
    assert compared == 216
    assert cancelled > 50


@settings(max_examples=300, deadline=None)
@given(RECORDED, st.integers(0, 10**6))
def test_random_interleavings_end_alike_and_as_without_cancelling(
    paths: list[Ballot], seed: int
) -> None:
    full = {outcome(replay(paths, shuffled(paths, seed + k), early=False)) for k in range(3)}
    assert full == {(winner(paths), returned(paths).index, ())}
    early = {outcome(replay(paths, shuffled(paths, seed + k))) for k in range(12)}
    assert len(early) == 1
    assert early.pop()[:2] == full.pop()[:2]


@settings(max_examples=200, deadline=None)
@given(
    RECORDED, st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), min_size=9, max_size=9), st.integers()
)
def test_weighted_votes_end_alike(paths: list[Ballot], weights: list[float], seed: int) -> None:
    heavy = [Ballot(b.index, b.answer, weights[b.index], b.tokens) for b in paths]
    ends = {outcome(replay(heavy, shuffled(heavy, seed + k))) for k in range(8)}
    assert len(ends) == 1
    assert ends.pop()[:2] == (winner(heavy), returned(heavy).index)


@settings(max_examples=100, deadline=None)
@given(RECORDED, st.integers(0, 10**6))
def test_probable_stop_ends_alike_in_any_interleaving(paths: list[Ballot], seed: int) -> None:
    ends = {outcome(replay(paths, shuffled(paths, seed + k), confidence=0.9)) for k in range(8)}
    assert len(ends) == 1
    uncounted = ends.pop()[2]
    assert uncounted == tuple(range(len(paths) - len(uncounted), len(paths)))


def test_progress_may_skip_tokens() -> None:
    paths = [Ballot(0, "a", tokens=50), Ballot(1, "b", tokens=900), Ballot(2, "a", tokens=70)]
    vote = Vote(3)
    assert not vote.finish(paths[2])
    assert not vote.finish(paths[0])
    assert not vote.counted
    assert not vote.progress(1, 70)
    assert [ballot.index for ballot in vote.counted] == [0]
    assert vote.progress(1, 71)
    assert outcome(vote) == ("a", 0, (1,))


def test_a_path_waits_for_a_running_one_that_may_still_tie_before_it() -> None:
    order = VirtualOrder([0, 1])
    assert order.finish(late := Ballot(1, "a", tokens=5)) == []
    assert order.progress(0, 5) == []
    assert order.finish(early := Ballot(0, "b", tokens=5)) == [early, late]
    order = VirtualOrder([0, 1])
    assert order.finish(first := Ballot(0, "a", tokens=5)) == []
    assert order.progress(1, 5) == [first]


def test_index_order_waits_for_smaller_indices() -> None:
    order = IndexOrder([0, 1, 2, 3])
    third, first = Ballot(2, "a", tokens=1), Ballot(0, "a", tokens=9)
    assert order.finish(third) == []
    assert order.progress(1, 50) == []
    assert order.finish(first) == [first]
    assert order.drain() == [third]


def test_events_after_the_end_change_nothing() -> None:
    vote = replay([Ballot(0, "a", tokens=1), Ballot(1, "a", tokens=1), Ballot(2, "b", tokens=3)],
                  [0, 1, 2, 0, 1, 2])  # fmt: skip
    before = outcome(vote)
    assert vote.progress(2, 3)
    assert vote.finish(Ballot(2, "b", 1.0, 3))
    vote.close()
    assert outcome(vote) == before == ("a", 0, (2,))


def test_closing_counts_what_has_finished() -> None:
    vote = Vote(3)
    vote.finish(Ballot(1, "b", tokens=10))
    assert vote.winner is vote.path is None
    vote.close()
    assert outcome(vote) == ("b", 1, (0, 2))
    empty = Vote(2)
    empty.close()
    assert outcome(empty) == (None, None, (0, 1))


def test_wrong_events_are_errors() -> None:
    vote = Vote(2)
    vote.progress(0, 5)
    for wrong in (Ballot(0, "a", tokens=4), Ballot(7, "a"), Ballot(1, "a", weight=2.0, tokens=1)):
        with pytest.raises(ValueError, match="path"):
            vote.finish(wrong)
    with pytest.raises(ValueError, match="went back"):
        vote.progress(0, 4)
    with pytest.raises(ValueError, match="needs a path"):
        Vote(0)


def test_savings_of_a_clear_vote() -> None:
    lengths = [100, 110, 120, 130, 140, 500, 600, 700]
    saved = savings([Ballot(i, "a", tokens=t) for i, t in enumerate(lengths)])
    # Four of eight votes with the smallest index cannot be beaten, only tied; 130 tokens of each.
    assert (saved.counted, saved.full, saved.spent) == (4, 2400, 100 + 110 + 120 + 5 * 130)
    assert saved.share == pytest.approx(1 - 980 / 2400)


def test_a_smaller_index_pays_one_token_more_before_it_is_cancelled() -> None:
    # At 100 tokens path 0 might still end, and would come first.
    paths = [Ballot(0, "b", tokens=500), Ballot(1, "a", tokens=100), Ballot(2, "a", tokens=100)]
    assert savings(paths).spent == 101 + 100 + 100
    assert savings(paths[::-1]) == savings(paths)


@settings(max_examples=200, deadline=None)
@given(RECORDED)
def test_savings_are_what_paths_in_step_spend(paths: list[Ballot]) -> None:
    saved = savings(paths)
    vote = Vote(len(paths))
    spent = dict.fromkeys(range(len(paths)), 0)
    over = False
    for step in range(8):
        for ballot in paths:
            if not over and ballot.tokens == step:
                over = vote.finish(ballot)
            elif not over and ballot.tokens > step:
                spent[ballot.index] += 1
                over = vote.progress(ballot.index, step + 1)
    assert len(vote.counted) == saved.counted
    assert saved.full == sum(b.tokens for b in paths)
    assert saved.spent <= sum(spent.values()) <= saved.spent + len(paths)


def test_savings_without_ballots_is_an_error() -> None:
    with pytest.raises(ValueError, match="no ballots"):
        savings([])
