"""One token's draw, against transformers' own processors and by hand where those differ."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engines.base import Sampling, UnsupportedError
from engines.drawing import Draw, best, entry, log_softmax

PROMPT = [1, 5, 5, 9]
LEAST = 5e-324
Row = NDArray[np.float64]


def row(seed: int, size: int = 50) -> Row:
    return np.random.default_rng(seed).normal(0.0, 2.0, size)


def by_transformers(logits: Row, sampling: Sampling) -> Row:
    """The distribution by transformers' processors, in our order."""
    steps = LogitsProcessorList()
    steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    scores = steps(torch.tensor([PROMPT]), torch.tensor(logits[None], dtype=torch.float64))
    found: Row = torch.log_softmax(scores[0], -1).numpy()
    return found


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.1, 3.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.9),
    penalty=st.floats(0.5, 2.0),
)
def test_the_distribution_is_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    ours = Draw(sampling, PROMPT, ()).distribution(row(seed))
    np.testing.assert_allclose(ours, by_transformers(row(seed), sampling), atol=1e-9)


def drawn(sampling: Sampling, logits: Row, steps: int, ends: Sequence[int] = ()) -> list[int]:
    draw = Draw(sampling, PROMPT, ends)
    return [draw.next(logits).token for _ in range(steps)]


def test_greedy_takes_the_likeliest_and_the_first_of_equals() -> None:
    logits = np.array([0.0, 3.0, 3.0, 1.0])
    assert drawn(Sampling(temperature=0), logits, 3) == [1, 1, 1]


def test_presence_counts_once_and_frequency_each_time() -> None:
    logits = np.array([10.0, 9.0, 0.0])
    assert drawn(Sampling(temperature=0, presence_penalty=1.5), logits, 4) == [0, 1, 0, 0]
    assert drawn(Sampling(temperature=0, frequency_penalty=0.7), logits, 5) == [0, 0, 1, 0, 1]


def test_bans_bias_and_minimum_length() -> None:
    logits = np.array([4.0, 3.0, 2.0, 1.0])
    assert drawn(Sampling(temperature=0, banned=(0, 1)), logits, 1) == [2]
    assert drawn(Sampling(temperature=0, logit_bias={3: 9.0}), logits, 1) == [3]
    held = Sampling(temperature=0, min_tokens=2)
    assert drawn(held, logits, 3, ends=[0]) == [1, 1, 0]


def test_nothing_left_is_the_callers_fault() -> None:
    with pytest.raises(UnsupportedError, match="banned"):
        drawn(Sampling(banned=(0, 1)), np.zeros(2), 1)


def test_what_is_impossible_is_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf])
    assert set(drawn(Sampling(seed=0), logits, 2000)) == {1, 3}


def test_the_seed_decides_and_may_be_negative() -> None:
    logits = row(0)
    assert drawn(Sampling(seed=-3), logits, 20) == drawn(Sampling(seed=-3), logits, 20)
    assert drawn(Sampling(seed=-3), logits, 20) != drawn(Sampling(seed=3), logits, 20)
    assert drawn(Sampling(), logits, 20) != drawn(Sampling(), logits, 20)


def test_the_logprob_is_of_the_distribution_that_drew_it() -> None:
    logits = row(4)
    sampling = Sampling(seed=1, temperature=0.5, top_k=5, logprobs=9)
    found = Draw(sampling, PROMPT, ()).next(logits)
    left = log_softmax(np.sort(logits)[-5:] / 0.5)
    assert found.logprob == pytest.approx(dict(found.top)[found.token])
    assert [value for _, value in found.top] == pytest.approx(sorted(left, reverse=True))


def test_rows_are_not_changed() -> None:
    logits = row(5)
    kept = logits.copy()
    drawn(Sampling(top_p=0.5, top_k=9, banned=(3,), presence_penalty=1.0), logits, 5)
    np.testing.assert_array_equal(logits, kept)


def test_the_best_are_ordered_and_possible() -> None:
    logprobs = np.array([-2.0, -1.0, -np.inf, -1.0])
    assert best(logprobs, 4) == ((1, -1.0), (3, -1.0), (0, -2.0))
    assert best(logprobs, 0) == ()
    assert entry(logprobs, 0, 1).top == ((1, -1.0),)


def test_a_temperature_next_to_nothing_draws_the_best() -> None:
    logits = row(3)
    for temperature in (LEAST, 1e-320, 1e-5, 0.01):
        found = Draw(Sampling(temperature=temperature), PROMPT, ()).distribution(logits)
        assert np.isfinite(found[logits.argmax()]) and not np.isnan(found).any()
        assert Sampling(temperature=temperature).heat == 0.01
    assert Sampling(temperature=0.0).heat == 0
