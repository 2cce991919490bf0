"""Counting, the exact criterion against every completion of small votes, and the probable stop."""

import itertools
import math
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.core.voting import (
    Ballot,
    decided,
    leader_probability,
    probable,
    returned,
    tally,
    winner,
)

ANSWERS = ("a", "b", "c", None)
OPEN = "open"


def ballots(*answers: str | None) -> list[Ballot]:
    return [Ballot(index, answer) for index, answer in enumerate(answers)]


def completions(paths: list[int], w_max: Mapping[int, float]) -> Iterator[list[Ballot]]:
    """Every way the open paths can end, at the ends and the middle of their weights."""
    votes = [
        [Ballot(path, None)]
        + [
            Ballot(path, a, w)
            for a in ("a", "b", "c", "new")
            for w in (w_max[path], w_max[path] / 2)
        ]
        for path in paths
    ]
    return (list(combination) for combination in itertools.product(*votes))


def test_decided_is_exact_on_every_small_vote() -> None:
    states = early = 0
    for n in range(1, 6):
        for state in itertools.product((*ANSWERS, OPEN), repeat=n):
            cast = [Ballot(i, answer) for i, answer in enumerate(state) if answer != OPEN]
            open_paths = [i for i, answer in enumerate(state) if answer == OPEN]
            leader = winner(cast)
            votes = [[Ballot(i, a) for a in (*ANSWERS, "new")] for i in open_paths]
            stands = all(winner([*cast, *more]) == leader for more in itertools.product(*votes))
            assert decided(cast, open_paths) == stands, state
            states += 1
            early += stands and bool(open_paths)
    assert states == sum(5**n for n in range(1, 6))
    assert early > 300


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((*ANSWERS, OPEN)), st.sampled_from((0.0, 0.1, 0.2, 0.3, 1.0))),
        min_size=1,
        max_size=6,
    ).filter(lambda paths: sum(answer == OPEN for answer, _ in paths) <= 3)
)
def test_decided_is_exact_with_weights(paths: list[tuple[str | None, float]]) -> None:
    cast = [Ballot(i, a, w) for i, (a, w) in enumerate(paths) if a != OPEN]
    w_max = {i: w for i, (a, w) in enumerate(paths) if a == OPEN}
    leader = winner(cast)
    stands = all(winner([*cast, *more]) == leader for more in completions(list(w_max), w_max))
    assert decided(cast, list(w_max), w_max) == stands


def test_equal_reach_is_decided_by_the_smallest_path_index() -> None:
    assert decided([Ballot(0, "a"), Ballot(1, "a")], [2, 3])
    assert decided([Ballot(0, "a"), Ballot(2, "a")], [1, 3])
    assert not decided([Ballot(1, "a"), Ballot(2, "a")], [0, 3])
    assert not decided([Ballot(0, "b"), Ballot(1, "a"), Ballot(2, "a")], [3])


def test_unbounded_weights_are_never_decided_early() -> None:
    assert not decided([Ballot(0, "a", 1e300)], [1], math.inf)
    assert decided([Ballot(0, "a", 1e300)], [], math.inf)


def test_nothing_counted_is_open_unless_nobody_can_vote() -> None:
    assert not decided([], [0])
    assert not decided(ballots(None, None), [2])
    assert decided(ballots(None), [1], {1: 0.0})
    assert decided(ballots(None), [])


def test_winner_takes_weight_then_the_smallest_index() -> None:
    assert winner(ballots("b", "a", "a", "b")) == "b"
    assert winner(ballots("b", "a", "a")) == "a"
    assert winner([Ballot(0, "a", 1.0), Ballot(1, "b", 1.5)]) == "b"
    assert winner([Ballot(3, "a"), Ballot(1, "b"), Ballot(2, None)]) == "b"
    assert winner(ballots(None, None)) is winner([]) is winner([Ballot(0, "a", 0.0)]) is None


@given(st.permutations([0.1, 0.2, 0.3, 1e16, 1.0, 0.7]))
def test_sums_do_not_depend_on_order(weights: list[float]) -> None:
    cast = [Ballot(i, "a", w) for i, w in enumerate(weights)]
    assert tally(cast)["a"].weight == math.fsum(sorted(weights))


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_must_be_finite_and_not_negative(weight: float) -> None:
    with pytest.raises(ValueError, match="weight of path 4"):
        Ballot(4, "a", weight)


def test_the_returned_path_is_the_winners_earliest_or_anyones_if_all_abstain() -> None:
    cast = [Ballot(0, "a", tokens=9), Ballot(1, "b", tokens=1), Ballot(2, "a", tokens=5)]
    assert returned([*cast, Ballot(3, "a", tokens=5)]).index == 2
    assert returned([Ballot(0, None, tokens=3), Ballot(1, None, tokens=2)]).index == 1
    with pytest.raises(ValueError, match="empty"):
        returned([])


@pytest.mark.parametrize(
    ("counts", "expected"), [((3,), 0.9375), ((4,), 31 / 32), ((6, 1), 247 / 256), ((2, 2), 0.5)]
)
def test_beta_stop_has_the_published_values(counts: tuple[int, ...], expected: float) -> None:
    assert leader_probability(counts) == pytest.approx(expected, abs=1e-12)


def test_probable_stop_reaches_its_threshold_at_four_to_none() -> None:
    assert not probable(ballots("a", "a", "a"))
    assert probable(ballots("a", "a", None, "a", "a"))
    assert not probable(ballots(None, None))


def test_dirichlet_stop_is_seeded_and_agrees_with_the_exact_value() -> None:
    assert leader_probability((5, 1, 1), seed=3) == leader_probability((1, 5, 1), seed=3)
    # P(first is the largest) for Dirichlet(2, 1, 1): integrating the simplex gives 11/18.
    draws = 40_000
    error = 4 * math.sqrt(11 / 18 * 7 / 18 / draws)
    assert leader_probability((1, 0, 0), seed=1, draws=draws) == pytest.approx(11 / 18, abs=error)
    assert leader_probability((9, 1, 1)) > 0.95 > leader_probability((4, 3, 2))
